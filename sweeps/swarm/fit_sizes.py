"""Fit over several model sizes: predictions at the largest one, from all sizes together.

    sizes ──▶ leave one size out ──▶ leaderboard
      └─────▶ process over mixtures and rungs ──▶ prediction at the largest size, optimum, intervals

A rung is the size and the horizon of a run relative to the largest size at its most tokens. Four runs
at the largest size lifted the rank of the score there from .76 to .86 on a table that nothing was
chosen on, and gave intervals that hold (docs/surrogates.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, Problem
from ablations.files import write_sealed, write_text
from sweeps.search.proposals import Goal, optimise
from sweeps.search.proposals.optimum import candidates
from sweeps.search.proposals.optimum_tests import Skill, skill
from sweeps.search.proposals.rung_policy import FEWEST_PAIRS, Guard, judge_rung, spread_rows
from sweeps.search.space import Floats, SearchSpace
from sweeps.search.surrogates import ProcessFamily, Surrogate
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.search.surrogates.rung_process import RungFamily, rung_columns
from sweeps.study.specs import loss_sign
from sweeps.swarm.fit_swarm import FitOptions, named_weights, space_of, weight_ranges
from sweeps.swarm.fitted_tables import FIT_FILE
from sweeps.swarm.sized_swarm import SizedSwarm
from sweeps.swarm.swarm_score import score_columns

__all__ = ["SizeEntry", "SizesFit", "fit_sizes", "size_name", "write_sizes_fit"]

_ENOUGH = 8
"""Runs at the largest size from which on their own level and spread are determined: with 8 of them 90%
intervals held 90-95% on public tables."""

_KEPT = 4
"""Runs of the size that is left out that the second line of the leaderboard keeps."""

_LEVEL = 0.9


@dataclass(frozen=True, kw_only=True)
class SizeEntry:
    """Prediction of one size from the others."""

    size: float
    """Parameters of the size that was left out."""
    kept: int
    """Runs of that size that the fit saw."""
    runs: int
    """Runs of that size that were predicted."""
    rank_correlation: float
    """Spearman's correlation, mean over metrics."""
    score_rank_correlation: float
    """Spearman's correlation of the score."""
    regret: float
    """0: the run that is predicted best is the best; 1: it is no better than the mean."""
    coverage: float | None
    """Share of values inside their 90% intervals; None if the fit saw no run of the size."""


@dataclass(frozen=True, kw_only=True)
class SizesFit:
    """Result of a fit over sizes."""

    leaderboard: tuple[SizeEntry, ...]
    sizes: tuple[tuple[float, int], ...]
    """Parameters and number of runs at the most tokens of each size, the smallest first."""
    metrics: tuple[str, ...]
    optimum: dict[str, float] | None
    """Source → weight; None without enough evidence."""
    surface_optimum: dict[str, float]
    """Optimum of the fitted surface, even if it is not offered."""
    score: float
    """Predicted score at the optimum of the surface, at the largest size."""
    low: float
    """Lower bound of a new run's score there, at 90%."""
    high: float
    """Upper bound of a new run's score there, at 90%."""
    ranges: dict[str, tuple[float, float]]
    """Source → 5th and 95th percentile of its weight over the optima of resampled runs."""
    skill: Skill
    """Skill of the process on left-out runs of the size with the most runs."""
    guard: Guard | None
    """Rank of the score of the same mixtures at the size with the most runs and at the largest size;
    None with fewer than 6 such mixtures."""
    best_run: str
    """Run at the largest size with the best score."""
    best_run_score: float
    reasons: tuple[str, ...]
    """Reasons why no optimum is offered."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    sized: SizedSwarm
    values: Floats
    score: Floats
    """Weight of each metric in the loss, of which less is better."""

    def fit(self, size: float, rows: NDArray[np.intp]) -> Surrogate:
        """Fit the rows, with ``size`` at its most tokens as the top."""
        inputs = rung_columns(self.sized.swarm.weights[rows], self.sized.rungs(size)[rows])
        return Surrogate(RungFamily(columns=2)).fit(inputs, self.values[rows])


@dataclass(frozen=True)
class _AtTop:
    """Surrogate that predicts at the largest size at its most tokens."""

    model: Surrogate

    def predict(self, inputs: Floats) -> Floats:
        """Return means ``[n, t]``."""
        return self.model.predict(rung_columns(inputs, np.zeros((len(inputs), 2))))

    def predict_interval(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Return bounds ``[n, t]`` at 90%."""
        at = rung_columns(inputs, np.zeros((len(inputs), 2)))
        return self.model.predict_interval(at, _LEVEL)


