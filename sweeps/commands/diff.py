"""Run ``ablate diff A B``: two runs or two studies side by side, with the noise of each difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from ablations.terminal import table_console
from sweeps.commands.command_options import DiffOptions, read_options
from sweeps.verdict.side_by_side import (
    Side,
    changed_metrics,
    changed_settings,
    read_side,
    sources_of,
)

__all__ = ["main"]

_SETTINGS = 30
"""Most settings that are printed; ``verbose=true`` prints all."""


def main(config: Mapping[str, Any]) -> int:
    """Print what differs: settings, mixture, scores."""
    options = read_options(DiffOptions, config, alone=True)
    first, second = (read_side(Path(options.runs_dir), name) for name in (options.a, options.b))
    out = table_console()
    for label, side in (("A", first), ("B", second)):
        out.print(f"{label}: {side.name}, {side.what}", highlight=False, markup=False)
    settings = _settings(first, second, None if options.verbose else _SETTINGS)
    out.print(settings if settings.row_count else "no setting differs")
    out.print(_mixtures(first, second))
    out.print(_metrics(first, second))
    for note in dict.fromkeys((*first.notes, *second.notes)):
        out.print(f"note: {note}", highlight=False, markup=False)
    return 0


def _settings(first: Side, second: Side, most: int | None) -> Table:
    changes = changed_settings(first, second)
    hidden = 0 if most is None else max(0, len(changes) - most)
    more = f" ({hidden} more; verbose=true prints all)" if hidden else ""
    table = _table(f"settings that differ{more}", ("key", "A", "B"))
    for key, old, new in changes[: len(changes) - hidden]:
        table.add_row(key, _shown(old), _shown(new))
    return table


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _mixtures(first: Side, second: Side) -> Table:
    table = _table("mixture", ("source", "A", "B", "difference"), numbers=3)
    for name in sources_of((first, second)):
        old, new = first.weights.get(name, 0.0), second.weights.get(name, 0.0)
        table.add_row(name, f"{old:.2%}", f"{new:.2%}", f"{new - old:+.2%}")
    return table


def _metrics(first: Side, second: Side) -> Table:
    headings = ("metric", "A", "B", "B - A", "noise (95%)", "")
    table = _table("scores", headings, numbers=4)
    for change in changed_metrics(first, second):
        table.add_row(
            change.metric,
            f"{change.first:.4f}",
            f"{change.second:.4f}",
            f"{change.difference:+.4f}",
            "unknown" if change.noise is None else f"±{change.noise:.4f}",
            "" if change.reading == "noise unknown" else change.reading,
        )
    return table


def _table(title: str, headings: tuple[str, ...], numbers: int = 0) -> Table:
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        right = 1 <= place <= numbers
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table
