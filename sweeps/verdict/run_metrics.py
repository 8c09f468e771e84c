"""Metrics of a study's runs: final values, values over checkpoints, values of items."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ablations.evaluation.specs import HELDOUT_PREFIX, PICTURE_GAINS
from sweeps.verdict.details import ItemTable, item_tables
from sweeps.verdict.loading import LoadedRun
from sweeps.verdict.observations import PictureGain, TaskData
from sweeps.verdict.training_noise import Floats

__all__ = ["over_checkpoints", "picture_gains", "task_data"]


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
    paths = _trajectories(runs, wanted)
    return tuple(_task(key, facts[key], paths[key], tables.get(key)) for key in wanted)


def _trajectories(
    runs: Sequence[LoadedRun], wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[tuple[Floats, Floats], ...]]:
    """Return (task, metric) → (tokens, value) of each run; a missing value is NaN.

    One pass over the rows of all runs: a study of thousands has millions of values.
    """
    if not wanted:
        return {}
    places: dict[str, list[tuple[str, int]]] = {}
    for place, (task, metric) in enumerate(wanted):
        places.setdefault(task, []).append((metric, place))
    table = [math.nan] * (len(wanted) * sum(len(run.rows) for run in runs))
    start, ends = 0, [0]
    for run in runs:
        for row in run.rows:
            for task, metrics in row["metrics"].items():
                for metric, place in places.get(task, ()):
                    value = ((metrics or {}).get(metric) or {}).get("value")
                    if value is not None:
                        table[start + place] = value
            start += len(wanted)
        ends.append(start // len(wanted))
    columns = np.array(table, dtype=np.float64).reshape(-1, len(wanted)).T.copy()
    parts = [slice(*pair) for pair in itertools.pairwise(ends)]
    return {
        key: tuple((run.tokens, column[part]) for run, part in zip(runs, parts, strict=True))
        for key, column in zip(wanted, columns, strict=True)
    }


def _is_headline(
    key: tuple[str, str], headline: Mapping[str, str], scored: set[tuple[str, str]]
) -> bool:
    task, metric = key
    return headline[task] == metric and not any(other == task for other, _ in scored)


def _task(
    key: tuple[str, str],
    facts: Mapping[str, Any],
    paths: tuple[tuple[Floats, Floats], ...],
    items: ItemTable | None,
) -> TaskData:
    task, metric = key
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


def picture_gains(runs: Sequence[LoadedRun]) -> tuple[PictureGain, ...]:
    """Return gain and shuffled gain of each task about pictures, from the rows of ``scores.jsonl``.

    Details of the items are not needed, so that a study can be judged after they were deleted. A task about
    pictures whose gains were not measured is there, with values that are missing.
    """
    tasks = dict.fromkeys(task for run in runs for task in _about_pictures(run))
    wanted = [(task, metric) for task in tasks for metric in PICTURE_GAINS]
    paths = _trajectories(runs, wanted) if wanted else {}
    return tuple(_gain(runs, key, paths[key]) for key in wanted)


def _about_pictures(run: LoadedRun) -> list[str]:
    """Return the tasks of a run that are about pictures, by its config and by their metrics."""
    evaluation = run.config.get("evaluation") or {}
    declared = (evaluation.get("tasks") or {}).items()
    found = [name for name, task in declared if (task or {}).get("form") == "picture"]
    for source, spec in (run.config.get("source") or {}).items():
        rows = (spec.get("rows") if isinstance(spec, Mapping) else None) or {}
        if rows.get("kind") == "pictures":
            found.append(HELDOUT_PREFIX + source)
    scored = run.rows[-1]["metrics"] if run.rows else {}
    return [
        task
        for task, metrics in scored.items()
        if task in found or any(name in metrics for name in PICTURE_GAINS)
    ]


def _gain(
    runs: Sequence[LoadedRun],
    key: tuple[str, str],
    paths: tuple[tuple[Floats, Floats], ...],
) -> PictureGain:
    task, metric = key
    last = [(run.rows[-1]["metrics"].get(task) or {}) if run.rows else {} for run in runs]
    entries: list[Mapping[str, Any]] = [metrics.get(metric) or {} for metrics in last]
    return PictureGain(
        data=_task(key, {"higher_is_better": True}, paths, None),
        errors=_numbers(entry.get("stderr") for entry in entries),
        draws=_numbers(entry.get("groups") or entry.get("n") for entry in entries),
    )


def _numbers(values: Iterable[float | None]) -> Floats:
    return np.array([math.nan if value is None else float(value) for value in values])


def over_checkpoints(
    run: LoadedRun, value: Callable[[Mapping[str, Any]], float | None]
) -> tuple[Floats, Floats]:
    """Return (tokens, value) over the checkpoints of a run; a missing value is NaN."""
    values = [value(row) for row in run.rows]
    return run.tokens, np.array([math.nan if v is None else float(v) for v in values])
