"""Weak-spot report after a stage: which metrics gained, stalled or fell, and which sources would help.

"Adapt the mixture to measured weak spots" is SmolLM2's first principle (arXiv 2502.02737, section 4).
A metric counts as moved if it changed by more than twice its standard error over items. The same items
are compared in pairs if their scores were kept.
The sources that would help come from a surrogate of the stage's own trials. It predicts the change when a
tenth of the stage's tokens is moved to one source, in proportion from all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ablations.evaluation.results import read_details
from ablations.record.run_record import RunRecord

__all__ = [
    "Movement",
    "WeakSpot",
    "WeakSpots",
    "movements",
    "movers",
    "paired_error",
    "report",
    "weak_spots",
]

Movement = Literal["gained", "stalled", "fell", "new"]

SHIFT = 0.1
"""Share of the stage's tokens that is moved to one source for the surrogate's prediction."""

SMALLEST_GAIN = 1e-3
"""Smallest predicted gain that the report shows, in units of the metric."""

FEWEST_TRIALS = 5
"""Smallest number of trials for a surrogate; with fewer it would show only noise."""


@dataclass(frozen=True, kw_only=True)
class WeakSpot:
    """Result of one metric after a stage."""

    metric: str
    """``task/metric``."""
    before: float | None
    """Value after the stage before; None if there was none."""
    after: float
    higher_is_better: bool
    movement: Movement
    target: float | None
    """Target value; None if none was given."""
    reached: bool | None
    """True if the target is reached; None without a target."""
    movers: tuple[tuple[str, float], ...]
    """Source and predicted improvement if it gets a tenth of the tokens more, best first."""


@dataclass(frozen=True, kw_only=True)
class WeakSpots:
    """Results of all metrics after a stage."""

    stage: str
    spots: tuple[WeakSpot, ...]
    trials: int
    """Trials on which the surrogate was fitted; 0 if it was not fitted."""

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def weak_spots(
    stage: str,
    before: RunRecord | None,
    after: RunRecord,
    trials: Sequence[tuple[Mapping[str, float], Mapping[str, float | None]]],
    targets: Mapping[str, float],
) -> WeakSpots:
    """Compare two finished runs, of which the second started from the end of the first.

    Args:
        stage: Name of the stage that ended.
        before: Run of the stage before.
        after: Run of this stage.
        trials: Weights of the stage and metrics, for each trial of its study.
        targets: ``task/metric`` → target value.
    """
    now, then = _metrics(after), {} if before is None else _metrics(before)
    errors = {} if before is None else {name: paired_error(before, after, name) for name in now}
    moved = movements(then, now, errors)
    shown = movers(trials, {name: bool(row["higher_is_better"]) for name, row in now.items()})
    spots = [
        WeakSpot(
            metric=name,
            before=then[name]["value"] if name in then else None,
            after=row["value"],
            higher_is_better=row["higher_is_better"],
            movement=moved[name],
            target=targets.get(name),
            reached=_reached(row, targets.get(name)),
            movers=shown.get(name, ()),
        )
        for name, row in now.items()
    ]
    return WeakSpots(stage=stage, spots=tuple(spots), trials=len(trials) if shown else 0)


def _metrics(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Return ``task/metric`` → row of the last scored checkpoint, without missing values."""
    rows = record.scores()
    if not rows:
        return {}
    return {
        f"{task}/{name}": metric
        for task, named in rows[-1]["metrics"].items()
        for name, metric in named.items()
        if metric["value"] is not None
    }


def _reached(row: Mapping[str, Any], target: float | None) -> bool | None:
    if target is None:
        return None
    return bool(row["value"] >= target if row["higher_is_better"] else row["value"] <= target)


def paired_error(before: RunRecord, after: RunRecord, name: str) -> float | None:
    """Return the standard error of the change of ``task/metric`` over the items that both runs scored."""
    task, metric = name.split("/", 1)
    columns = []
    for record in (before, after):
        path = record.details(record.scores()[-1]["step"]).get(task)
        found = None if path is None else _items(path, metric)
        if found is None:
            return None
        columns.append(found)
    shared = [item for item in columns[0] if item in columns[1]]
    changes = np.array([columns[1][item] - columns[0][item] for item in shared])
    changes = changes[np.isfinite(changes)]
    return float(changes.std(ddof=1) / math.sqrt(len(changes))) if len(changes) > 1 else None


