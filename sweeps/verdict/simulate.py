"""Simulated studies: what the rule does when the truth is known.

    value of item i in run s of candidate k =
        effect_k + hard_i + liked_ki + run_ks + rest_ksi
        truth      cancels   item noise  training noise
                   in pairs

Effects and noises are in units of the training noise of one run's score, so "an effect of 2" is a
candidate better by two noise SDs. Items are the same for all runs of a study: what is hard for one
is hard for all, and what favours a candidate (``liked``) favours it at every seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.decision import Ruling, apply_rule
from sweeps.verdict.items import item_covariance
from sweeps.verdict.noise import (
    Floats,
    RunScores,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
)

__all__ = ["Rates", "Setting", "naive_winner", "rates", "simulate"]

Design = Literal["fixed", "search", "confirm"]

BASELINE = "c0"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of study."""

    candidates: int = 5
    """The baseline included; candidate 1 has the effect, all others are equal."""
    seeds: int = 3
    """Runs of each candidate; with one, noise comes from checkpoints."""
    effect: float = 0.0
    """How much better candidate 1 is, in SDs of one run's score."""
    tasks: int = 2
    items: int = 100
    """Items of each task."""
    liked: float = 0.35
    """Item noise of a candidate's score, in SDs of one run's score."""
    rest: float = 0.35
    """Noise of single answers in a run's score, in the same unit."""
    seed_effect: float = 0.5
    """What a seed does to every candidate alike, in the same unit."""
    design: Design = "fixed"
    """``fixed``: all get ``seeds`` runs. ``search``: one run each, two more of the baseline, judged
    on that. ``confirm``: the same, then ``seeds`` fresh ones of the best three and the baseline."""
    baseline: bool = True
    """Whether there is a candidate to beat."""
    checkpoints: int = 5
    correlation: float = 0.5
    """Between the noises of neighbouring checkpoints of a run."""
    whole_run: float = 0.0
    """Share of the training variance that all checkpoints of a run have in common, so hidden."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of simulated studies."""

    studies: int
    right: float
    """Named candidate 1 the winner."""
    wrong: float
    """Named another the winner; with no effect, any."""
    kept: float
    """Found the baseline better than all."""
    naive: float
    """Would have been won by somebody on item noise alone, uncorrected: the yardstick."""

    @property
    def wrong_upper(self) -> float:
        """Upper end of the exact 95% interval of ``wrong``."""
        count = round(self.wrong * self.studies)
        return float(stats.beta.ppf(0.975, count + 1, self.studies - count))


def rates(setting: Setting, studies: int, seed: int = 0) -> Rates:
    """How often the rule is right and wrong over simulated studies."""
    rng = np.random.default_rng([seed, setting.candidates, setting.seeds, setting.tasks])
    right = wrong = kept = naive = 0
    for _ in range(studies):
        ruling, fooled = simulate(setting, rng)
        won = ruling.outcome == "winner"
        hit = won and ruling.pick == "c1" and setting.effect > 0.0
        right += hit
        wrong += won and not hit
        kept += ruling.outcome == "keep-baseline"
        naive += fooled
    return Rates(
        studies=studies,
        right=right / studies,
        wrong=wrong / studies,
        kept=kept / studies,
        naive=naive / studies,
    )


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[Ruling, bool]:
    """One study: the ruling, and whether item noise alone would have named a winner."""
    study = _Study(setting, rng)
    everyone = list(range(setting.candidates))
    if setting.design == "fixed":
        runs = study.runs(everyone, range(setting.seeds))
        return _rule(setting, study, runs), naive_winner(runs.tables, runs.candidate)
    search = study.runs(everyone, range(1)).joined(study.runs([0], range(1, 3)))
    fooled = naive_winner(search.tables, search.candidate)
    if setting.design == "search":
        return _rule(setting, study, search), fooled
    means = fit_means(search.scores()).means
    best = [int(k) for k in np.argsort(-means) if k != 0][:3]
    fresh = study.runs([0, *best], range(10, 10 + setting.seeds))
    return _rule(setting, study, fresh), fooled


