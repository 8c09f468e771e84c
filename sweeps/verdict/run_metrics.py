"""Metrics of a study's runs: final values, values over checkpoints, values of items."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from sweeps.verdict.details import ItemTable, item_tables
from sweeps.verdict.loading import LoadedRun
from sweeps.verdict.observations import TaskData
from sweeps.verdict.training_noise import Floats

__all__ = ["over_checkpoints", "task_data"]


def task_data(runs: Sequence[LoadedRun], rule: Mapping[str, Any]) -> tuple[TaskData, ...]:
    """Return every metric of the score, and the first metric of each task outside it.

    Args:
        runs: Runs of one study.
        rule: Terms of the score, plain values of ``evaluation.score.terms``.
    """
    facts: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in runs:
        for task, metrics in (run.rows[-1]["metrics"] if run.rows else {}).items():
            for metric, value in metrics.items():
                facts.setdefault((task, metric), value)
    patterns = [term["metrics"] for term in rule.values()]
    scored = {key for key in facts if any(fnmatchcase("/".join(key), p) for p in patterns)}
    headline: dict[str, str] = {}
    for task, metric in facts:
        headline.setdefault(task, metric)
    wanted = [key for key in facts if key in scored or _is_headline(key, headline, scored)]
    tables = item_tables(
        [run.record for run in runs], [run.result.get("step") for run in runs], wanted
    )
    return tuple(_task(runs, key, facts[key], tables.get(key)) for key in wanted)


def _is_headline(
    key: tuple[str, str], headline: Mapping[str, str], scored: set[tuple[str, str]]
) -> bool:
    task, metric = key
    return headline[task] == metric and not any(other == task for other, _ in scored)


def _task(
    runs: Sequence[LoadedRun],
    key: tuple[str, str],
    facts: Mapping[str, Any],
    items: ItemTable | None,
) -> TaskData:
    task, metric = key

    def value(row: Mapping[str, Any]) -> float | None:
        found: float | None = ((row["metrics"].get(task) or {}).get(metric) or {}).get("value")
        return found

    paths = tuple(over_checkpoints(run, value) for run in runs)
    return TaskData(
        task=task,
        metric=metric,
        higher_is_better=bool(facts.get("higher_is_better", True)),
        chance=facts.get("chance"),
        values=np.array([scores[-1] if len(scores) else math.nan for _, scores in paths]),
        trajectories=paths,
        items=items.values if items else None,
        groups=items.groups if items else None,
    )


def over_checkpoints(
    run: LoadedRun, value: Callable[[Mapping[str, Any]], float | None]
) -> tuple[Floats, Floats]:
    """Return (tokens, value) over the checkpoints of a run; a missing value is NaN."""
    values = [value(row) for row in run.rows]
    return run.tokens, np.array([math.nan if v is None else float(v) for v in values])
