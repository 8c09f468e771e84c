"""Stopping a study: whom it ends, whom it leaves alone, and what it prints."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablations.errors import DataError, HeldError
from ablations.files import write_json
from sweeps.study.stopping import ending_on_sigterm, stop_study
from tests.conftest import Ablate

ROOT = Path(__file__).resolve().parents[3]

_HOLDER = """
import sys, time
from pathlib import Path
from ablations.errors import Problem
from ablations.record.lease import hold
folder = Path(sys.argv[1])
with hold(folder / "driver.lock", folder / "driver.json", lambda who: Problem("x", who)):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/s").mkdir(parents=True)
    return tmp_path / "runs/s"


@pytest.fixture
def driver(study: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the study as its driver does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(study)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_driver_is_ended(study: Path, driver: subprocess.Popen[str], ablate: Ablate) -> None:
    answer = ablate("stop", "study=s")
    assert answer.code == 0, answer.err
    assert f"stopped driver {driver.pid}, 0 runs besides" in answer.out
    assert driver.wait(timeout=30) == -signal.SIGTERM
    assert "nothing of it runs on this host" in ablate("stop", "study=s").out


def test_a_driver_of_another_host_is_named_and_left_alone(
    study: Path, driver: subprocess.Popen[str]
) -> None:
    write_json(study / "driver.json", {"host": "elsewhere", "pid": os.getpid(), "started": 0.0})
    with pytest.raises(HeldError, match="give the same command on elsewhere"):
        stop_study(study.parent, "s")
    assert driver.poll() is None


def test_a_process_that_began_after_the_lease_is_not_the_holder(
    study: Path, driver: subprocess.Popen[str]
) -> None:
    lease = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0}
    write_json(study / "driver.json", lease)
    with pytest.raises(HeldError, match="an unknown process"):
        stop_study(study.parent, "s")
    assert driver.poll() is None


def test_an_unknown_study_gets_the_nearest_name(study: Path) -> None:
    (study.parent / "demo_ratio").mkdir()
    with pytest.raises(DataError, match="did you mean 'demo_ratio'"):
        stop_study(study.parent, "demo_rato")


def test_sigterm_is_ctrl_c_for_a_driver_and_only_then() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ended() -> None:
        with ending_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        ended()
    assert signal.getsignal(signal.SIGTERM) is before
