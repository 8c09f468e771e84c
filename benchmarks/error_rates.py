"""Simulated studies: what the rule does when the truth is known (the studies: simulated_studies.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from benchmarks.simulated_studies import Setting, SimulatedRuns, SimulatedStudy
from sweeps.verdict.contrasts import Evidence, Selection
from sweeps.verdict.decision import apply_rule, best_first
from sweeps.verdict.item_noise import item_covariance
from sweeps.verdict.training_noise import (
    Floats,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
)

__all__ = ["Rates", "Setting", "naive_winner", "rates", "simulate"]

BASELINE = "c0"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of simulated studies."""

    studies: int
    right: float
    """Named candidate 1 the winner."""
    wrong: float
    """Named another the winner; with no effect, any."""
    naive: float
    """Would have been won by somebody on item noise alone, uncorrected: the yardstick."""

    @property
    def wrong_upper(self) -> float:
        """Upper end of the exact 95% interval of ``wrong``."""
        count = round(self.wrong * self.studies)
        return float(stats.beta.ppf(0.975, count + 1, self.studies - count))


def rates(setting: Setting, studies: int, seed: int = 0, *, plain: bool = False) -> Rates:
    """Return how often the rule is right and wrong over simulated studies.

    ``plain`` judges the same studies by the pooled noise alone: no candidate's own variance, items as if
    each stood alone, and no memory of a search. It is what the rest of the rule is measured against.
    """
    rng = np.random.default_rng([seed, setting.candidates, setting.seeds, setting.tasks])
    right = wrong = naive = 0
    for _ in range(studies):
        winner, fooled = simulate(setting, rng, plain=plain)
        won = winner is not None
        hit = winner == "c1" and setting.effect > 0.0
        right += hit
        wrong += won and not hit
        naive += fooled
    return Rates(
        studies=studies,
        right=right / studies,
        wrong=wrong / studies,
        naive=naive / studies,
    )


def simulate(
    setting: Setting, rng: np.random.Generator, *, plain: bool = False
) -> tuple[str | None, bool]:
    """One study: the winner that is named, and whether item noise alone would have named one."""
    study = SimulatedStudy(setting, rng)
    if setting.design == "fixed":
        runs = study.all_runs()
        return _rule(setting, runs, plain=plain), naive_winner(runs.tables, runs.candidate)
    search = study.runs(range(setting.candidates), range(1)).joined(study.runs([0], range(1, 3)))
    fooled = naive_winner(search.tables, search.candidate)
    if setting.design == "search":
        return _rule(setting, search, plain=plain), fooled
    means = fit_means(search.scores()).means
    best = [int(k) for k in np.argsort(-means) if k != 0][:3]
    fresh = study.runs([0, *best], range(10, 10 + setting.seeds))
    chosen = Selection(searched=setting.candidates - 1, seeds=1.0, unchosen=(BASELINE,))
    return _rule(setting, fresh, chosen, plain=plain), fooled


def naive_winner(tables: Sequence[Floats], candidate: np.ndarray) -> bool:
    """Return whether the best candidate beats the baseline by a paired t test over items at 5%."""
    table = np.hstack(tables)
    means = np.array([table[candidate == k].mean(axis=0) for k in np.unique(candidate)])
    best = 1 + int(means[1:].mean(axis=1).argmax())
    gap = means[best] - means[0]
    return bool(gap.mean() > 1.96 * gap.std(ddof=1) / math.sqrt(len(gap)))


def _rule(
    setting: Setting, runs: SimulatedRuns, chosen: Selection | None = None, *, plain: bool
) -> str | None:
    scores = runs.scores()
    fit = fit_means(scores)
    late = TrainingNoise.unknown()
    if not fit.noise.known:
        late = checkpoint_noise(runs.late, setting.checkpoints)
        late = replace(late, smooth=1.0) if plain else late
    items, item_df = item_covariance(
        runs.tables,
        [1.0 / setting.tasks] * setting.tasks,
        scores.candidate,
        None if plain else runs.groups,
    )
    evidence = Evidence(
        names=scores.candidates,
        means=fit.means,
        unit=fit.unit,
        noise=combine(fit.noise, late, TrainingNoise.unknown()),
        item_covariance=items,
        item_df=item_df,
        own=None if plain else fit.own,
        selection=None if plain else chosen,
    )
    baseline = BASELINE if setting.baseline else None
    if baseline and not _may_win(evidence, baseline):
        return None
    ruling = apply_rule(evidence, baseline=baseline)
    return ruling.pick if ruling.outcome == "winner" else None


def _may_win(evidence: Evidence, baseline: str) -> bool:
    """Return whether the best candidate is worth the draws of its p-value: no correction saves p = 0.2."""
    best = next(name for name in best_first(evidence) if name != baseline)
    weights = np.zeros((1, len(evidence.names)))
    weights[0, [evidence.names.index(name) for name in (best, baseline)]] = 1.0, -1.0
    parts = evidence.parts(weights)
    return bool(stats.t.sf(parts.t()[0], parts.df[0]) <= 0.1)
