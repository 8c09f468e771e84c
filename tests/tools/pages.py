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
    """Write each file and type each ``sh`` block of ``page`` in ``folder``; what the commands printed."""
    printed = []
    for block in blocks(page):
        if block.path is not None:
            target = folder / block.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(block.text.encode())
        elif block.language == "sh":
            printed.append(typed(block.text, folder, environment))
    return printed


def typed(text: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a shell prints for ``text``; it stops at the first command that fails.

    Raises:
        AssertionError: a command failed.
    """
    given = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    given["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), given["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout
