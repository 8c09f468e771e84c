"""Studies whose truth is known: runs with the scores and items that such a study would have left.

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
from numpy.typing import NDArray

from sweeps.verdict.training_noise import Floats, RunScores

__all__ = ["Design", "Setting", "SimulatedRuns", "SimulatedStudy"]

Design = Literal["fixed", "search", "confirm"]

Tails = Literal["normal", "t3"]

_MOST_SEEDS = 20


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of study."""

    candidates: int = 5
    """The baseline included; candidate 1 has the effect, all others are equal."""
    seeds: int = 3
    """Runs of each candidate; with one, noise comes from checkpoints."""
    runs: tuple[int, ...] = ()
    """Runs of each candidate where these differ; empty = ``seeds``."""
    effect: float = 0.0
    """Advantage of candidate 1, in SDs of one run's score."""
    tasks: int = 2
    items: int = 100
    """Items of each task."""
    liked: float = 0.35
    """Item noise of a candidate's score where items stand alone, in SDs of one run's score."""
    cluster: int = 1
    """Items in a row that are liked together: one passage, subject or document."""
    rest: float = 0.35
    """Noise of single answers in a run's score, in the same unit."""
    seed_effect: float = 0.5
    """Effect of a seed on every candidate alike, in the same unit."""
    tails: Tails = "normal"
    """Distribution of the training noise; ``t3`` has 3 degrees of freedom, scaled to SD 1."""
    sds: tuple[float, ...] = ()
    """SD of each candidate's run, in the unit; empty = 1 for all."""
    sd_spread: float = 0.0
    """SD of the logarithm of the candidates' SDs, drawn anew for each study about a median of 1."""
    design: Design = "fixed"
    """``fixed``: all get ``seeds`` runs. ``search``: one run each, two more of the baseline, judged
    on that. ``confirm``: the same, then ``seeds`` fresh ones of the best three and the baseline."""
    baseline: bool = True
    """True if there is a candidate to beat."""
    checkpoints: int = 5
    correlation: float = 0.5
    """Between the noises of neighbouring checkpoints of a run."""
    whole_run: float = 0.0
    """Share of the training variance that all checkpoints of a run have in common, so hidden."""


@dataclass(frozen=True, kw_only=True)
class SimulatedRuns:
    """Runs drawn from a study."""

    candidate: NDArray[np.int64]
    seed: NDArray[np.int64]
    tables: tuple[Floats, ...]
    """One a task: runs x items."""
    groups: tuple[NDArray[np.int64], ...] | None
    """One a task: the cluster of each item; None where all stand alone."""
    late: tuple[tuple[Floats, Floats], ...]
    """(tokens, score) of each run's late checkpoints; empty where nobody asked for them."""

    def joined(self, other: SimulatedRuns) -> SimulatedRuns:
        """Return the runs of both."""
        return SimulatedRuns(
            candidate=np.concatenate([self.candidate, other.candidate]),
            seed=np.concatenate([self.seed, other.seed]),
            tables=tuple(np.vstack(pair) for pair in zip(self.tables, other.tables, strict=True)),
            groups=self.groups,
            late=self.late + other.late,
        )

    def scores(self) -> RunScores:
        """Return the score of each run, the mean over tasks of the mean over items."""
        present = np.unique(self.candidate)
        return RunScores(
            candidates=[f"c{k}" for k in present],
            candidate=np.searchsorted(present, self.candidate),
            seed=self.seed,
            value=np.mean([table.mean(axis=1) for table in self.tables], axis=0),
        )


class SimulatedStudy:
    """The truth of one study; runs are drawn from it."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting, self.rng = setting, rng
        count = setting.tasks * setting.items
        # An item's part in the score is 1 / count, so its SD is this much larger.
        self.spread = math.sqrt(count)
        self.hard = 5.0 * self.spread * rng.standard_normal(count)
        clusters = rng.standard_normal((setting.candidates, count // setting.cluster))
        self.liked = setting.liked * self.spread * np.repeat(clusters, setting.cluster, axis=1)
        self.seed_effects = setting.seed_effect * rng.standard_normal(_MOST_SEEDS)
        self.sds = np.array(setting.sds or [1.0] * setting.candidates)
        if setting.sd_spread:
            self.sds = self.sds * np.exp(
                setting.sd_spread * rng.standard_normal(setting.candidates)
            )

    def all_runs(self) -> SimulatedRuns:
        """Return the runs of all candidates of a fixed design."""
        setting = self.setting
        counts = setting.runs or (setting.seeds,) * setting.candidates
        candidate = np.repeat(np.arange(setting.candidates), counts)
        return self.draw(candidate, np.concatenate([np.arange(count) for count in counts]))

    def runs(self, candidates: Sequence[int], seeds: Sequence[int]) -> SimulatedRuns:
        """Return fresh runs of ``candidates`` x ``seeds``."""
        return self.draw(np.repeat(candidates, len(seeds)), np.tile(seeds, len(candidates)))

    def draw(self, candidate: NDArray[np.int64], seed: NDArray[np.int64]) -> SimulatedRuns:
        """Return one run for each pair of a candidate and a seed."""
        setting, rng = self.setting, self.rng
        luck, late = self._luck(len(candidate))
        luck = luck * self.sds[candidate] + self.seed_effects[seed]
        luck = luck + setting.effect * (candidate == 1)
        rest = setting.rest * self.spread * rng.standard_normal((len(candidate), len(self.hard)))
        values = self.hard + self.liked[candidate] + luck[:, None] + rest
        groups = None
        if setting.cluster > 1:
            groups = (np.arange(setting.items) // setting.cluster,) * setting.tasks
        return SimulatedRuns(
            candidate=candidate,
            seed=seed,
            tables=tuple(np.split(values, setting.tasks, axis=1)),
            groups=groups,
            late=late,
        )

    def _luck(self, runs: int) -> tuple[Floats, tuple[tuple[Floats, Floats], ...]]:
        """Return the luck of each run, SD 1, and its late checkpoints where these are asked for."""
        setting, rng = self.setting, self.rng
        if setting.tails == "t3":
            return rng.standard_t(3.0, runs) / math.sqrt(3.0), ()
        if setting.seeds > 1 or setting.design != "fixed":
            return rng.standard_normal(runs), ()
        # From one checkpoint to the next the noise is correlated; the trend rises along a line.
        tokens = np.arange(1.0, setting.checkpoints + 1.0)
        noise = rng.standard_normal((runs, setting.checkpoints))
        for at in range(1, setting.checkpoints):
            fresh = math.sqrt(1.0 - setting.correlation**2) * noise[:, at]
            noise[:, at] = setting.correlation * noise[:, at - 1] + fresh
        hidden = math.sqrt(setting.whole_run) * rng.standard_normal(runs)
        paths = hidden[:, None] + math.sqrt(1.0 - setting.whole_run) * noise
        return paths[:, -1], tuple((tokens, path + 0.3 * tokens) for path in paths)
