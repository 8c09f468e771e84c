"""A run on two hosts, which are two commands of this machine: the same losses, also if one is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ablations.record.run_record import RunRecord, list_runs
from tests.conftest import SHORT_SOURCES, Ablate
from tests.conftest import TINY as SHORT

pytestmark = pytest.mark.slow

TINY = (*SHORT, *SHORT_SOURCES)
STEPS = 50
LONG = 400
WIDE = "mixture.epoch_cap=1000"
HOST_LOST = 75


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class TwoHosts:
    """Two commands of one run on this machine."""

    study: str
    overrides: tuple[str, ...]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> None:
        """Start both, the second host first."""
        port = _free_port()
        where = ("execution.nodes=2", f"execution.rendezvous=127.0.0.1:{port}")
        words = (*TINY, *self.overrides, *where, f"study={self.study}")
        command = [sys.executable, "-m", "ablations.cli", "run", *words]
        self.processes = [
            subprocess.Popen(
                [*command, f"execution.node_rank={index}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in (1, 0)
        ][::-1]

    def wait(self, seconds: float = 240.0) -> list[tuple[int, str]]:
        """Return code and output of the first host and of the second."""
        ended = []
        for process in self.processes:
            output, _ = process.communicate(timeout=seconds)
            ended.append((process.returncode, output))
        return ended

    def record(self) -> RunRecord:
        (record,) = list_runs(Path("runs"), self.study)
        return record

    def wait_for_step(self, step: int) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if any(list_runs(Path("runs"), self.study)):
                rows = self.record().metrics()
                if rows and rows[-1]["step"] >= step:
                    return
            for process in self.processes:
                assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        raise TimeoutError(f"step {step} was not reached")

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def hosts(workspace: Path) -> Iterator[list[TwoHosts]]:
    made: list[TwoHosts] = []
    yield made
    for pair in made:
        pair.end()


def losses_of(record: RunRecord) -> list[float]:
    return [row["loss"] for row in record.metrics()]


def test_two_hosts_have_the_losses_of_one(ablate: Ablate, hosts: list[TwoHosts]) -> None:
    long = (f"schedule.total_tokens={STEPS * 256}", "execution.dp=4")
    pair = TwoHosts("two", long)
    hosts.append(pair)
    pair.start()
    (code, output), (other, said) = pair.wait()
    assert code == 0, output
    assert other == 0, said
    assert "host 1 of 2 only trained" in said
    assert ablate("run", *TINY, *long, "study=one").code == 0
    (alone,) = list_runs(Path("runs"), "one")
    record = pair.record()
    assert len(losses_of(record)) == STEPS
    assert losses_of(record) == losses_of(alone)
    assert record.scores()
    assert record.result() is not None
    assert record.result()["metrics"] == alone.result()["metrics"]  # type: ignore[index]
    assert record.manifest.fingerprint == alone.manifest.fingerprint
    assert not list(record.path.glob(".answer*"))


@pytest.mark.parametrize("lost", [pytest.param(0, id="first"), pytest.param(1, id="second")])
def test_a_killed_host_ends_the_other_and_the_same_commands_go_on(
    ablate: Ablate, hosts: list[TwoHosts], lost: int
) -> None:
    long = (
        f"schedule.total_tokens={LONG * 256}",
        WIDE,
        "training.recovery_interval_steps=10",
        "execution.dp=2",
    )
    pair = TwoHosts("killed", long)
    hosts.append(pair)
    pair.start()
    pair.wait_for_step(30)
    os.kill(pair.processes[lost].pid, signal.SIGKILL)
    ended = pair.wait()
    assert ended[lost][0] == -signal.SIGKILL
    assert ended[1 - lost][0] == HOST_LOST, ended[1 - lost][1]
    assert "a host was lost" in ended[1 - lost][1]
    record = pair.record()
    assert record.result() is None
    assert record.status == "training"
    pair.start()
    assert [code for code, _ in pair.wait()] == [0, 0]
    resumed = [event["step"] for event in record.events() if event["kind"] == "resume"]
    assert resumed
    assert resumed[0] >= 10
    assert ablate("run", *TINY, *long, "study=calm").code == 0
    (calm,) = list_runs(Path("runs"), "calm")
    assert losses_of(record) == losses_of(calm)


def test_a_failure_on_the_other_host_is_recorded_by_the_first(hosts: list[TwoHosts]) -> None:
    # The last stage of the pipeline has the loss, and it is on the second host.
    diverging = ("training.diverged_ratio=0.01", "training.diverged_patience_steps=2")
    pair = TwoHosts("diverged", ("execution.pp=2", *diverging))
    hosts.append(pair)
    pair.start()
    (code, output), (other, said) = pair.wait()
    assert code == 1, output
    assert other == 0, said
    result = pair.record().result()
    assert result is not None
    assert result["status"] == "failed"
    assert "diverged" in result["reason"] or "loss" in result["reason"]
    assert any(event["kind"] == "diverged" for event in pair.record().events())


def test_a_run_that_is_done_ends_on_both_at_once(ablate: Ablate, hosts: list[TwoHosts]) -> None:
    assert ablate("run", *TINY, "execution.dp=2", "study=done").code == 0
    pair = TwoHosts("done", ("execution.dp=2",))
    hosts.append(pair)
    pair.start()
    assert [code for code, _ in pair.wait(60)] == [0, 0]


def test_hosts_that_nothing_gives_are_refused(workspace: Path, ablate: Ablate) -> None:
    answer = ablate("run", *TINY, "execution.nodes=2", "execution.dp=2")
    assert answer.code == 2
    assert "execution.nodes: there are not that many hosts here" in answer.err
    assert not Path("runs").exists()
