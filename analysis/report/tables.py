"""Cells and rows of the tables in a report: each cell has a text to read and a number to sort by.

A page shows the first rows of a long table as HTML and keeps all of its rows as JSON, so that a study of
20,000 trials stays a page that opens (:func:`rows_json`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.figures.theme import number

if TYPE_CHECKING:
    from sweeps.verdict.contrasts import Estimate

__all__ = [
    "PAGE_ROWS",
    "Cell",
    "Heading",
    "Row",
    "Table",
    "interval",
    "number_cell",
    "p_cell",
    "rows_json",
    "script_json",
    "signed",
    "text_cell",
]

PAGE_ROWS = 100
"""Rows of a table that a page shows at once."""


@dataclass(frozen=True)
class Heading:
    """Column of a table."""

    title: str
    number: bool = False
    sortable: bool = True


@dataclass(frozen=True)
class Cell:
    """Cell of a table."""

    text: str
    number: float | str | None = None
    """Key to sort by: a number, an empty text if it is missing, None for texts."""
    more: str = ""
    """Text that the page shows on request."""
    more_label: str = ""
    long: bool = False
    """Long texts may break into lines."""


@dataclass(frozen=True)
class Row:
    """Row of a table, with its CSS class."""

    cells: Sequence[Cell]
    style: str = ""


@dataclass(frozen=True)
class Table:
    """Table with headings and rows."""

    columns: Sequence[Heading]
    rows: Sequence[Row] = field(default=())

    @property
    def long(self) -> bool:
        """Return whether a page shows the table in parts."""
        return len(self.rows) > PAGE_ROWS


def p_cell(estimate: Estimate | None) -> Cell:
    """Return a cell with the corrected p-value of a difference."""
    from sweeps.verdict.p_values import p_value

    if estimate is None:
        return Cell("–", "")
    return Cell(p_value(estimate.p_corrected), estimate.p_corrected)


def number_cell(value: Any, digits: int = 5, form: str | None = None) -> Cell:
    """Return a cell with a number; a dash that sorts last if it is missing."""
    if value is None or value != value or (isinstance(value, float) and math.isinf(value)):
        return Cell("–", "")
    text = format(value, form) if form else number(float(value), digits)
    return Cell(text, float(value))


def text_cell(value: Any) -> Cell:
    """Return a cell with a text; empty if it is missing."""
    return Cell("" if value is None or value != value else str(value))


def interval(found: Estimate | None) -> str:
    """Format a difference with its interval, with signs."""
    if found is None or found.value != found.value:
        return "–"
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        return f"{signed(found.value)} (noise unknown)"
    return f"{signed(found.value)} [{signed(found.low)}, {signed(found.high)}]"


def signed(value: float) -> str:
    """Format with a sign; a rounding error is 0."""
    return f"{round(value, 12):+.3g}"


_NAME = "\0"
"""Stands for the text of a row's first cell in the texts that it shows on request."""


def rows_json(table: Table) -> str:
    """Return the rows of a table as JSON that cannot end its script element early.

    A row is its cells, each a text, or ``[text, number]`` if the number to sort by cannot be read from
    the text. ``more`` has the texts shown on request, once each: with the name in the first cell taken
    out, the commands of 20,000 trials are one text.

    Returns:
        An object with ``rows``, ``styles`` (row → CSS class), ``more`` (row → place in ``texts``),
        ``labels`` (of those texts; one if all are the same) and ``texts``.
    """
    texts: dict[str, int] = {}
    rows: list[list[Any]] = []
    more: list[int] = []
    labels: list[str] = []
    for row in table.rows:
        rows.append([_plain(cell) for cell in row.cells])
        shown = next((cell for cell in row.cells if cell.more), None)
        labels.append(shown.more_label if shown else "")
        name = row.cells[0].text or _NAME
        text = shown.more.replace(name, _NAME) if shown else ""
        more.append(texts.setdefault(text, len(texts)))
    value = {
        "rows": rows,
        "styles": {str(place): row.style for place, row in enumerate(table.rows) if row.style},
        "labels": labels if len(set(labels)) > 1 else labels[:1],
        "more": more,
        "texts": list(texts),
    }
    return script_json(value)


def _plain(cell: Cell) -> str | list[Any]:
    """Return a cell for :func:`rows_json`."""
    if not isinstance(cell.number, float | int) or _read(cell.text):
        return cell.text
    return [cell.text, cell.number]


def _read(text: str) -> bool:
    """Return whether a page can read the number to sort by from the text."""
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def script_json(value: Mapping[str, Any]) -> str:
    """Return a value as JSON for a script element.

    Each "<" is inside a string, where JSON allows an escape: no name can end the element.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c")