def fit_sizes(
    sized: SizedSwarm,
    options: FitOptions,
    progress: Callable[[str], None] | None = None,
) -> SizesFit:
    """Fit all sizes together, and find the optimum at the largest one.

    Args:
        sized: Runs with their sizes and tokens.
        options: Score, bounds, seeds and resamples; families do not apply.
        progress: Called with one line for each size that was left out.

    Raises:
        ConfigError: one size only, or options that do not apply to a fit over sizes.
    """
    _refuse_options(options)
    data, notes = _data(sized, options)
    levels, largest = data.sized.levels, data.sized.levels[-1]
    if len(levels) < 2:
        raise ConfigError(
            Problem(
                "sizes",
                "one size only",
                found=f"{size_name(levels[0])} parameters",
                do="fit it without size columns, or add runs of another size",
            )
        )
    counts = {size: int(data.sized.ends(size).sum()) for size in levels}
    entries = _leaderboard(data, progress)
    space = space_of(data.sized.swarm, options)
    everyone = np.arange(len(data.values))
    top = _AtTop(data.fit(largest, everyone))
    best = _optimum(space, data, top, options, 0)
    known, guard, reasons = _evidence(data, options)
    optima = [] if reasons else list(_resampled(space, data, options, largest))
    low, high = top.predict_interval(best[None])
    ends = np.flatnonzero(data.sized.ends(largest))
    winner = int(ends[(data.values[ends] @ data.score).argmin()])
    weigh = np.abs(data.score)
    middle = float((top.predict(best[None]) @ weigh)[0])
    half = float((0.5 * (high - low) @ weigh)[0])
    return SizesFit(
        leaderboard=tuple(entries),
        sizes=tuple(counts.items()),
        metrics=data.sized.swarm.metrics,
        optimum=None if reasons else named_weights(sized.swarm, best),
        surface_optimum=named_weights(sized.swarm, best),
        score=middle,
        low=middle - half,
        high=middle + half,
        ranges=weight_ranges(sized.swarm, optima),
        skill=known,
        guard=guard,
        best_run=data.sized.swarm.runs[winner],
        best_run_score=float(data.values[winner] @ weigh),
        reasons=tuple(reasons),
        notes=(*notes, *_shrinkage(largest, counts)),
    )


