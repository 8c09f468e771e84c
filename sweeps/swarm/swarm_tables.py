"""Swarms: mixtures and the metrics of their runs, from studies or from tables of any origin.

    ratios.csv     run, name, index, <source>, <source>, …      Olmix's pair of tables: one row per run
    metrics.csv    run, name, index, <metric>, <metric>, …

RegMix's tables (``index, train_<source>…`` and ``index, metric/<metric>…``) are read as well. Rows are
matched by ``run`` if both tables have it, else by ``index``. Published weights are rounded: rows of
RegMix sum to 0.996–1.003. They are renormalised, with a note.

Spreadsheets write such tables with a byte order mark, with ``;`` or tabs between columns, and then with
decimal commas. All of these are read. Columns that loggers add (``step``, ``_timestamp``, ``seed``) are
not sources. Among metrics they stay, and ``ablate fit`` leaves them out of the score unless ``target``
names them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ablations.errors import DataError, Problem
from ablations.files import write_text
from ablations.record.run_record import list_runs
from sweeps.search.space import Floats
from sweeps.study.objective import SCORE, objective_of
from sweeps.swarm.fitted_tables import changed
from sweeps.table_text import table_text

__all__ = [
    "BadRows",
    "Swarm",
    "is_bookkeeping",
    "read_pair",
    "read_study",
    "write_pair",
]

BadRows = Literal["refuse", "leave_out"]
"""Treatment of rows whose weights are not a mixture."""

_KEYS = ("run", "index")
"""Columns that identify a row, the preferred one first."""

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


@dataclass(frozen=True, kw_only=True)
class Swarm:
    """Runs of mixtures, in the order of the tables."""

    runs: tuple[str, ...]
    """Name of each row."""
    sources: tuple[str, ...]
    """Columns of the weights; ``<config path>.<source>`` if several stages were varied."""
    weights: Floats
    """``[runs, sources]``; each mixture sums to one."""
    metrics: tuple[str, ...]
    values: Floats
    """``[runs, metrics]``; NaN if a run has no value."""
    notes: tuple[str, ...] = ()
    """Changes that were made to the tables while they were read."""

    @property
    def mixtures(self) -> dict[str, tuple[int, ...]]:
        """Config path of each mixture (empty for a table's only one) → its columns."""
        found: dict[str, list[int]] = {}
        for column, name in enumerate(self.sources):
            found.setdefault(name.rpartition(".")[0], []).append(column)
        return {path: tuple(columns) for path, columns in found.items()}


def is_bookkeeping(name: str) -> bool:
    """Return True for a column like ``_step`` or ``trainer/global_step``: it describes how a run was made."""
    plain = name.rpartition("/")[2].strip().lower().lstrip("_").replace(" ", "_").replace("-", "_")
    return plain.removeprefix("global_").removeprefix("unix_") in _BOOKKEEPING


def read_pair(ratios: Path, metrics: Path, bad_rows: BadRows = "refuse") -> Swarm:
    """Return the swarm of a pair of tables.

    Args:
        ratios: Table of mixtures.
        metrics: Table of the metrics of their runs.
        bad_rows: ``refuse`` rows whose weights are not a mixture, or ``leave_out`` them with a note.

    Raises:
        DataError: tables that cannot be read or do not belong together, or rows that are not mixtures.
    """
    left, right = _Table.read(ratios), _Table.read(metrics)
    key = next((key for key in _KEYS if key in left.header and key in right.header), None)
    if key is None:
        # The table at fault is the one that has neither column.
        odd = left if not set(_KEYS) & set(left.header) else right
        raise DataError(
            Problem(
                str(odd.path),
                "no column names the rows of both tables",
                found=", ".join(odd.header[:4]),
                allowed="a column 'run' or 'index' in both",
            )
        )
    left_rows, right_rows = left.by(key), right.by(key)
    shared = [name for name in left_rows if name in right_rows]
    if not shared:
        raise DataError(Problem(str(metrics), f"shares no {key!r} with {ratios}"))
    sources = tuple(name for name in left.columns() if not is_bookkeeping(name))
    measured = right.columns()
    _require_columns(left, sources, "sources")
    _require_columns(right, measured, "metrics")
    weights = _numbers([left_rows[name] for name in shared], sources, ratios)
    weights, kept, notes = _normalised(np.nan_to_num(weights), shared, ratios, bad_rows)
    if aside := [name for name in left.columns() if name not in sources]:
        notes.insert(0, f"{ratios.name}: no sources by their names, left out: {', '.join(aside)}")
    notes = [*changed(ratios), *changed(metrics), *left.notes, *right.notes, *notes]
    if left_out := len(left_rows) + len(right_rows) - 2 * len(shared):
        notes.append(f"{left_out} rows are in one of the two tables only: left out")
    return Swarm(
        runs=tuple(shared[i] for i in kept),
        sources=tuple(name.removeprefix("train_") for name in sources),
        weights=weights,
        metrics=tuple(name.removeprefix("metric/") for name in measured),
        values=_numbers([right_rows[shared[i]] for i in kept], measured, metrics),
        notes=tuple(notes),
    )


def _require_columns(table: _Table, columns: Sequence[str], what: str) -> None:
    if not columns:
        raise DataError(
            Problem(str(table.path), f"has no column of {what}", found=", ".join(table.header))
        )


def read_study(runs_dir: Path, study: str) -> Swarm:
    """Return the finished runs of a study, one row each; replicates are rows of the same mixture.

    Raises:
        DataError: no run of the study has finished.
    """
    rows: list[tuple[str, dict[str, float], dict[str, float]]] = []
    lost: list[str] = []
    # The study's task quality may have decided on another score than the runs recorded.
    score = replace(objective_of(Path(runs_dir) / study), metrics=(SCORE,))
    for record in list_runs(runs_dir, study):
        result = record.result()
        if result is None and record.status == "done":
            lost.append(record.path.name)
        if result is None or result.get("status") != "done":
            continue
        measured = {k: math.nan if v is None else float(v) for k, v in result["metrics"].items()}
        if (value := score.value(result)) is not None:
            measured["score"] = value
        rows.append((record.path.name, _varied(record.manifest.config), measured))
    if not rows:
        where = str(Path(runs_dir) / study)
        raise DataError(Problem(where, "no finished run", do="name another study or wait"))
    sources = tuple(dict.fromkeys(name for _, weights, _ in rows for name in weights))
    metrics = tuple(dict.fromkeys(name for _, _, measured in rows for name in measured))
    return _plain_names(
        Swarm(
            runs=tuple(name for name, _, _ in rows),
            sources=sources,
            weights=np.array([[weights.get(s, 0.0) for s in sources] for _, weights, _ in rows]),
            metrics=metrics,
            values=np.array([[row.get(m, math.nan) for m in metrics] for _, _, row in rows]),
            notes=(f"result.json is missing, left out: {', '.join(lost)}",) if lost else (),
        )
    )


def write_pair(folder: Path, swarm: Swarm) -> tuple[Path, Path]:
    """Write ``ratios.csv`` and ``metrics.csv`` in Olmix's form, whole or not at all; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    ratios, metrics = folder / "ratios.csv", folder / "metrics.csv"
    write_text(ratios, _csv(swarm.runs, swarm.sources, swarm.weights))
    write_text(metrics, _csv(swarm.runs, swarm.metrics, swarm.values))
    return ratios, metrics


@dataclass(frozen=True)
class _Table:
    path: Path
    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> _Table:
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


def _numbers(rows: Sequence[Mapping[str, str]], columns: Sequence[str], path: Path) -> Floats:
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


def _normalised(
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


def _varied(config: Mapping[str, object]) -> dict[str, float]:
    """Return a run's weights by ``<config path>.<source>``: of its stages, else of its one mixture."""
    schedule = config.get("schedule")
    stages = schedule.get("stages") if isinstance(schedule, Mapping) else None
    found: dict[str, float] = {}
    for name, stage in (stages or {}).items():
        for source, weight in (stage.get("weights") or {}).items():
            found[f"schedule.stages.{name}.weights.{source}"] = float(weight)
    mixture = config.get("mixture")
    weights = mixture.get("weights") if isinstance(mixture, Mapping) else None
    if len(found) == 0 or any(not stage.get("weights") for stage in (stages or {}).values()):
        total = math.fsum((weights or {}).values())
        found |= {f"mixture.weights.{s}": float(w) / total for s, w in (weights or {}).items()}
    return found


def _plain_names(swarm: Swarm) -> Swarm:
    """Return the swarm without mixtures that no run varied; one mixture's columns get plain names."""
    varied = [
        columns
        for columns in swarm.mixtures.values()
        if np.ptp(swarm.weights[:, columns], axis=0).max() > 0.0
    ] or list(swarm.mixtures.values())[:1]
    kept = [column for columns in varied for column in columns]
    names = [swarm.sources[column] for column in kept]
    return Swarm(
        runs=swarm.runs,
        sources=tuple(n.rpartition(".")[2] if len(varied) == 1 else n for n in names),
        weights=swarm.weights[:, kept],
        metrics=swarm.metrics,
        values=swarm.values,
        notes=swarm.notes,
    )


def _csv(runs: Sequence[str], columns: Sequence[str], values: Floats) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["", "run", "name", "index", *columns])
    for i, (run, row) in enumerate(zip(runs, values, strict=True)):
        writer.writerow([i, run, run, i, *("" if math.isnan(v) else repr(float(v)) for v in row)])
    return stream.getvalue()
