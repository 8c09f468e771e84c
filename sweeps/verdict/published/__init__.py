"""Published tables of ablations and published training noise, small and cited.

    <table>.csv    task, noise_tasks, one column per candidate; facts about the table in '# key: value'
    <noise>.csv    task, accuracy_sd: training noise of one run, as shares of 1

The fact ``weights of <candidate>`` states its mixture: ``# weights of 60/40: web 0.6, books 0.4``.

``noise_tasks`` names the task or tasks (``a+b`` = their mean) whose noise applies to a row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.errors import DataError, Problem, UserError, unknown_name
from sweeps.table_text import table_text
from sweeps.verdict.observations import Candidate, Observations, ObservedRun, TaskData

__all__ = ["PublishedNoise", "published_noise", "published_table", "published_tables"]

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class PublishedNoise:
    """Declared training noise of tasks."""

    sds: Mapping[str, float]
    """Task → SD of one run's accuracy, as a share of 1."""
    df: float
    """Degrees of freedom behind each SD."""


def published_tables() -> list[str]:
    """Return the names of the tables that ship with the package."""
    return sorted(file.stem for file in _HERE.glob("*.csv") if "noise_tasks" in file.read_text())


def published_table(name: str) -> Observations:
    """Return the observations of a published table: by name, or the path of a CSV of the same form.

    Raises:
        UserError: no such table.
        DataError: a file that is not such a table.
    """
    path = _path(name, published_tables())
    facts, rows = _read(path, ["task"])
    fixed = ("task", "noise_tasks")
    names = [column for column in (rows[0] if rows else {}) if column not in fixed]
    if len(names) < 2:
        raise DataError(Problem(str(path), "a table needs two candidates or more", found=names))
    noise = published_noise(facts["noise"]) if "noise" in facts else None
    scale = _number(path, facts, "scale", 1.0)
    higher = facts.get("direction", "maximize") == "maximize"
    tasks = tuple(
        TaskData(
            task=row["task"],
            metric=facts.get("metric", "score"),
            higher_is_better=higher,
            chance=None,
            values=np.array([_value(path, row, column) for column in names]),
            published_sd=_noise_of(row, noise, scale),
        )
        for row in rows
    )
    means = np.mean([task.values for task in tasks], axis=0)
    return Observations(
        study=path.stem,
        direction="maximize" if higher else "minimize",
        score=f"mean over {len(tasks)} tasks, {facts.get('unit', 'as published')}",
        rule={"mean": {"metrics": "*/*"}},
        candidates=tuple(
            Candidate(name=column, trial=column, weights=_weights(path, facts, column))
            for column in names
        ),
        question=facts.get("title", ""),
        runs=tuple(
            ObservedRun(name=column, candidate=k, seed=0, score=float(means[k]))
            for k, column in enumerate(names)
        ),
        tasks=tasks,
        published_df=noise.df if noise else 9.0,
        first_baseline=facts.get("first_baseline"),
        caveats=tuple(facts[key] for key in ("source", "caveat") if key in facts),
    )


def published_noise(name: str) -> PublishedNoise:
    """Return published training noise of tasks: by name, or the path of a CSV with ``task,accuracy_sd``.

    Raises:
        UserError: no such table.
        DataError: a file that is not such a table.
    """
    path = _path(name, [file.stem for file in _HERE.glob("*.csv")])
    facts, rows = _read(path, ["task", "accuracy_sd"])
    sds = {row["task"]: _value(path, row, "accuracy_sd") for row in rows}
    return PublishedNoise(sds=sds, df=_number(path, facts, "df", 9.0))


def _path(name: str, known: Sequence[str]) -> Path:
    if name.endswith(".csv"):
        return Path(name)
    path = _HERE / f"{name}.csv"
    if name not in known:
        raise UserError(unknown_name("table", "published table", name, known))
    return path


def _read(path: Path, columns: Sequence[str]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the ``# key: value`` facts of a file, and its rows, which have the ``columns``."""
    lines = table_text(path).splitlines()
    pairs = [line[1:].split(":", 1) for line in lines if line.startswith("#") and ":" in line]
    facts = {key.strip(): value.strip() for key, value in pairs}
    rows: list[dict[str, str]] = []
    try:
        reader = csv.DictReader(line for line in lines if not line.startswith("#"))
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                raise DataError(
                    Problem(str(path), "a row with another number of cells", found=f"row {number}")
                )
            rows.append(row)
    except csv.Error as error:
        raise DataError(Problem(str(path), "not a table", found=str(error))) from None
    if lacking := [column for column in columns if column not in (reader.fieldnames or ())]:
        found = ", ".join(map(str, reader.fieldnames or ()))[:60]
        raise DataError(Problem(str(path), f"has no column {lacking[0]!r}", found=found))
    return facts, rows


def _number(path: Path, facts: Mapping[str, str], key: str, default: float) -> float:
    """Return a fact that is a number above zero."""
    text = facts.get(key, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise DataError(Problem(f"{path}: {key}", "not a number above zero", found=text[:60]))
    return value


def _value(path: Path, row: Mapping[str, str], column: str) -> float:
    text = row.get(column) or ""
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError:
        where = f"{path.name}: {row.get('task')}, {column}"
        raise DataError(Problem(where, "not a number", found=text)) from None


def _weights(path: Path, facts: Mapping[str, str], column: str) -> dict[str, float]:
    """Return the mixture of a candidate from its fact ``weights of <candidate>: source 0.6, …``."""
    text = facts.get(f"weights of {column}", "")
    weights = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        source, _, weight = part.rpartition(" ")
        try:
            weights[source] = float(weight)
        except ValueError:
            where = f"{path.name}: weights of {column}"
            raise DataError(
                Problem(where, "not a weight", found=part, allowed="source 0.6, …")
            ) from None
    return weights


def _noise_of(row: Mapping[str, str], noise: PublishedNoise | None, scale: float) -> float | None:
    """Return the SD of a row's value: of the mean of its tasks, assumed independent."""
    parts = (row.get("noise_tasks") or row["task"]).split("+")
    if noise is None or any(part not in noise.sds for part in parts):
        return None
    return scale * math.sqrt(sum(noise.sds[part] ** 2 for part in parts)) / len(parts)
