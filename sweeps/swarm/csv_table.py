"""Tables of a swarm: separators, decimal commas, bookkeeping, and rows that are mixtures."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ablations.errors import DataError, Problem
from sweeps.search.space import Floats
from sweeps.table_text import table_text

__all__ = ["BadRows", "CsvTable", "is_bookkeeping", "mixtures_of", "numbers", "require_columns"]

BadRows = Literal["refuse", "leave_out"]
"""Treatment of rows whose weights are not a mixture."""

_LABELS = frozenset(("", "Unnamed: 0", "run", "name", "index"))
"""Columns that are not sources or metrics."""

# fmt: off
_BOOKKEEPING = frozenset((
    "step", "steps", "iteration", "iterations", "iter", "epoch", "epochs", "seed", "timestamp",
    "time", "datetime", "date", "runtime", "duration", "wall_time", "walltime", "relative_time",
    "elapsed", "created", "created_at", "started", "finished", "tokens", "n_tokens",
    "num_tokens", "tokens_seen", "train_tokens", "samples", "samples_seen", "examples", "flops",
    "params", "n_params", "parameters", "model_size", "lr", "learning_rate", "batch_size",
    "gpu", "gpus", "rank", "world_size", "id", "trial", "trial_id", "run_id", "number", "row",
))
# fmt: on
"""Names of numeric columns that describe how a run was made; without leading underscores and groups."""

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")

_ROUNDING = 0.01
"""Largest distance of a published row's sum from one that is put down to rounding."""


def is_bookkeeping(name: str) -> bool:
    """Return True for a column like ``_step`` or ``trainer/global_step``: it describes how a run was made."""
    plain = name.rpartition("/")[2].strip().lower().lstrip("_").replace(" ", "_").replace("-", "_")
    return plain.removeprefix("global_").removeprefix("unix_") in _BOOKKEEPING


@dataclass(frozen=True)
class CsvTable:
    """Cells of a table as text, by column."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> CsvTable:
        """Read a table with commas, semicolons or tabs between its columns.

        Raises:
            DataError: no such table, not text in UTF-8, a repeated column, rows of another length.
        """
        text = table_text(path)
        separator = _separator(text)
        try:
            lines = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
        except csv.Error as error:
            raise DataError(Problem(str(path), "not a table", found=str(error))) from None
        if not lines:
            raise DataError(Problem(str(path), "an empty table"))
        header = tuple(name.strip() for name in lines[0])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(
                Problem(str(path), "the same name over several columns", found=", ".join(twice))
            )
        torn = [number for number, row in enumerate(lines, 1) if len(row) != len(header)]
        if torn:
            raise DataError(
                Problem(
                    str(path),
                    f"rows with another number of cells than the header's {len(header)}",
                    found=f"row {torn[0]}: {len(lines[torn[0] - 1])} cells ({len(torn)} such rows)",
                )
            )
        rows = [dict(zip(header, row, strict=True)) for row in lines[1:]]
        notes = []
        if separator != "," and _mend_decimals(path, rows):
            notes.append(f"{path.name}: decimal commas were read as points")
        return cls(path, header, tuple(rows), tuple(notes))

    def columns(self) -> tuple[str, ...]:
        """Return the columns that are not labels."""
        return tuple(name for name in self.header if name not in _LABELS)

    def by(self, key: str) -> dict[str, dict[str, str]]:
        """Return the rows by their key; a key that occurs twice is refused."""
        found = {row[key]: row for row in self.rows}
        if len(found) < len(self.rows):
            raise DataError(Problem(str(self.path), f"the same {key!r} in several rows"))
        return found


def _separator(text: str) -> str:
    """Return the character between columns: the most frequent one in the header."""
    first = text.lstrip("\r\n").partition("\n")[0]
    return max((",", ";", "\t"), key=first.count)


def _mend_decimals(path: Path, rows: Sequence[dict[str, str]]) -> bool:
    """Replace decimal commas by points and return True if there were any.

    Raises:
        DataError: commas and points in one column, so that either may separate thousands.
    """
    found = [
        (row, name)
        for row in rows
        for name, cell in row.items()
        if name not in _LABELS and _DECIMAL_COMMA.fullmatch(cell.strip())
    ]
    touched = {name for _, name in found}
    for row in rows if touched else ():
        mixed = next((name for name in touched if "." in row[name]), None)
        if mixed is not None:
            raise DataError(
                Problem(
                    str(path),
                    "decimal commas and points in one column",
                    found=f"{row[mixed]!r} in column {mixed!r}",
                    allowed="one of the two",
                )
            )
    for row, name in found:
        row[name] = row[name].replace(",", ".")
    return bool(found)


def numbers(rows: Sequence[Mapping[str, str]], columns: Sequence[str], path: Path) -> Floats:
    """Return the cells ``[rows, columns]`` as numbers; NaN for an empty cell.

    Raises:
        DataError: a cell that is not a number.
    """
    values = np.full((len(rows), len(columns)), np.nan)
    for i, row in enumerate(rows):
        for j, name in enumerate(columns):
            text = (row.get(name) or "").strip()
            try:
                values[i, j] = float(text) if text else math.nan
            except ValueError:
                raise DataError(
                    Problem(str(path), "not a number", found=f"{text!r} in column {name!r}")
                ) from None
    return values


def mixtures_of(
    weights: Floats, runs: Sequence[str], path: Path, bad_rows: BadRows
) -> tuple[Floats, list[int], list[str]]:
    """Return the rows, renormalised to sum to one, their numbers, and notes on the changes."""
    sums = weights.sum(axis=1)
    bad = (weights < 0.0).any(axis=1) | ~(np.abs(sums - 1.0) <= _ROUNDING)
    notes = []
    if bad.any():
        shown = ", ".join(f"{runs[i]}: sum {sums[i]:.4g}" for i in np.flatnonzero(bad)[:5])
        if bad_rows == "refuse" or bad.all():
            raise DataError(
                Problem(
                    str(path),
                    f"{int(bad.sum())} of {len(bad)} rows are not mixtures",
                    found=shown,
                    allowed=f"weights >= 0 that sum to 1 within {_ROUNDING:g}",
                    do="put them right, or leave them out with bad_rows=leave_out",
                )
            )
        notes.append(f"{int(bad.sum())} rows are not mixtures: left out ({shown})")
    kept = np.flatnonzero(~bad)
    weights, sums = weights[kept], sums[kept]
    if np.abs(sums - 1.0).max(initial=0.0) > 1e-6:
        notes.append(f"rows summed to {sums.min():.4g}–{sums.max():.4g}: renormalised to 1")
    return weights / sums[:, None], kept.tolist(), notes


def require_columns(table: CsvTable, columns: Sequence[str], what: str) -> None:
    """Refuse a table that has no column of ``what``.

    Raises:
        DataError: ``columns`` is empty.
    """
    if not columns:
        raise DataError(
            Problem(str(table.path), f"has no column of {what}", found=", ".join(table.header))
        )
