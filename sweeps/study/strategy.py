"""Choice of the next trial: a pure function of the trials and their results.

    baselines ──▶ design ──▶ proposals, in batches ──▶ (exploring is over) ──▶ confirmation

No state is kept between calls, so a restarted driver continues as if it had never been killed: the
next baseline is the first one without a trial, the next designed point follows from the count of
designed trials, and proposals depend on the trials alone. No point is run twice: exploring a small
space ends once all its points have trials, and the remaining budget goes to seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ablations.errors import ConfigError, Problem
from ablations.evaluation.score_rule import LinearForm
from ablations.mixture.mixture import Mixture
from sweeps.search.designs import baselines as standing_baselines
from sweeps.search.designs import design, distinct, own_point
from sweeps.search.space import Floats, Point, SearchSpace
from sweeps.study.old_runs import OldRun
from sweeps.study.resources import Resources
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec, StrategySpec, loss_sign
from sweeps.study.trial import Phase, Trial, feasibility

__all__ = ["History", "Propose", "Strategy", "TrialRequest", "design_size", "plan_strategy"]

_DESIGN_SHARE = 2.0 / 3.0
"""Largest share of the budget after the baselines that a design may take; the rest is for proposals."""


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """Trial without a number yet."""

    phase: Phase
    point: Point
    name: str = ""
    pauses: bool = False
    """True if the trial's runs pause at the low rung."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Trials of a study in order of their numbers, with its objectives and constraints."""

    trials: tuple[Trial, ...]
    objectives: Mapping[str, ObjectiveSpec]
    constraints: Mapping[str, ConstraintSpec] = field(default_factory=dict)
    baseline: str = ""
    """Name of the baseline."""
    form: LinearForm | None = None
    """Score of the study after task quality; None = the score that the runs recorded."""
    rung: tuple[float, float] | None = None
    """Distance of the low rung from the top in size and tokens; None without a low rung in use."""
    old: tuple[OldRun, ...] = ()
    """Runs of earlier studies that are part of the fit."""

    @property
    def low(self) -> tuple[Trial, ...]:
        """Return the searched trials as they were at the low rung; none without a low rung in use."""
        if self.rung is None:
            return ()
        return tuple(low for t in self.searched if (low := t.low) is not None)

    @property
    def searched(self) -> tuple[Trial, ...]:
        """Return the trials that lie in the search space."""
        return tuple(trial for trial in self.trials if trial.spec.phase != "grid")

    @property
    def done(self) -> tuple[Trial, ...]:
        """Return the searched trials that have a value for every objective."""
        return tuple(
            trial
            for trial in self.searched
            if trial.state == "done" and self.values(trial) is not None
        )

    @property
    def baseline_trial(self) -> Trial | None:
        """Return the trial that others are compared with; None until it is done."""
        named = [
            t for t in self.trials if t.spec.name == self.baseline and t.spec.phase == "baseline"
        ]
        return named[0] if named and named[0].state == "done" else None

    def values(self, trial: Trial) -> list[float] | None:
        """Return the trial's objectives; None if one is missing."""
        values = [trial.value(objective) for objective in self.objectives.values()]
        return (
            None if any(value is None for value in values) else [v for v in values if v is not None]
        )

    def feasibility(self, trial: Trial) -> dict[str, float] | None:
        """Return the trial's distance beyond each constraint; see :func:`feasibility`."""
        return feasibility(trial, self.constraints, self.baseline_trial)

    def losses(self, trials: Sequence[Trial]) -> Floats:
        """Return the objectives ``[trials, objectives]``, signed so that less is better."""
        signs = [loss_sign(objective.direction) for objective in self.objectives.values()]
        rows = [self.values(trial) for trial in trials]
        values: Floats = np.array(rows, dtype=np.float64).reshape(len(rows), len(signs))
        turned: Floats = values * np.array(signs)
        return turned


