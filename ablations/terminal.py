"""Shared output of commands: tables that fit the width, and the next command to run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "named_column",
    "override_word",
    "quoted",
    "runs_dir_words",
    "shell_word",
    "table_console",
]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = ("true", "false", "null", "nan", "inf")

_FILE_WIDTH = 160
"""Columns of tables that go to a file or a pipe, where rich would take 80 and cut names."""


def table_console() -> Console:
    """Return the console that a command prints its tables to."""
    # Imported here, as in every command: what has no table to print needs no terminal.
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def named_column(table: Table, heading: str) -> None:
    """Add a column of names: in a narrow terminal they go on in the next line and are never cut."""
    table.add_column(heading, overflow="fold")


def quoted(value: Any) -> str:
    """Return a value as Hydra's override grammar reads it back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _WORD.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    # In quotes a backslash is itself, except where a quote follows it: there it is doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def override_word(key: str, value: Any) -> str:
    """Return ``key=value`` as one word of a shell, for a command that is printed to be given next.

    A value from a folder's name or a config may hold what a shell would run.
    """
    return shell_word(f"{key}={quoted(value)}")


def shell_word(text: str) -> str:
    """Return a text as one word of a shell, in double quotes where these are enough for its single ones."""
    if "'" in text and not set(text) & set('"$`\\!\n'):
        return f'"{text}"'
    return shlex.quote(text)


def runs_dir_words(runs_dir: Path) -> str:
    """Return what a suggested command needs to find records that are not in the default folder."""
    return "" if Path(runs_dir) == Path("runs") else f" {override_word('runs_dir', str(runs_dir))}"
