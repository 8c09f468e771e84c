"""One holder at a time, also where a file system carries no locks and clocks differ."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import filelock
import pytest

from ablations.errors import HeldError, Problem
from ablations.files import read_json, write_json
from ablations.record import lease as module
from ablations.record.lease import beats_elsewhere, forget_dead, hold

BEAT, STALE = 0.05, 0.4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(module, "STALE_SECONDS", STALE)
    monkeypatch.setattr(module, "_observed", {})


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that carries no locks: everybody gets one."""
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, timeout=None: None)
    monkeypatch.setattr(filelock.FileLock, "release", lambda self, force=False: None)


def refusal(who: str) -> Problem:
    return Problem("here", "held", found=who)


def holding(folder: Path) -> AbstractContextManager[None]:
    return hold(folder / "lock", folder / "lease.json", refusal)


def foreign(folder: Path, beat: int = 1, **more: object) -> None:
    """A lease of another host."""
    there = {"host": "elsewhere", "pid": 7, "token": "theirs", "beat": beat, **more}
    write_json(folder / "lease.json", there)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("clock", [-3600.0, 0.0, 3600.0])
def test_a_silent_lease_of_another_host_is_taken_over_whatever_its_clock_shows(
    tmp_path: Path, clock: float
) -> None:
    foreign(tmp_path, started=time.time() + clock, heartbeat=time.time() + clock)
    began = time.monotonic()
    with holding(tmp_path):
        assert read_json(tmp_path / "lease.json")["token"] != "theirs"
    assert time.monotonic() - began >= STALE
    assert not (tmp_path / "lease.json").exists()


def test_a_beating_lease_of_another_host_is_refused_by_name(tmp_path: Path) -> None:
    foreign(tmp_path)
    timer = threading.Timer(STALE / 3, foreign, (tmp_path, 2))
    timer.start()
    with pytest.raises(HeldError, match="process 7 on elsewhere"), holding(tmp_path):
        pass
    timer.join()
    assert read_json(tmp_path / "lease.json")["token"] == "theirs"


def forget(folder: Path) -> bool:
    """Return whether a lease file is left."""
    forget_dead(folder / "lock", folder / "lease.json")
    return (folder / "lease.json").exists()


def test_a_dead_holders_lease_is_removed_where_nobody_holds_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not forget(tmp_path)
    assert not (tmp_path / "lock").exists()
    foreign(tmp_path)
    assert forget(tmp_path), "another host's may be alive"
    monkeypatch.setattr(module.socket, "gethostname", lambda: "elsewhere")
    assert not forget(tmp_path)


def test_a_living_holders_lease_stays(tmp_path: Path) -> None:
    with holding(tmp_path):
        assert forget(tmp_path)


def test_a_dead_holder_of_this_host_is_replaced_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(tmp_path)
    monkeypatch.setattr(module.socket, "gethostname", lambda: "elsewhere")
    began = time.monotonic()
    with holding(tmp_path):
        pass
    assert time.monotonic() - began < STALE


@pytest.mark.usefixtures("no_locks")
def test_a_holder_that_lost_its_lease_is_ended_and_leaves_it_alone(tmp_path: Path) -> None:
    went_on: list[bool] = []

    def work() -> None:
        with holding(tmp_path):
            foreign(tmp_path)
            until(lambda: False)
            went_on.append(True)

    with pytest.raises(HeldError, match="process 7 on elsewhere"):
        work()
    assert not went_on
    assert read_json(tmp_path / "lease.json")["token"] == "theirs"


@pytest.mark.usefixtures("no_locks")
def test_a_holder_whose_successor_has_ended_is_ended_too(tmp_path: Path) -> None:
    def work() -> None:
        with holding(tmp_path):
            (tmp_path / "lease.json").unlink()
            until(lambda: False)

    with pytest.raises(HeldError, match="another process"):
        work()


@pytest.mark.usefixtures("no_locks")
def test_of_two_holders_without_locks_one_remains(tmp_path: Path) -> None:
    ends: list[str] = []

    def work() -> None:
        try:
            with holding(tmp_path):
                until(lambda: False, seconds=1.0)
            ends.append("done")
        except HeldError:
            ends.append("held")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["done", "held"]


def test_a_lease_that_was_kept_goes_on_and_ends_with_its_holder(tmp_path: Path) -> None:
    with holding(tmp_path):
        first = read_json(tmp_path / "lease.json")["beat"]
        assert until(lambda: read_json(tmp_path / "lease.json")["beat"] > first + 1)
    assert not (tmp_path / "lease.json").exists()


def test_an_error_of_the_work_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / "lease.json").exists()


def test_a_run_of_another_host_seems_alive_until_it_was_seen_silent(tmp_path: Path) -> None:
    lease = tmp_path / "lease.json"
    assert not beats_elsewhere(lease)
    foreign(tmp_path)
    assert beats_elsewhere(lease)
    assert until(lambda: not beats_elsewhere(lease), seconds=STALE * 3)
    foreign(tmp_path, beat=2)
    assert beats_elsewhere(lease)
