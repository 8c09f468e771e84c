"""A host after the first waits for the run's end, and notices that the first one is gone."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations import other_hosts
from ablations.errors import HostLostError
from ablations.record.run_record import HOLDER, RunRecord


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(other_hosts, "time", made)
    return made


def watching(folder: Path) -> Any:
    return other_hosts._Watch(RunRecord(folder))


def beat(folder: Path, number: int) -> None:
    (folder / HOLDER).write_text("{}")
    os.utime(folder / HOLDER, ns=(number, number))


def test_a_result_ends_the_wait(tmp_path: Path, clock: Clock) -> None:
    watch = watching(tmp_path)
    watch.look()
    clock.sleep(2)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(other_hosts._OverError):
        watch.look()


def test_an_earlier_failure_that_is_removed_does_not(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "paused.json").write_text("{}")
    watch = watching(tmp_path)
    (tmp_path / "result.json").unlink()
    watch.look()
    clock.sleep(2)
    (tmp_path / "result.json").write_text('{"status": "failed"}')
    with pytest.raises(other_hosts._OverError):
        watch.look()


def test_a_living_first_host_is_waited_for_and_a_silent_one_is_not(
    tmp_path: Path, clock: Clock
) -> None:
    watch = watching(tmp_path)
    for number in range(200):  # two thousand seconds of scoring
        beat(tmp_path, number)
        clock.sleep(10)
        watch.look()
    clock.sleep(other_hosts.MEETING_SECONDS + 1)
    with pytest.raises(HostLostError, match="no sign of the first host for 600 s"):
        watch.look()


def test_once_its_ranks_ended_a_host_goes_when_the_first_lets_the_run_go(
    tmp_path: Path, clock: Clock
) -> None:
    beat(tmp_path, 1)
    watch = watching(tmp_path)
    watch.patience, watch.after = 60.0, "the ranks of this host ended, and "
    clock.sleep(5)
    watch.look()
    (tmp_path / HOLDER).unlink()
    clock.sleep(2)
    watch.look()
    clock.sleep(2)
    with pytest.raises(HostLostError, match="the ranks of this host ended, and no sign"):
        watch.look()


def test_the_first_host_does_not_record_a_lost_host_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablations.processes.ended import Result
    from ablations.training import worker_calls
    from ablations.training.hosts import Hosts

    hosts = Hosts(count=2, index=0, address="a", port=1, name="a")
    lost = Result(died="its worker was killed by SIGKILL")
    monkeypatch.setattr(worker_calls, "hosts_of", lambda _: hosts)
    monkeypatch.setattr(worker_calls, "run_in_worker", lambda *_: lost)
    monkeypatch.setattr(worker_calls, "failure", lambda *_: SimpleNamespace(last_step=20))
    job: Any = SimpleNamespace(execution=SimpleNamespace(ranks=2), directory=tmp_path)
    start: Any = None
    with pytest.raises(HostLostError, match="step 20: a host was lost: its worker was killed") as e:
        worker_calls._train_in_workers(job, start, "worker", lambda: None)
    assert e.value.exit_code == 75
