"""Check leases in the small: their content, damaged ones, file systems without locks, locks by name."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest

from ablations.errors import HeldError, Problem
from ablations.files import read_json, write_json
from ablations.record import lease as module
from ablations.record.lease import beats_elsewhere, forget_dead, hold, only_process

STALE = 0.2


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(module, "STALE_SECONDS", STALE)
    monkeypatch.setattr(module, "_observed", {})


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    with hold(folder / "lock", folder / "lease", lambda who: Problem("here", "held", found=who)):
        yield


def own(lease: Path, **changes: Any) -> None:
    write_json(lease, {"host": socket.gethostname(), "pid": 1, "token": "x", "beat": 3, **changes})


def test_a_lease_tells_who_holds_it_and_counts_its_beats(tmp_path: Path) -> None:
    before = time.time()
    heart = module._Heart(tmp_path / "lease")
    beats = []
    for _ in range(3):
        heart._write()
        beats.append(read_json(tmp_path / "lease"))
    assert [beat["beat"] for beat in beats] == [1, 2, 3]
    assert len({beat["token"] for beat in beats}) == 1
    assert beats[0]["host"] == socket.gethostname()
    assert beats[0]["pid"] == os.getpid()
    assert before <= beats[0]["started"] == beats[2]["started"] <= time.time()
    assert not heart.lost


def test_the_thread_that_beats_does_not_keep_a_process(tmp_path: Path) -> None:
    with holding(tmp_path):
        (beating,) = [one for one in threading.enumerate() if one.name == "lease"]
        assert beating.daemon
    assert not beating.is_alive()


def test_the_lock_is_released_with_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[filelock.BaseFileLock] = []
    acquire = filelock.FileLock.acquire

    def noted(self: filelock.BaseFileLock, *args: Any, **named: Any) -> Any:
        kept.append(self)
        return acquire(self, *args, **named)

    monkeypatch.setattr(filelock.FileLock, "acquire", noted)
    with holding(tmp_path):
        held = [lock.is_locked for lock in kept]
    with only_process(tmp_path, "other", "taken"):
        held += [lock.is_locked for lock in kept]
    assert held == [True, False, True]
    assert [lock.is_locked for lock in kept] == [False, False]


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("no locks"),
        *(OSError(number, "no locks") for number in module._NO_LOCKS),
    ],
)
def test_without_locks_the_lease_of_this_host_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuses(self: object, timeout: float | None = None) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuses)
    own(tmp_path / "lease")
    began = time.monotonic()
    with holding(tmp_path):
        assert time.monotonic() - began >= STALE
        assert read_json(tmp_path / "lease")["token"] != "x"


def test_a_lock_that_may_not_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: object, timeout: float | None = None) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuses)
    with pytest.raises(PermissionError), holding(tmp_path):
        pass
    assert not (tmp_path / "lease").exists()


def test_the_lease_of_another_host_is_looked_at_until_it_was_silent_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(module, "STALE_SECONDS", 60.0)
    own(tmp_path / "lease", host="elsewhere")
    with holding(tmp_path):
        pass
    assert sum(waited) == pytest.approx(60.0)
    assert max(waited) <= 1.0
    assert "held by process 1 on elsewhere; it is taken over" in capsys.readouterr().err


def test_a_lease_that_goes_away_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        (tmp_path / "lease").unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    own(tmp_path / "lease", host="elsewhere")
    with holding(tmp_path):
        assert len(waited) == 1


def until(condition: Any, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_a_damaged_lease_is_written_anew_by_its_holder(tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    with holding(tmp_path):
        token = read_json(lease)["token"]
        lease.write_text("{")
        assert until(lambda: lease.read_text() != "{")
        assert read_json(lease)["token"] == token
    assert not lease.exists()


@pytest.mark.parametrize("content", [{}, [], {"pid": 4, "host": "elsewhere", "token": "y"}])
def test_a_lease_of_another_form_or_token_ends_its_holder(tmp_path: Path, content: object) -> None:
    went_on: list[bool] = []

    def work() -> None:
        with holding(tmp_path):
            write_json(tmp_path / "lease", content)
            until(lambda: False)
            went_on.append(True)

    with pytest.raises(HeldError):
        work()
    assert not went_on
    assert read_json(tmp_path / "lease") == content


@pytest.mark.parametrize(
    ("holder", "who"),
    [
        (None, "another process"),
        ({}, "another process"),
        ({"host": "there"}, "another process"),
        ({"host": "there", "pid": 4}, "process 4 on there"),
    ],
)
def test_a_holder_is_named_where_it_is_known(holder: dict[str, Any] | None, who: str) -> None:
    assert module._who(holder) == who


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_lease_that_nobody_holds_is_removed(tmp_path: Path, content: str) -> None:
    lease = tmp_path / "lease"
    lease.write_text(content)
    assert not beats_elsewhere(lease)
    forget_dead(tmp_path / "lock", lease)
    assert not lease.exists()


def test_a_lease_of_this_host_does_not_beat_elsewhere(tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    own(lease, host="elsewhere")
    assert beats_elsewhere(lease)
    own(lease)
    assert not beats_elsewhere(lease)
    assert module._observed == {}


def test_one_process_at_a_time_holds_a_lock_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.05)
    with only_process(tmp_path, "lock", "is being tidied"):
        with (
            pytest.raises(HeldError, match=r"is being tidied; wait, or stop it"),
            only_process(tmp_path, "lock", "is being tidied"),
        ):
            pass
        with only_process(tmp_path, "other", "never"):
            assert (tmp_path / "other").exists()
    with only_process(tmp_path, "lock", "never"):
        pass
