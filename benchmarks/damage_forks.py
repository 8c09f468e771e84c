"""Commands of ``ablate`` in forks of this process, for ``benchmarks/damage.py``.

The process has imported what the commands need. Started by root, a fork gives up its right to read
anything, so that an unreadable file is one.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.files import read_json

__all__ = ["ESCAPED", "Answer", "give"]

LIMIT_SECONDS = 180.0
"""Of one command. A lease that seems another host's is waited for 60 s."""

ESCAPED = 70
"""Exit code of a command that an exception left."""

_CAPABILITY_VERSION = 0x20080522
_READS_ANYTHING = (1 << 1) | (1 << 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""

_VOLATILE = frozenset(
    (
        *("cost", "created", "at", "content_sha256", "started", "finished", "host", "pid", "time"),
        *(
            "command",
            "provenance",
            "wall_seconds",
            "cpu_seconds",
            "device_seconds",
            "stage_hours",
            "versions",
        ),
    )
)
"""Keys whose values differ from one time to the next."""


@dataclass
class Answer:
    """Codes, output and results of the commands of a case."""

    codes: list[int]
    text: str
    """Output of all of them, and what the records state of damage."""
    outcome: dict[str, Any]


def give(
    where: Path, commands: Sequence[Sequence[str]], results: Sequence[str] = (), noted: str = ""
) -> Answer:
    """Give the commands in a fork of this process.

    Args:
        where: The folder that they are given in.
        commands: Arguments of each.
        results: Patterns of the files below it that hold results.
        noted: The run folder whose own notes on damage count as output.
    """
    pid = os.fork()
    if pid == 0:
        _child(where, commands)
    deadline = time.monotonic() + LIMIT_SECONDS * len(commands)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.02)
    codes = where / "codes.txt"
    found = [int(code) for code in codes.read_text().split()] if codes.exists() else []
    text = (where / "out.txt").read_text(errors="replace")
    found += [-9] * (len(commands) - len(found))
    outcome = {
        path.relative_to(where).as_posix(): _content(path)
        for pattern in results
        for path in sorted(where.glob(pattern))
    }
    return Answer(found, text + (_noted(where / noted) if noted else ""), outcome)


def _child(where: Path, commands: Sequence[Sequence[str]]) -> None:
    try:
        os.setsid()
        os.chdir(where)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(out, stream)
        if os.geteuid() == 0:
            _give_up_rights()
        os.environ.update(ABLATIONS_SLOT="damage", HOME=str(where))
        from hydra.core.global_hydra import GlobalHydra

        from ablations.cli import main

        for command in commands:
            GlobalHydra.instance().clear()
            try:
                code = main(list(command))
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except Exception:
                code = ESCAPED
                traceback.print_exc()
            sys.stdout.flush()
            with Path("codes.txt").open("a") as stream:
                print(code, file=stream)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _give_up_rights() -> None:
    """Let permissions hold for root too: without two of its capabilities it reads as others do."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for part in (0, 1):  # effective and permitted, of the first 32
        sets[part] &= ~_READS_ANYTHING
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _noted(run: Path) -> str:
    """Return what a record states: events of damage, reasons, notes on scores."""
    parts = []
    for name in ("events.jsonl", "scores.jsonl", "result.json"):
        path = run / name
        if path.is_file():
            rows = path.read_text(errors="replace").splitlines()
            parts += [row for row in rows if '"damaged"' in row or '"missing"' in row]
    return "\n".join(["", *parts])


def _content(path: Path) -> Any:
    """Return what must not change silently of one file."""
    try:
        if path.suffix == ".json":
            return _lasting(read_json(path))
        if path.suffix == ".jsonl":  # of metrics: how often something was done
            return len(path.read_bytes().splitlines())
        if path.suffix == ".md":
            return path.read_text()
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(inner) for key, inner in value.items() if key not in _VOLATILE}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value