def _items(path: Path, metric: str) -> dict[str, float] | None:
    """Return item → value of a metric; None if the values were not kept."""
    table = read_details(path, [metric])
    if metric not in table.column_names:
        return None
    values = [math.nan if value is None else value for value in table[metric].to_pylist()]
    return dict(zip(table["item_id"].to_pylist(), values, strict=True))


def movements(
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, float | None] | None = None,
) -> dict[str, Movement]:
    """Return metric → movement; ``errors`` are the standard errors of the changes, if known."""
    found: dict[str, Movement] = {}
    for name, row in after.items():
        if name not in before:
            found[name] = "new"
            continue
        change = row["value"] - before[name]["value"]
        change = change if row["higher_is_better"] else -change
        noise = (errors or {}).get(name)
        if noise is None:
            # Treat the two scores as independent, which favours "stalled".
            noise = math.hypot(row.get("stderr") or 0.0, before[name].get("stderr") or 0.0)
        found[name] = (
            "stalled" if abs(change) <= 2.0 * noise else "gained" if change > 0 else "fell"
        )
    return found


def movers(
    trials: Sequence[tuple[Mapping[str, float], Mapping[str, float | None]]],
    higher_is_better: Mapping[str, bool],
) -> dict[str, tuple[tuple[str, float], ...]]:
    """Return metric → sources by their predicted improvement, best first; empty with too few trials."""
    from sweeps.search.surrogates import Surrogate, family

    if len(trials) < FEWEST_TRIALS:
        return {}
    sources = list(dict.fromkeys(source for weights, _ in trials for source in weights))
    inputs = np.array([[weights.get(source, 0.0) for source in sources] for weights, _ in trials])
    names = [
        name
        for name in higher_is_better
        if sum(metrics.get(name) is not None for _, metrics in trials) >= FEWEST_TRIALS
    ]
    if not names:
        return {}
    values = np.array(
        [
            [math.nan if metrics.get(name) is None else metrics[name] for name in names]
            for _, metrics in trials
        ],
        dtype=np.float64,
    )
    surrogate = Surrogate(family("linear")).fit(inputs, values)
    centre = inputs.mean(axis=0)
    shifted = np.stack([_shift(centre, index) for index in range(len(sources))])
    change = surrogate.predict(shifted) - surrogate.predict(centre[None, :])
    found = {}
    for column, name in enumerate(names):
        sign = 1.0 if higher_is_better[name] else -1.0
        order = np.argsort(-sign * change[:, column])
        found[name] = tuple((sources[i], float(sign * change[i, column])) for i in order)
    return found


def _shift(weights: Any, index: int) -> Any:
    """Return ``weights`` with a tenth of the whole moved to source ``index``."""
    moved = (1.0 - SHIFT) * weights
    moved[index] += SHIFT
    return moved


def report(found: WeakSpots) -> str:
    """Return the report for people, as Markdown: falling metrics first, gaining ones last."""
    order = {"fell": 0, "stalled": 1, "new": 2, "gained": 3}
    rows = sorted(found.spots, key=lambda spot: (order[spot.movement], spot.metric))
    lines = [
        f"# After stage {found.stage}",
        "",
        "| metric | before | after | movement | target | would help most |",
        "|---|--:|--:|---|---|---|",
    ]
    for spot in rows:
        best = [
            f"{source} ({gain:+.4f})" for source, gain in spot.movers[:2] if gain >= SMALLEST_GAIN
        ]
        target = "" if spot.target is None else f"{spot.target:g}"
        if spot.reached is not None:
            target += " reached" if spot.reached else " **not reached**"
        before = "–" if spot.before is None else f"{spot.before:.4f}"
        lines.append(
            f"| {spot.metric} | {before} | {spot.after:.4f} | {spot.movement} | {target} | "
            f"{', '.join(best) or '–'} |"
        )
    learned = (
        f"A linear surrogate of {found.trials} trials: predicted improvement if a tenth of the stage's "
        "tokens is moved to the source."
        if found.trials
        else f"Fewer than {FEWEST_TRIALS} trials: no surrogate was fitted."
    )
    return "\n".join([*lines, "", learned]) + "\n"