Propose = Callable[[History, int], list[Point]]
"""Proposer: history and number of points → points."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Phases of a search, fixed before its first trial."""

    space: SearchSpace
    baselines: Mapping[str, Point]
    """Name → point, in the order in which they are run."""
    design: tuple[Point, ...]
    propose: Propose
    batch: int
    _keys: dict[int, tuple[Point | None, tuple[float, ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def most_trials(self) -> int | None:
        """Return the number of distinct trials that the space allows; None if it is infinite."""
        if self.space.size is None:
            return None
        outside = sum(not self.space.contains(point) for point in self.baselines.values())
        return self.space.size + outside

    def next_drafts(self, history: History, limit: int) -> list[TrialRequest]:
        """Return at most ``limit`` new trials, none at a point that already has one.

        The list is empty if ``limit`` is 0 or every point of the space has a trial: a second run of
        the same config would give the same result to the last digit.
        """
        drafts = self.planned(history)
        if drafts or limit <= 0:
            return drafts[: max(0, limit)]
        asked, most = self._asked(history), self.most_trials
        if most is not None and len(asked) >= most:
            return []
        points = self.propose(history, min(limit, self.batch))
        fresh = distinct(self.space, points, asked, (len(history.trials),))
        return [TrialRequest(phase="search", point=point) for point in fresh]

    def planned(self, history: History) -> list[TrialRequest]:
        """Return the baselines and designed points that have no trial yet."""
        asked = self._asked(history)
        named = {t.spec.name for t in history.trials if t.spec.phase == "baseline"}
        drafts = [
            TrialRequest(phase="baseline", point=point, name=name)
            for name, point in self.baselines.items()
            if name not in named
        ]
        designed = sum(trial.spec.phase == "design" for trial in history.trials)
        return drafts + [
            TrialRequest(phase="design", point=point)
            for point in self.design[designed:]
            if self.space.key(point) not in asked
        ]

    def _asked(self, history: History) -> set[tuple[float, ...]]:
        return {self._key(trial) for trial in history.searched}

    def _key(self, trial: Trial) -> tuple[float, ...]:
        """Return the key of a trial's point; cached, because it is needed after each run that ends."""
        point, key = self._keys.get(trial.number, (None, ()))
        if point is not trial.spec.point:
            key = self.space.key(trial.spec.point)
            self._keys[trial.number] = (trial.spec.point, key)
        return key


def plan_strategy(
    spec: StrategySpec,
    space: SearchSpace,
    resources: Resources,
    affordable: int | None,
    propose: Propose,
    own: Mapping[str, Any] | None = None,
) -> Strategy:
    """Fix baselines and design.

    Args:
        spec: Specification of the strategy.
        space: Search space.
        resources: Tokens and caps, for the baselines.
        affordable: Number of trials within the budget; None if the budget does not limit them.
        propose: The proposer.
        own: Config path of a searched parameter → value in the config, which the baselines keep.

    Raises:
        ConfigError: a named mixture uses sources that the space does not have.
    """
    first = _baselines(spec, space, resources, own)
    count = design_size(spec, space, len(first), affordable)
    taken = space.coordinates(list(first.values()), check=False) if first else None
    designed = design(space, spec.design, count, seed=spec.seed, taken=taken)
    return Strategy(
        space=space, baselines=first, design=tuple(designed), propose=propose, batch=spec.batch
    )


def design_size(
    spec: StrategySpec, space: SearchSpace, baselines: int, affordable: int | None
) -> int:
    """Return the number of designed trials: as specified, else max(20, 6 × sources) within the budget."""
    sources = sum(len(mixture.sources) for mixture in space.mixtures.values())
    left = None if affordable is None else max(0, affordable - baselines)
    if spec.design_trials is not None:
        return spec.design_trials if left is None else min(spec.design_trials, left)
    wanted = max(20, 6 * (sources + len(space.parameters)))
    return wanted if left is None else min(wanted, round(_DESIGN_SHARE * left))


def _baselines(
    spec: StrategySpec, space: SearchSpace, resources: Resources, own: Mapping[str, Any] | None
) -> dict[str, Point]:
    """Return name → point of each baseline, the verdict's baseline first."""
    standing = standing_baselines(space, resources.tokens, resources.caps, own)
    middle = own_point(space, own)
    if not space.mixtures and spec.baseline in spec.baselines:
        # All runs share the config's mixture, so the config's own values are the only baseline.
        standing = {spec.baseline: middle}
    named: dict[str, Point] = {n: standing[n] for n in spec.baselines if n in standing}
    for name, weights in spec.mixtures.items():
        mixture = dict(Mixture(weights, where=f"search.strategy.mixtures.{name}"))
        point: Point = {**middle, **{path: _over(mixture, space, path) for path in space.mixtures}}
        space.coordinates([point], check=False)
        named[name] = point
    if spec.baseline not in named and (spec.baselines or spec.mixtures):
        raise ConfigError(_no_baseline(spec.baseline, named))
    first = {spec.baseline: named[spec.baseline], **named} if named else {}
    return _each_once(space, first)


def _each_once(space: SearchSpace, named: Mapping[str, Point]) -> dict[str, Point]:
    """Return the points without duplicates of earlier ones."""
    kept: dict[tuple[float, ...], str] = {}
    for name, point in named.items():
        kept.setdefault(space.key(point), name)
    return {name: named[name] for name in kept.values()}


def _over(mixture: Mapping[str, float], space: SearchSpace, path: str) -> dict[str, float]:
    """Return the mixture with a weight for each source of the space; unknown sources stay and are refused."""
    return {**dict.fromkeys(space.mixtures[path].sources, 0.0), **mixture}


def _no_baseline(name: str, named: Mapping[str, Point]) -> Problem:
    return Problem(
        "search.strategy.baseline",
        f"{name!r} cannot be made for this space: token counts are missing, or it equals another",
        allowed=", ".join(named) or "none",
        do="prepare the sources, or name another baseline",
    )
