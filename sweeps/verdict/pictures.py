"""Use of pictures: no candidate is named better on answers about pictures unless it looks at them.

Bits per byte and exact match of an answer improve with its language alone: its form, its most frequent
values. What the picture adds is measured by two gains of the same run on the same items:

    gain           bits per byte of the answer without the picture, less those with it
    shuffled_gain  bits per byte with another item's picture, less those with its own

A model that never looks may still have a gain, because a prompt without a picture has a form that it was not
trained on. Another picture leaves the form as it is. So both have to be above zero beyond their noise, for
every task about pictures that the score counts, in the candidate that would be named.

The noise of a candidate's mean gain has two parts, as that of its score has: seeds, pooled over the
candidates (variance of one run over the number of its runs), and items (the runs' standard error over
pictures, which more runs of the same items do not lessen). A study without replicates is judged by its items:
whether the trained models look is a question to these models. The lower end is that of a t interval at
``alpha / 2`` with Bonferroni's correction for the candidates that the pick was chosen from. A fixed multiple
of the seed gap would be too lax for two seeds, and too strict for five. As all conditions have to be met, a
candidate that never looks is named in at most ``alpha / 2`` of studies, however many tasks there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ablations.evaluation.specs import PICTURE_GAINS
from ablations.files import finite_or_none
from sweeps.verdict.contrasts import Evidence, joint_df
from sweeps.verdict.decision import Judgement, best_first
from sweeps.verdict.observations import Observations, PictureGain
from sweeps.verdict.task_quality import fit_task
from sweeps.verdict.training_noise import TrainingNoise
from sweeps.verdict.verdict_record import PictureNoise, PictureRow, TaskRow

__all__ = ["PictureUse", "picture_use"]


@dataclass(frozen=True, kw_only=True)
class PictureUse:
    """Use of the pictures of each task by each candidate."""

    rows: Mapping[tuple[str, str], PictureRow]
    """(task, candidate) → its gains; empty for a study without tasks about pictures."""

    def blind(self, candidate: str) -> tuple[PictureRow, ...]:
        """Return the tasks of the score whose pictures a candidate does not use."""
        return tuple(
            row
            for row in self.rows.values()
            if row.candidate == candidate and row.in_score and not row.used
        )

    def withhold(self, judged: Judgement, evidence: Evidence, baseline: str | None) -> Judgement:
        """Return the judgement without a winner, and without candidates ruled out, by a blind candidate."""
        ordered = best_first(evidence)
        if self.blind(ordered[0]):
            judged = replace(judged, finalists=ordered)
        ruling = judged.ruling
        if ruling.outcome != "winner" or not self.blind(ruling.pick):
            return judged
        if baseline is None:
            kept = replace(ruling, outcome="tie", tie_kind="undecided")
        else:
            kept = replace(ruling, outcome="keep-baseline", tie_kind=None)
        return replace(judged, ruling=kept)

    def effects(self, tasks: tuple[TaskRow, ...], pick: str, reference: str) -> tuple[TaskRow, ...]:
        """Return the comparison task by task, without a better side that does not use the pictures."""
        return tuple(
            replace(row, effect="blind") if self._unfounded(row, pick, reference) else row
            for row in tasks
        )

    def _unfounded(self, row: TaskRow, pick: str, reference: str) -> bool:
        if row.effect not in ("gains", "pays"):
            return False
        use = self.rows.get((row.task, pick if row.effect == "gains" else reference))
        return use is not None and not use.used

    def of(self, *candidates: str) -> tuple[PictureRow, ...]:
        """Return the rows of candidates, task by task."""
        return tuple(row for row in self.rows.values() if row.candidate in candidates)


def picture_use(
    observed: Observations,
    weights: Mapping[str, float],
    *,
    baseline: str | None,
    alpha: float,
    last: int,
) -> PictureUse:
    """Measure how far each candidate uses the pictures of each task.

    Args:
        observed: The runs that count.
        weights: Weight of each metric in the score.
        baseline: Name of the baseline, which was not chosen by its scores.
        alpha: Two-sided error rate of the study as a whole.
        last: Checkpoints of each run that count as late.
    """
    names = [candidate.name for candidate in observed.candidates]
    level = alpha / 2.0 / max(1, sum(name != baseline for name in names))
    measured = {(one.data.task, one.data.metric): one for one in observed.pictures}
    rows: dict[tuple[str, str], PictureRow] = {}
    for task in dict.fromkeys(task for task, _ in measured):
        counted = any(key.rpartition("/")[0] == task for key in weights)
        gains = [measured[task, metric] for metric in PICTURE_GAINS]
        noises = [_seed_noise(observed, gain, last) for gain in gains]
        for place, name in enumerate(names):
            runs = [i for i, run in enumerate(observed.runs) if run.candidate == place]
            own, control = (
                _mean(gain, noise, runs, level) for gain, noise in zip(gains, noises, strict=True)
            )
            rows[task, name] = PictureRow(
                task=task,
                candidate=name,
                gain=own.value,
                gain_low=own.low,
                shuffled_gain=control.value,
                shuffled_gain_low=control.low,
                runs=len(runs),
                noise=own.noise if control.noise != "unknown" else control.noise,
                used=min(_known(own.low), _known(control.low)) > 0.0,
                in_score=counted,
            )
    return PictureUse(rows=rows)


def _known(value: float | None) -> float:
    return -math.inf if value is None else value


def _seed_noise(observed: Observations, gain: PictureGain, last: int) -> TrainingNoise:
    """Return the noise of one run's gain from replicates, pooled over candidates; unknown without any."""
    noise = fit_task(observed, gain.data, last).noise
    return noise if noise.source == "seeds" else TrainingNoise.unknown()


@dataclass(frozen=True)
class _Mean:
    """Mean gain of a candidate, with the lower end of its interval."""

    value: float | None
    low: float | None
    noise: PictureNoise


def _mean(gain: PictureGain, seeds: TrainingNoise, runs: list[int], level: float) -> _Mean:
    values, errors = gain.data.values[runs], gain.errors[runs]
    if not len(runs) or not np.isfinite(values).all():
        return _Mean(None, None, "unknown")
    mean = float(values.mean())
    item_df = float(gain.draws[runs].min()) - 1.0
    if not np.isfinite(errors).all() or not item_df >= 1.0:
        return _Mean(mean, None, "unknown")
    items = float(errors.mean()) ** 2  # the runs share their items
    if not seeds.known:
        low = mean - float(stats.t.isf(level, item_df)) * math.sqrt(items)
        return _Mean(mean, finite_or_none(low), "items")
    training = seeds.variance / len(runs)
    # With the limit of the verdict's own intervals. Without it a pair of seeds would name 6.3% of blind
    # candidates at a level of 2.5% where seeds vary three times as much as items.
    parts = (np.array([training]), np.array([seeds.df]), np.array([items]))
    df = float(joint_df(*parts, item_df)[0])
    low = mean - float(stats.t.isf(level, df)) * math.sqrt(items + training)
    return _Mean(mean, finite_or_none(low), "seeds and items")
