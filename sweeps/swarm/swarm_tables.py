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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ablations.errors import DataError, Problem
from ablations.files import write_text
from ablations.record.run_record import list_runs
from sweeps.search.space import Floats
from sweeps.study.objective import SCORE, objective_of
from sweeps.swarm.csv_table import (
    BadRows,
    CsvTable,
    is_bookkeeping,
    mixtures_of,
    numbers,
    require_columns,
)
from sweeps.swarm.fitted_tables import changed

__all__ = [
    "BadRows",
    "Swarm",
    "is_bookkeeping",
    "read_pair",
    "read_study",
    "write_pair",
]

_KEYS = ("run", "index")
"""Columns that identify a row, the preferred one first."""


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


def read_pair(ratios: Path, metrics: Path, bad_rows: BadRows = "refuse") -> Swarm:
    """Return the swarm of a pair of tables.

    Args:
        ratios: Table of mixtures.
        metrics: Table of the metrics of their runs.
        bad_rows: ``refuse`` rows whose weights are not a mixture, or ``leave_out`` them with a note.

    Raises:
        DataError: tables that cannot be read or do not belong together, or rows that are not mixtures.
    """
    left, right = CsvTable.read(ratios), CsvTable.read(metrics)
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
    require_columns(left, sources, "sources")
    require_columns(right, measured, "metrics")
    weights = numbers([left_rows[name] for name in shared], sources, ratios)
    weights, kept, notes = mixtures_of(np.nan_to_num(weights), shared, ratios, bad_rows)
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
        values=numbers([right_rows[shared[i]] for i in kept], measured, metrics),
        notes=tuple(notes),
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
