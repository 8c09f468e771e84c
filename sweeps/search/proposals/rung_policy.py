"""Policy of a search with rungs: how a budget is shared between cheap runs and full ones.

    baselines in full ─▶ design at the low rung ─▶ guard: some spread points go on to the top
        ─▶ proposals at the low rung ─▶ finalists by the predicted top go on ─▶ seeds, verdict

Prices are in units of one full run. The guard compares low and top scores of the same mixtures. If it
fails, the low rung leaves the fit and the rest of the budget pays full runs. Policies that chose the
rung by improvement or information per FLOP never left a rung that was wrong and very cheap, and
successive halving never clearly won (docs/decisions/study.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats
from sweeps.search.surrogates import ProcessFamily
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.search.surrogates.rung_process import RungFamily

__all__ = [
    "FEWEST_PAIRS",
    "GUARD_PAIRS",
    "LEAST_RANK",
    "SURE_RANK",
    "Guard",
    "RungPlan",
    "judge_rung",
    "plan_rungs",
    "rung_family",
    "spread_rows",
]

GUARD_PAIRS = 8
"""Pairs of the guard: 8 refuse 94% of rungs without correlation, and 7% of those of .9."""

FEWEST_PAIRS = 6
"""Fewest pairs that the guard is computed from: 4 refuse a rung without correlation in 79% of cases."""

LEAST_RANK = 0.6
"""Rank correlation of a low rung with the top below which the rung does more harm than good."""

_MARGIN = 0.6
"""Standard errors by which the pairs must rank better than :data:`LEAST_RANK`: .75 with 8 pairs. Of 72
synthetic rungs with a strong bias, 10 ranked below .6; a bound of .6 dropped 6 of these and one of .75 all
10, at the same regret. Both dropped the same 2 of 72 rungs with a mild bias (docs/decisions/study.md)."""

SURE_RANK = 0.8
"""Rank correlation of the pairs below which a rung that is used is doubted, and the guard prints it."""

_QUANTILE = 1.6448536269514722
"""Standard deviations of a normal distribution on each side of its middle 90%."""

_FINALISTS = 4
_FINALIST_SHARE = 0.3
"""Share of the budget that finalists may cost: they are taken from cheap runs, of which a search
with 4 units needs 11."""

_GUARD_SHARE = 0.35
"""Share of the budget that the pairs may cost, so that 16 units pay 8 pairs at a rung of 30%."""

_DESIGN_SHARE = 0.6
"""Share of the low runs that are designed; the rest are proposed."""

_RUNS_PER_SOURCE_FULL = 4.0
"""Full runs for each source from which on cheap runs are limited: the bias of the rung stays, and
the noise of the full runs falls."""

_RUNS_PER_SOURCE_OFF = 4.5
"""Full runs for each source from which on a rung does not pay: with 32 full runs of 4 to 7 sources the
regret was .009 without and .018 with a rung of 30%."""


@dataclass(frozen=True, kw_only=True)
class RungPlan:
    """Numbers of runs that a budget is spent on."""

    low_runs: int
    """Runs at the low rung."""
    design: int
    """Runs at the low rung that are designed, among ``low_runs``."""
    pairs: int
    """Designed runs that go on at once, for the guard; 0 = unguarded."""
    finalists: int
    """Runs that go on after the last proposal."""
    batch: int = 1
    """Low runs that are proposed at a time: with few of them, each fit counts."""
    off: str = ""
    """Reason why the rung does not pay; empty = it is used."""

    @property
    def guarded(self) -> bool:
        """Return whether the budget pays the guard."""
        return self.pairs >= FEWEST_PAIRS


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Comparison of the low rung with the top."""

    pairs: int
    correlation: float
    """Spearman's rank correlation of the pairs' scores."""
    needed: float = LEAST_RANK
    """Least correlation; that of older studies, which stored none, is :data:`LEAST_RANK`."""

    @property
    def holds(self) -> bool:
        """Return whether the low rung may be used."""
        return self.correlation >= self.needed

    @property
    def doubted(self) -> bool:
        """Return whether the low rung is used and may be biased."""
        return self.holds and self.correlation < SURE_RANK

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 90% interval of the correlation."""
        middle, half = (
            math.atanh(min(max(self.correlation, -0.999), 0.999)),
            _QUANTILE * _error(self.pairs),
        )
        return math.tanh(middle - half), math.tanh(middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        ranks = (
            f"rank correlation {self.correlation:.2f} over {self.pairs} pairs, 90% interval "
            f"{low:.2f} to {high:.2f}"
        )
        if self.doubted:
            return (
                f"the low rung ranks mixtures only roughly like full runs ({ranks}): it is used, and may "
                f"have missed good mixtures"
            )
        if self.holds:
            return f"the low rung ranks mixtures like full runs ({ranks}): it is used"
        return (
            f"the low rung does not rank mixtures like full runs ({ranks}, needed "
            f"{self.needed:.2f}): it is dropped, and the rest runs in full"
        )


def plan_rungs(
    units: float, low_price: float, sources: int, *, same_model: bool = True, finalists: int = 4
) -> RungPlan:
    """Return how many runs of each kind a budget pays.

    Args:
        units: Budget after the baselines, in full runs.
        low_price: Price of a run at the low rung, in full runs.
        sources: Number of sources and other searched parameters.
        same_model: Whether a run of the low rung can go on to the top; otherwise a promotion is a
            new full run.
        finalists: Most runs that go on at the end.
    """
    go_on = 1.0 - low_price if same_model else 1.0
    if units > _RUNS_PER_SOURCE_OFF * sources:
        off = (
            f"{units:.3g} full runs are affordable, more than {_RUNS_PER_SOURCE_OFF:g} for each "
            f"of {sources} sources: full runs are as good"
        )
        return RungPlan(low_runs=0, design=0, pairs=0, finalists=0, off=off)
    last = min(finalists, _FINALISTS, math.floor(_FINALIST_SHARE * units / go_on + 1e-9))
    pairs = min(GUARD_PAIRS, math.floor(_GUARD_SHARE * units / go_on + 1e-9))
    pairs = pairs if pairs >= FEWEST_PAIRS else 0
    low = math.floor((units - (last + pairs) * go_on) / low_price + 1e-9)
    if units >= _RUNS_PER_SOURCE_FULL * sources:
        low = min(low, max(20, 6 * sources))
    design = max(pairs, math.ceil(_DESIGN_SHARE * low)) if low else 0
    return RungPlan(
        low_runs=low,
        design=min(design, low),
        pairs=pairs,
        finalists=last,
        batch=max(2, low // 5),
    )


def judge_rung(low: Floats, top: Floats) -> Guard:
    """Compare the scores ``[n]`` of the same mixtures at the low rung and at the top."""
    pairs = len(low)
    return Guard(
        pairs=pairs,
        correlation=rank_correlation(low, top),
        needed=math.tanh(math.atanh(LEAST_RANK) + _MARGIN * _error(pairs)),
    )


def _error(pairs: int) -> float:
    """Return the standard error of a rank correlation after Fisher's transformation.

    The variance is 1.06 / (n - 3) (Fieller, Hartley and Pearson 1957).
    """
    return math.sqrt(1.06 / (pairs - 3))


def rung_family(columns: int) -> RungFamily:
    """Return the surrogate of a search with rungs: a process on two powers of the weights.

    With 8 cheap runs of 7 sources the marginal likelihood chose the better of both powers: the regret
    was .060, with a power of .35 alone .068 (32 draws of a public table).
    """
    return RungFamily(columns=columns, base=ProcessFamily(powers=(0.35, 0.7)))


def spread_rows(mixtures: Floats, count: int, first: int | None = None) -> NDArray[np.intp]:
    """Return the rows of ``count`` mixtures far apart: each is the farthest from all before it.

    The guard needs a range: pairs among finalists rank by noise alone.

    Args:
        mixtures: Weights ``[n, m]``.
        count: Number of rows.
        first: First row; None = an end of the widest gap.
    """
    roots = np.sqrt(np.maximum(mixtures, 0.0))
    gaps = ((roots[:, None] - roots[None]) ** 2).sum(axis=2)
    end = int(gaps.max(axis=1).argmax()) if first is None and len(roots) else first
    taken = [] if end is None else [end]
    while len(taken) < min(count, len(roots)):
        nearest = gaps[taken].min(axis=0)
        nearest[taken] = -1.0
        taken.append(int(nearest.argmax()))
    return np.array(taken, dtype=np.intp)
