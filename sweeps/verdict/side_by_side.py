"""Two runs or two studies side by side: config, mixture and scores, with the noise of each difference.

A run's metric has the standard error over its items. Its score has the training noise of one run, where the
verdict of its study knows it. A study stands for the pick of its verdict, whose noise shrinks with its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.errors import DataError, UserError, unknown_name
from ablations.evaluation.specs import HIGHER_IS_BETTER
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.definition import differences, load_definition
from sweeps.study.objective import objective_of
from sweeps.study.specs import Direction
from sweeps.verdict.decide import decide
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import Verdict, read_verdict

__all__ = [
    "Change",
    "Measured",
    "Side",
    "changed_metrics",
    "changed_settings",
    "read_side",
    "sources_of",
]

_Z = 1.96
"""Quantile of the normal distribution for 95% on both sides."""

_ITEM_NOISE = "the noise of a task is that of its items alone; training noise comes on top"

_PLACES = ("study", "trial", "seed", "runs_dir", "data_dir", "labels", "execution")
"""Keys of a config that do not make two runs different."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A value and its noise."""

    value: float
    error: float | None
    """Standard error; None = unknown."""
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two things that are compared."""

    name: str
    kind: Literal["run", "study"]
    what: str
    """Subject of its numbers: the run itself, or the pick of a study and its seeds."""
    config: Mapping[str, Any]
    weights: Mapping[str, float]
    """Source → weight."""
    metrics: Mapping[str, Measured]
    """``score`` first, then ``task/metric``."""
    notes: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric on both sides."""

    metric: str
    first: float
    second: float
    difference: float
    """Second minus first, in the metric's own unit."""
    noise: float | None
    """Half of the 95% interval of the difference; None = unknown."""
    reading: Literal["better", "worse", "within noise", "noise unknown"]


def read_side(runs_dir: Path, name: str) -> Side:
    """Return a run or a study by its name or its folder.

    Args:
        runs_dir: Folder of all studies.
        name: ``study``, ``study/trial-seed``, or the path of such a folder.

    Raises:
        DataError: there is no such run and no such study.
        UserError: a study of which no verdict can be made.
    """
    for path in (Path(runs_dir) / name, Path(name)):
        if (path / "manifest.json").exists():
            return _of_run(RunRecord(path))
        if path.is_dir() and list_runs(path.parent, path.name):
            return _of_study(path.parent, path.name)
    records = list_runs(Path(runs_dir))
    known = {record.name for record in records} | {record.path.parent.name for record in records}
    raise DataError(unknown_name("diff", "run or study", name, known))


def _of_run(record: RunRecord) -> Side:
    manifest, result = record.manifest, record.result() or {}
    folder = record.path.parent
    rows = record.scores()
    last: Mapping[str, Any] = rows[-1]["metrics"] if rows else {}
    run_sd = _run_sd(folder)
    objective = objective_of(folder)
    direction = objective.direction or result.get("direction")
    metrics: dict[str, Measured] = {}
    score = objective.value(result)
    if score is not None:
        metrics["score"] = _score(score, run_sd, direction)
    for task, values in last.items():
        for metric, row in values.items():
            if row.get("value") is not None:
                metrics[f"{task}/{metric}"] = Measured(
                    value=row["value"],
                    error=row.get("stderr"),
                    higher_is_better=bool(row.get("higher_is_better", True)),
                )
    notes = [_ITEM_NOISE]
    if not run_sd:
        notes.append(
            f"the noise of the score of {record.name} is unknown: its study has no verdict"
        )
    if manifest.status != "done":
        notes.append(f"{record.name} is {manifest.status}")
    return Side(
        name=record.name,
        kind="run",
        what=f"trial {manifest.trial}, seed {manifest.seed}",
        config=manifest.config,
        weights=dict((manifest.config.get("mixture") or {}).get("weights") or {}),
        metrics=metrics,
        notes=tuple(notes),
    )


def _of_study(runs_dir: Path, study: str) -> Side:
    verdict = _verdict(runs_dir, study)
    definition = load_definition(runs_dir / study)
    row = next(row for row in verdict.candidates if row.name == verdict.pick)
    seeds = max(1, len(row.seeds))
    noise = verdict.noise.run_sd
    error = None if noise is None else noise / math.sqrt(seeds)
    metrics = {"score": _score(row.mean, error, verdict.direction)}
    signal = {quality.task: quality.noise_sd for quality in verdict.signal}
    for task in verdict.tasks:
        if task.pick is None:
            continue
        name = f"{task.task}/{task.metric}"
        sd = signal.get(name)
        metrics[name] = Measured(
            value=task.pick,
            error=None if sd is None else sd / math.sqrt(seeds),
            higher_is_better=HIGHER_IS_BETTER.get(task.metric, True),
        )
    return Side(
        name=study,
        kind="study",
        what=f"{verdict.outcome}: {verdict.pick}, {seeds} seed{'s' if seeds > 1 else ''}",
        config=definition.config if definition is not None else {},
        weights=dict(row.weights),
        metrics=metrics,
        notes=() if error is not None else (f"the noise of {study} is unknown",),
    )


def _score(value: float, error: float | None, direction: Direction | None) -> Measured:
    return Measured(value=value, error=error, higher_is_better=direction != "minimize")


def _verdict(runs_dir: Path, study: str) -> Verdict:
    """Return the stored verdict, else one that is decided now and not stored."""
    try:
        return read_verdict(runs_dir / study)
    except UserError:
        return decide(gather(runs_dir, study))


def _run_sd(folder: Path) -> float | None:
    """Return the training noise of one run, as the stored verdict of its study knows it."""
    try:
        return read_verdict(folder).noise.run_sd
    except UserError:
        return None


def changed_settings(first: Side, second: Side) -> list[tuple[str, Any, Any]]:
    """Return the keys of the configs that differ, with both values; the mixture's weights are left out."""
    old, new = (
        {key: value for key, value in side.config.items() if key not in _PLACES}
        for side in (first, second)
    )
    found = [(key.lstrip("."), a, b) for key, a, b in differences(old, new, "")]
    return [change for change in found if not change[0].startswith("mixture.weights")]


def changed_metrics(first: Side, second: Side) -> list[Change]:
    """Return the metrics that both sides have, in the order of the first."""
    return [
        _change(name, first.metrics[name], second.metrics[name])
        for name in first.metrics
        if name in second.metrics
    ]


def _change(name: str, first: Measured, second: Measured) -> Change:
    difference = second.value - first.value
    noise = None
    if first.error is not None and second.error is not None:
        noise = _Z * math.hypot(first.error, second.error)
    return Change(
        metric=name,
        first=first.value,
        second=second.value,
        difference=difference,
        noise=noise,
        reading=_reading(difference, noise, first.higher_is_better),
    )


def _reading(
    difference: float, noise: float | None, higher_is_better: bool
) -> Literal["better", "worse", "within noise", "noise unknown"]:
    if noise is None:
        return "noise unknown"
    if abs(difference) <= noise:
        return "within noise"
    return "better" if (difference > 0.0) == higher_is_better else "worse"


def sources_of(sides: Sequence[Side]) -> list[str]:
    """Return the sources of several mixtures, each once, in their order."""
    return list(dict.fromkeys(name for side in sides for name in side.weights))
