"""Commands that a program calls: their exit codes, and that none outlives the program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablations.errors import WorkError
from sweeps.programs.subprocess_cli import Caller


def test_a_command_that_fails_fails_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Caller(overrides=())._call(["ls"])
    with pytest.raises(WorkError, match="`ablate run no_such_key=1` ended with exit code 2"):
        Caller(overrides=())._call(["run", "no_such_key=1"])


def test_a_command_ends_with_the_program_that_gave_it(tmp_path: Path) -> None:
    # `ls` waits at a named pipe that nobody writes to.
    manifest = tmp_path / "runs/study/a-0/manifest.json"
    manifest.parent.mkdir(parents=True)
    os.mkfifo(manifest)
    ask = "from sweeps.programs.subprocess_cli import Caller; Caller(overrides=())._call(['ls'])"
    program = subprocess.Popen([sys.executable, "-c", ask], cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    try:
        while not (below := children(program.pid)):
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (command,) = below
        time.sleep(0.5)
        program.kill()
        program.wait()
        while is_alive(command):
            assert time.monotonic() < deadline, "it outlives the program"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
