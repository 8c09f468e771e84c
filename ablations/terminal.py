"""What commands print alike: tables in a width that fits, and the command to give next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["named_column", "runs_dir_words", "table_console"]

_FILE_WIDTH = 160
"""Columns of tables that go to a file or a pipe, where rich would take 80 and cut names."""


def table_console() -> Console:
    """The console that a command prints its tables to."""
    # Imported here, as in every command: what has no table to print needs no terminal.
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def named_column(table: Table, heading: str) -> None:
    """Add a column of names: in a narrow terminal they go on in the next line and are never cut."""
    table.add_column(heading, overflow="fold")


def runs_dir_words(runs_dir: Path) -> str:
    """What a suggested command needs to find records that are not in the default folder."""
    return "" if Path(runs_dir) == Path("runs") else f" runs_dir={runs_dir}"
