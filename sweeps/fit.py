"""``ablate fit``: surrogates of a swarm, compared; the optimum of the best, and how sure it is.

    swarm ──▶ leaderboard by cross-validation ──▶ best family ──▶ optimum inside bounds and caps
                                                        └─ resampled runs ─▶ optima ─▶ what is sure

A single optimum looks more certain than it is: refits on resampled runs move it. What they agree on
is the answer; a source whose weight ranges from 0 to 40% over them was not decided by this swarm.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ablations.errors import ConfigError, Problem
from ablations.files import write_json, write_text
from sweeps.proposals import Goal, optimise
from sweeps.proposals.optimum import candidates
from sweeps.space import EpochCaps, Floats, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.surrogates import FAMILIES, Leaderboard, Surrogate, family, leaderboard
from sweeps.swarms import Swarm, write_pair

__all__ = ["CapSpec", "FitOptions", "SwarmFit", "fit_swarm", "write_fit"]

_MANY_METRICS = 20
"""From here on the score is fitted as one column: 110 fits say little more than their mean."""


@dataclass(frozen=True, kw_only=True)
class CapSpec:
    """The full run that epoch caps are counted at."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    tokens: Mapping[str, float] = field(default_factory=dict)
    """Tokens available per source; a source that is not named has no cap."""
    full_tokens: float | None = None
    """Tokens of the full run; None = no caps."""
    max_epochs: float = 4.0
    """Times that a source may be read."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What to fit, and where the optimum may lie."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    target: tuple[str, ...] = ("*",)
    """Patterns of metrics; the score is the plain mean of all that match."""
    direction: Literal["maximize", "minimize"] = "minimize"
    """Which way the score is better."""
    families: tuple[str, ...] = tuple(name for name in FAMILIES if name not in ("stack", "choice"))
    """Surrogates to compare, by name."""
    surrogate: str = "best"
    """The one to take the optimum of: a name, or the best of the leaderboard."""
    folds: int = 5
    """Folds of the cross-validation."""
    seed: int = 0
    """Seed of folds, draws and resampling."""
    low: Mapping[str, float] = field(default_factory=dict)
    """Lower bounds of weights of the optimum."""
    high: Mapping[str, float] = field(default_factory=dict)
    """Upper bounds of weights of the optimum."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Weights of the optimum that are given."""
    caps: CapSpec = field(default_factory=CapSpec)
    """Epoch caps at the full budget."""
    prior: Mapping[str, float] = field(default_factory=dict)
    """Mixture that the optimum is pulled to; uniform when empty."""
    pull: float = 0.0
    """Loss per nat of Kullback-Leibler divergence from the prior."""
    resamples: int = 20
    """Refits on resampled runs that tell how sure the optimum is; 0 = none."""

    def __post_init__(self) -> None:
        problems = []
        for name, value, least in (("folds", self.folds, 2), ("resamples", self.resamples, 0)):
            if value < least:
                problems.append(Problem(name, "not a count", found=value, allowed=f">= {least}"))
        if self.pull < 0.0:
            problems.append(Problem("pull", "a pull away from the prior", found=self.pull))
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class SwarmFit:
    """What a swarm says."""

    leaderboard: Leaderboard
    surrogate: str
    """The family that the optimum is of."""
    metrics: tuple[str, ...]
    """What the score is the mean of."""
    optimum: dict[str, float]
    """Source → weight (``<path>.<source>`` with several stages)."""
    score: float
    """Predicted score at the optimum."""
    low: float
    """Lower bound of a new run's score there, at 90%."""
    high: float
    """Upper bound of a new run's score there, at 90%."""
    ranges: dict[str, tuple[float, float]]
    """Source → 5th and 95th percentile of its weight over the optima of resampled runs."""
    alike: tuple[dict[str, float], ...]
    """Optima of resampled runs: mixtures that this swarm does not tell from the optimum."""
    best_run: str
    """The run with the best score."""
    best_run_score: float
    notes: tuple[str, ...]