def naive_winner(tables: Sequence[Floats], candidate: np.ndarray) -> bool:
    """Whether the best candidate beats the baseline by a paired t test over items at 5%."""
    table = np.hstack(tables)
    means = np.array([table[candidate == k].mean(axis=0) for k in np.unique(candidate)])
    best = 1 + int(means[1:].mean(axis=1).argmax())
    gap = means[best] - means[0]
    return bool(gap.mean() > 1.96 * gap.std(ddof=1) / math.sqrt(len(gap)))


@dataclass(frozen=True, kw_only=True)
class _Runs:
    candidate: np.ndarray
    seed: np.ndarray
    tables: tuple[Floats, ...]
    """One a task: runs x items."""

    def joined(self, other: _Runs) -> _Runs:
        return _Runs(
            candidate=np.concatenate([self.candidate, other.candidate]),
            seed=np.concatenate([self.seed, other.seed]),
            tables=tuple(np.vstack(pair) for pair in zip(self.tables, other.tables, strict=True)),
        )

    def scores(self) -> RunScores:
        present = np.unique(self.candidate)
        return RunScores(
            candidates=[f"c{k}" for k in present],
            candidate=np.searchsorted(present, self.candidate),
            seed=self.seed,
            value=np.mean([table.mean(axis=1) for table in self.tables], axis=0),
        )


class _Study:
    """The truth of one study; runs are drawn from it."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting, self.rng = setting, rng
        count = setting.tasks * setting.items
        shape = (setting.candidates, count)
        # An item's part in the score is 1 / count, so its SD is this much larger.
        self.spread = math.sqrt(count)
        self.hard = 5.0 * self.spread * rng.standard_normal(count)
        self.liked = setting.liked * self.spread * rng.standard_normal(shape)
        self.seed_effects = setting.seed_effect * rng.standard_normal(20)

    def runs(self, candidates: Sequence[int], seeds: Sequence[int]) -> _Runs:
        """Fresh runs of ``candidates`` x ``seeds``."""
        setting, rng = self.setting, self.rng
        candidate = np.repeat(candidates, len(seeds))
        seed = np.tile(seeds, len(candidates))
        luck = rng.standard_normal(len(candidate)) + self.seed_effects[seed]
        luck = luck + setting.effect * (candidate == 1)
        rest = setting.rest * self.spread * rng.standard_normal((len(candidate), len(self.hard)))
        values = self.hard + self.liked[candidate] + luck[:, None] + rest
        return _Runs(
            candidate=candidate,
            seed=seed,
            tables=tuple(np.split(values, setting.tasks, axis=1)),
        )

    def late_noise(self, runs: int) -> TrainingNoise:
        """Noise as late checkpoints show it: correlated from one to the next, on a rising trend."""
        setting = self.setting
        shown = math.sqrt(1.0 - setting.whole_run)
        paths, tokens = [], np.arange(1.0, setting.checkpoints + 1.0)
        for _ in range(runs):
            noise = [self.rng.standard_normal()]
            for _ in range(setting.checkpoints - 1):
                fresh = math.sqrt(1.0 - setting.correlation**2) * self.rng.standard_normal()
                noise.append(setting.correlation * noise[-1] + fresh)
            paths.append((tokens, shown * np.array(noise) + 0.3 * tokens))
        return checkpoint_noise(paths, setting.checkpoints)


def _rule(setting: Setting, study: _Study, runs: _Runs) -> Ruling:
    scores = runs.scores()
    fit = fit_means(scores)
    late = TrainingNoise.unknown()
    if not fit.noise.known:
        late = study.late_noise(len(scores.value))
    items, item_df = item_covariance(
        runs.tables, [1.0 / setting.tasks] * setting.tasks, scores.candidate
    )
    evidence = Evidence(
        names=scores.candidates,
        means=fit.means,
        unit=fit.unit,
        noise=combine(fit.noise, late, TrainingNoise.unknown()),
        item_covariance=items,
        item_df=item_df,
    )
    return apply_rule(evidence, baseline=BASELINE if setting.baseline else None)
