"""Fit of surrogates to a swarm: their comparison, the optimum of the best, and its uncertainty.

    swarm ──▶ leaderboard by cross-validation ──▶ best family ──▶ optimum inside bounds and caps
                                                        └─ resampled runs ─▶ optima ─▶ ranges of weights

A single optimum looks more certain than it is: refits on resampled runs move it. The weights that the
refits agree on are the answer. A source whose weight ranges from 0 to 40% over them is not determined by
the swarm. A fitted surface has an optimum even if it shows nothing, so none is offered if
``sweeps.search.proposals.optimum_tests`` finds too little evidence for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from ablations.errors import ConfigError, Problem, unknown_name
from ablations.files import file_sha256, write_sealed, write_text
from ablations.ranges import Interval, Seed
from sweeps.search.proposals import Goal, Skill, Trust, optimise
from sweeps.search.proposals.optimum import candidates
from sweeps.search.proposals.optimum_tests import (
    MIN_RUNS,
    NO_SKILL,
    Refit,
    difference,
    inside,
    judge,
    skill,
)
from sweeps.search.space import EpochCaps, Floats, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates import FAMILIES, Leaderboard, Surrogate, family, leaderboard
from sweeps.study.specs import Direction, loss_sign
from sweeps.swarm.fitted_tables import FIT_FILE
from sweeps.swarm.swarm_score import complete_runs, score_columns
from sweeps.swarm.swarm_tables import Swarm, write_pair

__all__ = [
    "CapSpec",
    "FitOptions",
    "SwarmFit",
    "fit_swarm",
    "named_weights",
    "space_of",
    "weight_ranges",
    "write_fit",
]

_MANY_METRICS = 20
"""Most metrics that are fitted one by one; of more the score is fitted as one column, because 110 fits add
little to the fit of their mean."""

_ALLOWED = 1e-6
"""Largest breach of a bound, in weight, that is put down to rounding."""


@dataclass(frozen=True, kw_only=True)
class CapSpec:
    """Full run that epoch caps are computed for."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    tokens: Mapping[str, float] = field(default_factory=dict)
    """Tokens available for each source; a source that is not named has no cap."""
    full_tokens: float | None = None
    """Tokens of the full run; None = no caps."""
    max_epochs: float = 4.0
    """Most times that a source may be read."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Score to fit, surrogates to compare, and bounds of the optimum."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    target: tuple[str, ...] = ("*",)
    """Patterns of metrics; the score is the plain mean of all that match. Bookkeeping (``step``,
    ``seed``, ``_timestamp``), empty columns and ones on another scale are left out, unless named."""
    direction: Direction = "minimize"
    """Direction in which the score is better."""
    families: tuple[str, ...] = tuple(name for name in FAMILIES if name not in ("stack", "choice"))
    """Surrogates to compare, by name."""
    surrogate: str = "best"
    """Surrogate to take the optimum of: a name, or ``best`` = the best of the leaderboard."""
    folds: int = 5
    """Folds of the cross-validation."""
    seed: Seed = 0
    """Seed of folds, draws and resampling."""
    low: Mapping[str, float] = field(default_factory=dict)
    """Lower bounds of weights of the optimum."""
    high: Mapping[str, float] = field(default_factory=dict)
    """Upper bounds of weights of the optimum."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Weights of the optimum that are fixed."""
    caps: CapSpec = field(default_factory=CapSpec)
    """Epoch caps at the full budget."""
    prior: Mapping[str, float] = field(default_factory=dict)
    """Mixture that the optimum is pulled to; uniform if empty."""
    pull: float = 0.0
    """Loss per nat of Kullback-Leibler divergence from the prior."""
    resamples: Annotated[int, Interval(ge=0, le=100_000)] = 20
    """Refits on resampled runs, for the uncertainty of the optimum; 0 = none, else at least 2."""
    baseline: str | None = None
    """Run whose mixture the optimum has to beat; None = the mean mixture of the runs."""

    def __post_init__(self) -> None:
        problems = []
        for name, value, least in (("folds", self.folds, 2), ("resamples", self.resamples, 0)):
            if value < least:
                problems.append(Problem(name, "not a count", found=value, allowed=f">= {least}"))
        if self.resamples == 1:
            problems.append(
                Problem("resamples", "one refit has no spread", found=1, allowed="0, or 2 and more")
            )
        for name, asked in (("families", self.families), ("target", self.target)):
            if not asked:
                problems.append(Problem(name, "names nothing", allowed="one or more"))
        if self.pull < 0.0:
            problems.append(Problem("pull", "a pull away from the prior", found=self.pull))
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class SwarmFit:
    """Result of a fit."""

    leaderboard: Leaderboard
    surrogate: str
    """Family of the surrogate whose optimum is given."""
    metrics: tuple[str, ...]
    """Metrics that the score is the mean of."""
    optimum: dict[str, float] | None
    """Source → weight (``<path>.<source>`` with several stages); None without enough evidence."""
    surface_optimum: dict[str, float]
    """Optimum of the fitted surface, even if it is not offered."""
    score: float
    """Predicted score at the optimum of the surface."""
    low: float
    """Lower bound of a new run's score there, at 90%."""
    high: float
    """Upper bound of a new run's score there, at 90%."""
    evidence: Trust
    """Tests of the optimum: the reasons if it is not offered, and the further runs needed. Differences
    are in losses: the score, negated if more is better."""
    ranges: dict[str, tuple[float, float]]
    """Source → 5th and 95th percentile of its weight over the optima of resampled runs."""
    alike: tuple[dict[str, float], ...]
    """Optima of resampled runs: mixtures that this swarm cannot distinguish from the optimum."""
    best_run: str
    """Name of the run with the best score."""
    best_run_score: float
    notes: tuple[str, ...]