def fit_swarm(swarm: Swarm, options: FitOptions | None = None) -> SwarmFit:
    """Compare surrogates on a swarm and find the optimum of one.

    Raises:
        ConfigError: patterns that match no metric, unknown families, bounds that nothing keeps.
    """
    chosen = options or FitOptions()
    columns = _columns(swarm, chosen)
    space = _space(swarm, chosen)
    sign = 1.0 if chosen.direction == "minimize" else -1.0
    complete = np.isfinite(swarm.values[:, columns]).all(axis=1)
    inputs, values = swarm.weights[complete], swarm.values[complete][:, columns]
    if len(inputs) < 2 * chosen.folds:
        raise ConfigError(
            Problem(
                "swarm",
                "too few runs have every metric",
                found=len(inputs),
                allowed=f"at least {2 * chosen.folds}",
            )
        )
    notes = list(swarm.notes)
    if not complete.all():
        notes.append(f"{int((~complete).sum())} runs lack a metric of the score: left out")
    weigh = np.full(len(columns), 1.0 / len(columns))
    board = leaderboard(
        [family(name) for name in chosen.families], inputs, values,
        weights=list(-sign * weigh), fold_count=chosen.folds, seed=chosen.seed,
    )  # fmt: skip
    name = board.best if chosen.surrogate == "best" else chosen.surrogate
    if len(columns) > _MANY_METRICS:
        values, weigh = values @ weigh[:, None], np.ones(1)
    finder = _Finder(space, chosen, name, sign * weigh)
    best, surrogate = finder.find(inputs, values, chosen.seed)
    cloud = finder.resampled(inputs, values)
    scores = values @ weigh
    winner = int((sign * scores).argmin())
    low, high = surrogate.predict_interval(best[None])
    return SwarmFit(
        leaderboard=board,
        surrogate=name,
        metrics=tuple(swarm.metrics[column] for column in columns),
        optimum=_named(swarm, best),
        score=float((surrogate.predict(best[None]) @ weigh)[0]),
        low=float((low @ weigh)[0]),
        high=float((high @ weigh)[0]),
        ranges=_ranges(swarm, cloud),
        alike=tuple(_named(swarm, row) for row in cloud),
        best_run=np.array(swarm.runs)[complete][winner],
        best_run_score=float(scores[winner]),
        notes=tuple(notes),
    )


def write_fit(folder: Path, swarm: Swarm, fit: SwarmFit) -> list[Path]:
    """Write the swarm's two tables, the leaderboard and the fit; each file whole or not at all."""
    written = list(write_pair(folder, swarm))
    board = folder / "leaderboard.csv"
    rows = fit.leaderboard.rows()
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    write_text(board, "\n".join(lines) + "\n")
    # Written last: where fit.json is, the tables it speaks of are.
    record = folder / "fit.json"
    write_json(record, asdict(fit))
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

    def resampled(self, inputs: Floats, values: Floats) -> list[Floats]:
        """Optima of as many refits on runs drawn with replacement."""
        found = []
        for number in range(self.options.resamples):
            rng = np.random.default_rng((self.options.seed, number, 0xB007))
            rows = np.sort(rng.integers(0, len(inputs), len(inputs)))
            found.append(self.find(inputs[rows], values[rows], number + 1)[0])
        return found

    def _prior(self) -> Mapping[str, Any]:
        given = self.options.prior
        prior = {}
        for path, mixture in self.space.mixtures.items():
            weights = {name: given.get(name, 0.0) for name in mixture.sources}
            even = dict.fromkeys(mixture.sources, 1.0 / len(mixture.sources))
            prior[path] = weights if given else even
        return prior


def _columns(swarm: Swarm, options: FitOptions) -> list[int]:
    columns = [
        column
        for column, name in enumerate(swarm.metrics)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.target)
    ]
    if not columns:
        raise ConfigError(
            Problem(
                "target",
                "matches no metric",
                found=", ".join(options.target),
                allowed=", ".join(swarm.metrics[:12]),
            )
        )
    return columns


def _space(swarm: Swarm, options: FitOptions) -> SearchSpace:
    """The simplexes of the swarm's mixtures under the bounds and caps asked for."""
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
    """The bounds of these sources; names that no mixture has are kept, to be refused by name."""
    return {name: bound for name, bound in bounds.items() if name in sources or name not in known}


def _named(swarm: Swarm, row: Floats) -> dict[str, float]:
    return {name: float(weight) for name, weight in zip(swarm.sources, row, strict=True)}


def _ranges(swarm: Swarm, cloud: list[Floats]) -> dict[str, tuple[float, float]]:
    if not cloud:
        return {}
    low, high = np.percentile(np.array(cloud), [5, 95], axis=0)
    return {n: (float(a), float(b)) for n, a, b in zip(swarm.sources, low, high, strict=True)}
