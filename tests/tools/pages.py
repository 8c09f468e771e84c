"""Pages of the documentation as a reader copies them: files to write, commands to type, in their order.

A file's block has its path on the line above it, in backquotes with a colon. Nothing of a block is changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^(?:`([^`\n]+)`:\n\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    path: str | None
    """File that it is the content of; None for commands and for what is only shown."""
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The page's blocks, in their order."""
    return [
        Block(path or None, language, text)
        for path, language, text in _BLOCK.findall(page.read_text())
    ]


def follow(page: Path, folder: Path, environment: Mapping[str, str] | None = None) -> list[str]:
    """Write each file and type each ``sh`` block of ``page`` in ``folder``; what the commands printed.

    What a block exports stays for the blocks after it, as in a terminal.
    """
    printed = []
    exported = dict(environment or {})
    for block in blocks(page):
        if block.path is not None:
            target = folder / block.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(block.text.encode())
        elif block.language == "sh":
            printed.append(typed(block.text, folder, exported))
    return printed


def typed(text: str, folder: Path, environment: dict[str, str]) -> str:
    """What a shell prints for ``text``; it stops at the first command that fails.

    ``environment`` is added to this process's own, and takes what ``text`` exports.

    Raises:
        AssertionError: a command failed.
    """
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    given["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), given["PATH"]])
    names = re.findall(r"^export (\w+)=", text, re.MULTILINE)
    told = "".join(f"\nprintf '%s' \"${name}\" > .exported-{name}" for name in names)
    done = subprocess.run(
        ["bash", "-e", "-c", text + told],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    for name in names:
        file = folder / f".exported-{name}"
        environment[name] = file.read_text()
        file.unlink()
    return done.stdout