def fit_swarm(
    swarm: Swarm,
    options: FitOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> SwarmFit:
    """Compare surrogates on a swarm and find the optimum of one.

    Args:
        swarm: Mixtures and the metrics of their runs.
        options: Score, surrogates and bounds; the defaults if None.
        progress: Called with one line for each family once it is fitted.

    Raises:
        ConfigError: patterns that match no metric, unknown families, bounds that no mixture meets, a
            baseline that is not a run.
    """
    chosen = options or FitOptions()
    columns, left_out = score_columns(swarm, chosen.target)
    space = space_of(swarm, chosen)
    sign = loss_sign(chosen.direction)
    complete = complete_runs(swarm, columns, 2 * chosen.folds)
    inputs, values = swarm.weights[complete], swarm.values[complete][:, columns]
    runs = [run for run, kept in zip(swarm.runs, complete, strict=True) if kept]
    baseline = _baseline(space, runs, inputs, chosen)
    if not complete.all():
        left_out.append(f"{int((~complete).sum())} runs lack a metric of the score: left out")
    weigh = np.full(len(columns), 1.0 / len(columns))
    board = leaderboard(
        [family(name) for name in chosen.families], inputs, values,
        weights=list(-sign * weigh), fold_count=chosen.folds, seed=chosen.seed, progress=progress,
    )  # fmt: skip
    name = chosen.surrogate if chosen.surrogate != "best" else board.best
    if len(columns) > _MANY_METRICS:
        values, weigh = values @ weigh[:, None], np.ones(1)
    finder = _Finder(space, chosen, name, sign * weigh)
    best, surrogate = finder.find(inputs, values, chosen.seed)
    scores = values @ weigh
    winner = int((sign * scores).argmin())
    known = _skill(name, board, inputs, sign * scores, chosen)
    # Without skill, the optima of resampled runs mean as little as the one of all runs.
    refits = finder.resampled(inputs, values) if known.correlation >= known.needed else []
    fitted, data = Refit(finder.loss(surrogate), best), (runs, inputs, sign * scores)
    trust = _trust(space, fitted, refits, known, data, baseline)
    low, high = surrogate.predict_interval(best[None])
    return SwarmFit(
        leaderboard=board,
        surrogate=name,
        metrics=tuple(swarm.metrics[column] for column in columns),
        optimum=named_weights(swarm, best) if trust.enough else None,
        surface_optimum=named_weights(swarm, best),
        score=float((surrogate.predict(best[None]) @ weigh)[0]),
        low=float((low @ weigh)[0]),
        high=float((high @ weigh)[0]),
        evidence=trust,
        ranges=weight_ranges(swarm, [refit.optimum for refit in refits]),
        alike=tuple(named_weights(swarm, refit.optimum) for refit in refits),
        best_run=runs[winner],
        best_run_score=float(scores[winner]),
        notes=(*swarm.notes, *left_out),
    )


def _skill(
    name: str, board: Leaderboard, inputs: Floats, losses: Floats, options: FitOptions
) -> Skill:
    """Return the skill of the chosen family; a choice among many families needs more of it."""
    if len(losses) < MIN_RUNS:
        return NO_SKILL
    compared = len(board.entries) if options.surrogate == "best" else 1
    return skill(
        family(name), inputs, losses,
        compared=compared, fold_count=options.folds, seed=options.seed,
    )  # fmt: skip


def _baseline(
    space: SearchSpace, runs: Sequence[str], inputs: Floats, options: FitOptions
) -> tuple[str, Floats]:
    """Return a name and the mixture that the optimum has to beat."""
    if options.baseline is not None:
        if options.baseline not in runs:
            raise ConfigError(unknown_name("baseline", "run", options.baseline, runs))
        return f"the baseline ({options.baseline})", inputs[runs.index(options.baseline)]
    mean = inputs.mean(axis=0)
    if space.polytope.violation(mean[None])[0] <= _ALLOWED:
        return "the mean mixture of the runs", mean
    return "the middle of what the bounds allow", space.centre


def _trust(
    space: SearchSpace,
    fitted: Refit,
    refits: Sequence[Refit],
    known: Skill,
    data: tuple[Sequence[str], Floats, Floats],
    baseline: tuple[str, Floats],
) -> Trust:
    """Judge the optimum; ``data`` are the runs' names, mixtures and losses.

    The optimum is compared with the best run inside the bounds, not with mixtures that they forbid.
    """
    runs, inputs, losses = data
    if len(refits) < 2:
        return judge(len(runs), known)
    best_run, allowed = None, np.asarray(space.polytope.violation(inputs) <= _ALLOWED)
    if allowed.any():
        best = int(np.where(allowed, losses, np.inf).argmin())
        best_run = difference(f"the best run ({runs[best]})", fitted, refits, inputs[best])
    beaten = difference(baseline[0], fitted, refits, baseline[1])
    within = inside(fitted.optimum, [refit.optimum for refit in refits])
    return judge(len(runs), known, best_run, beaten, within)


def write_fit(folder: Path, swarm: Swarm, fit: SwarmFit) -> list[Path]:
    """Write the swarm's two tables, the leaderboard and the fit; each file whole or not at all."""
    written = list(write_pair(folder, swarm))
    board = folder / "leaderboard.csv"
    rows = fit.leaderboard.rows()
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    write_text(board, "\n".join(lines) + "\n")
    # Written last: if fit.json exists, so do the tables that it lists.
    record = folder / FIT_FILE
    tables = {path.name: file_sha256(path) for path in written}
    write_sealed(record, {**asdict(fit), "evidence": fit.evidence.plain(), "tables": tables})
    return [*written, board, record]


@dataclass(frozen=True)
class _Finder:
    """Optima of one family on runs of one swarm."""

    space: SearchSpace
    options: FitOptions
    family: str
    weights: Floats

    def find(self, inputs: Floats, values: Floats, seed: int) -> tuple[Floats, Surrogate]:
        surrogate = Surrogate(family(self.family), seed=self.options.seed).fit(inputs, values)
        rng = np.random.default_rng((self.options.seed, seed))
        goal = Goal(
            space=self.space,
            surrogate=surrogate,
            weights=self.weights,
            prior=self._prior(),
            pull=self.options.pull,
        )
        drawn = candidates(self.space, inputs, 2000, rng)
        return optimise(goal, self.space, drawn, rng)[0], surrogate

    def loss(self, surrogate: Surrogate) -> Callable[[Floats], Floats]:
        """Return a function from coordinates to predicted losses."""

        def losses(coordinates: Floats) -> Floats:
            predicted: Floats = surrogate.predict(self.space.inputs(coordinates)) @ self.weights
            return predicted

        return losses

    def resampled(self, inputs: Floats, values: Floats) -> list[Refit]:
        """Return refits on runs drawn with replacement, with their optima."""
        found = []
        for number in range(self.options.resamples):
            rng = np.random.default_rng((self.options.seed, number, 0xB007))
            rows = np.sort(rng.integers(0, len(inputs), len(inputs)))
            best, surrogate = self.find(inputs[rows], values[rows], number + 1)
            found.append(Refit(self.loss(surrogate), best))
        return found

    def _prior(self) -> Mapping[str, Any]:
        given = self.options.prior
        prior = {}
        for path, mixture in self.space.mixtures.items():
            weights = {name: given.get(name, 0.0) for name in mixture.sources}
            even = dict.fromkeys(mixture.sources, 1.0 / len(mixture.sources))
            prior[path] = weights if given else even
        return prior


def space_of(swarm: Swarm, options: FitOptions) -> SearchSpace:
    """Return the search space of the swarm's mixtures under the bounds and caps of the options."""
    mixtures = {}
    for path, columns in swarm.mixtures.items():
        sources = tuple(swarm.sources[column] for column in columns)
        mixtures[path or "mixture"] = SimplexSpec(
            sources=sources,
            low=_of(options.low, sources, swarm.sources),
            high=_of(options.high, sources, swarm.sources),
            fixed=_of(options.fixed, sources, swarm.sources),
        )
    caps = None
    if options.caps.full_tokens is not None:
        caps = EpochCaps(
            tokens=options.caps.tokens,
            full_tokens=options.caps.full_tokens,
            max_epochs=options.caps.max_epochs,
        )
    return SearchSpace.build(SearchSpaceSpec(mixtures=mixtures), caps)


def _of(
    bounds: Mapping[str, float], sources: tuple[str, ...], known: tuple[str, ...]
) -> dict[str, float]:
    """Return the bounds of these sources; names that no mixture has are kept, to be refused by name."""
    return {name: bound for name, bound in bounds.items() if name in sources or name not in known}


def named_weights(swarm: Swarm, row: Floats) -> dict[str, float]:
    """Return source → weight of one mixture."""
    return {name: float(weight) for name, weight in zip(swarm.sources, row, strict=True)}


def weight_ranges(swarm: Swarm, optima: list[Floats]) -> dict[str, tuple[float, float]]:
    """Return source → 5th and 95th percentile of its weight; empty without optima."""
    if not optima:
        return {}
    low, high = np.percentile(np.array(optima), [5, 95], axis=0)
    return {n: (float(a), float(b)) for n, a, b in zip(swarm.sources, low, high, strict=True)}