def write_sizes_fit(folder: Path, fit: SizesFit) -> list[Path]:
    """Write the leaderboard and the fit, each file whole or not at all; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    board, record = folder / "leaderboard.csv", folder / FIT_FILE
    names = [field.name for field in fields(SizeEntry)]
    rows = [[getattr(entry, name) for name in names] for entry in fit.leaderboard]
    lines = [",".join(names), *(",".join("" if v is None else str(v) for v in r) for r in rows)]
    write_text(board, "\n".join(lines) + "\n")
    write_sealed(record, asdict(fit))
    return [board, record]


def _refuse_options(options: FitOptions) -> None:
    if options.baseline is not None or options.surrogate not in ("best", "gp"):
        raise ConfigError(
            Problem(
                "surrogate" if options.baseline is None else "baseline",
                "does not apply to a fit over sizes",
                found=options.surrogate if options.baseline is None else options.baseline,
                allowed="surrogate=best, baseline=null",
                do="fit one size alone to use it",
            )
        )


def _data(sized: SizedSwarm, options: FitOptions) -> tuple[_Data, list[str]]:
    """Return the rows that have every metric of the score, and notes."""
    columns, notes = score_columns(sized.swarm, options.target)
    whole = np.asarray(np.isfinite(sized.swarm.values[:, columns]).all(axis=1))
    notes = [*sized.swarm.notes, *notes]
    if not whole.all():
        notes.append(f"{int((~whole).sum())} rows lack a metric of the score: left out")
    if whole.sum() < 2 * FEWEST_PAIRS:
        raise ConfigError(
            Problem(
                "swarm",
                "too few rows have every metric of the score",
                found=int(whole.sum()),
                allowed=f"at least {2 * FEWEST_PAIRS}",
            )
        )
    kept = sized.of(whole)
    values = kept.swarm.values[:, columns]
    sign = loss_sign(options.direction)
    named = SizedSwarm(swarm=_only(kept, columns).swarm, sizes=kept.sizes, tokens=kept.tokens)
    return _Data(named, values, np.full(len(columns), sign / len(columns))), notes


def _only(sized: SizedSwarm, columns: Sequence[int]) -> SizedSwarm:
    from dataclasses import replace

    swarm = replace(
        sized.swarm,
        metrics=tuple(sized.swarm.metrics[column] for column in columns),
        values=sized.swarm.values[:, columns],
    )
    return replace(sized, swarm=swarm)


def _leaderboard(data: _Data, progress: Callable[[str], None] | None) -> list[SizeEntry]:
    """Predict each size from the others, once with and once without some of its own runs."""
    entries = []
    for size in data.sized.levels:
        for kept in (0, _KEPT):
            if (entry := _left_out(data, size, kept)) is not None:
                entries.append(entry)
                if progress is not None:
                    progress(_line(entry))
    return entries


def _left_out(data: _Data, size: float, kept: int) -> SizeEntry | None:
    """Predict the runs of one size at its most tokens from other sizes and ``kept`` of its own."""
    ends = np.flatnonzero(data.sized.ends(size))
    if len(ends) < kept + FEWEST_PAIRS:
        return None
    weights = data.sized.swarm.weights
    seen = ends[spread_rows(weights[ends], kept)] if kept else ends[:0]
    test = np.setdiff1d(ends, seen)
    rows = np.r_[np.flatnonzero(data.sized.sizes != size), seen]
    model = data.fit(size, rows)
    inputs = rung_columns(weights[test], np.zeros((len(test), 2)))
    predicted, truth = model.predict(inputs), data.values[test]
    low, high = model.predict_interval(inputs, _LEVEL)
    guess, real = predicted @ data.score, truth @ data.score
    spread = float(real.mean() - real.min())
    return SizeEntry(
        size=size,
        kept=kept,
        runs=len(test),
        rank_correlation=float(
            np.mean([rank_correlation(predicted[:, t], truth[:, t]) for t in range(truth.shape[1])])
        ),
        score_rank_correlation=rank_correlation(guess, real),
        regret=float(real[guess.argmin()] - real.min()) / spread if spread > 0.0 else 0.0,
        coverage=float(((low <= truth) & (truth <= high)).mean()) if kept else None,
    )


def size_name(size: float) -> str:
    """Return a number of parameters in millions or billions."""
    return f"{size / 1e9:.4g}B" if size >= 1e9 else f"{size / 1e6:.4g}M"


def _line(entry: SizeEntry) -> str:
    return (
        f"{size_name(entry.size)} from the other sizes and {entry.kept} of its own runs: rank "
        f"correlation of the score {entry.score_rank_correlation:.3f}"
    )


def _optimum(
    space: SearchSpace, data: _Data, top: _AtTop, options: FitOptions, number: int
) -> Floats:
    rng = np.random.default_rng((options.seed, number, 0x512E5))
    goal = Goal(space=space, surrogate=top, weights=data.score)
    return optimise(goal, space, candidates(space, data.sized.swarm.weights, 2000, rng), rng)[0]


def _resampled(
    space: SearchSpace, data: _Data, options: FitOptions, largest: float
) -> list[Floats]:
    """Return the optima of runs drawn with replacement in each rung."""
    groups = np.unique(data.sized.rungs(largest), axis=0, return_inverse=True)[1].reshape(-1)
    found = []
    for number in range(options.resamples):
        rng = np.random.default_rng((options.seed, number, 0xB007))
        rows = [rng.choice(own, len(own)) for own in _by_group(groups)]
        top = _AtTop(data.fit(largest, np.sort(np.concatenate(rows))))
        found.append(_optimum(space, data, top, options, number + 1))
    return found


def _by_group(groups: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(groups == number) for number in range(int(groups.max()) + 1)]


def _evidence(data: _Data, options: FitOptions) -> tuple[Skill, Guard | None, list[str]]:
    """Test the fit: the skill at the size with the most runs, and its ranks at the largest size."""
    sized, levels = data.sized, data.sized.levels
    most = max(levels[:-1], key=lambda size: int(sized.ends(size).sum()))
    low, top = (np.flatnonzero(sized.ends(size)) for size in (most, levels[-1]))
    losses = data.values @ data.score
    weights = sized.swarm.weights
    known = skill(
        ProcessFamily(), weights[low], losses[low], fold_count=options.folds, seed=options.seed
    )
    reasons = []
    if known.correlation < known.needed:
        reasons.append(
            f"no skill at {size_name(most)} parameters: rank correlation {known.correlation:.2f} on "
            f"left-out runs, needed {known.needed:.2f}"
        )
    keys = {tuple(np.round(weights[row], 6)): row for row in low}
    pairs = [(keys[key], row) for row in top if (key := tuple(np.round(weights[row], 6))) in keys]
    if len(pairs) < FEWEST_PAIRS:
        return known, None, reasons
    guard = judge_rung(*(losses[list(side)] for side in zip(*pairs, strict=True)))
    if not guard.holds:
        reasons.append(
            f"{size_name(most)} parameters do not rank mixtures like {size_name(levels[-1])}: "
            f"rank correlation {guard.correlation:.2f} over {guard.pairs} mixtures"
        )
    return known, guard, reasons


def _shrinkage(largest: float, counts: dict[float, int]) -> list[str]:
    """Return a note if the runs at the largest size do not determine its level and spread."""
    if counts[largest] >= _ENOUGH:
        return []
    return [
        f"only {counts[largest]} runs at {size_name(largest)} parameters: their spread and their differences "
        f"from the smaller sizes are shrunk towards those of the smaller sizes; {_ENOUGH} runs "
        "determine them"
    ]
