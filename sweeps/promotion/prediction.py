"""Predict winner minus baseline at full size; the prediction is sealed before the full run starts.

    verdict ──▶ difference of the proxies, winner's curse removed ───┐
    runs ─────▶ spread between mixtures, slopes between scales ──────┼─▶ expected difference, 90% interval
    config ───▶ tokens, parameters, share of the searched mixture ───┘

There is one prediction for the study's score and one for each task that the verdict compared, all oriented
so that positive is better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.config.schema import RunConfig, dump, validate
from ablations.record.run_record import RunRecord
from ablations.training.specs import ModelSpec
from sweeps.promotion.full_schedule import freeze
from sweeps.promotion.promotion_inputs import Evidence, picked_runs
from sweeps.promotion.scale_transfer import (
    PRIOR,
    SCORE_SPREAD,
    Carried,
    Factor,
    Gap,
    carry,
    transfer_factor,
)
from sweeps.promotion.sealed_prediction import Expected, Prediction
from sweeps.promotion.slopes import checkpoint_slope, other_scales, tokens_of
from sweeps.promotion.specs import FullSpec
from sweeps.study.objective import SCORE, Objective, objective_of
from sweeps.study.specs import Direction, loss_sign
from sweeps.verdict.contrasts import Estimate
from sweeps.verdict.verdict_record import CandidateRow, TaskRow, Verdict

__all__ = ["predict"]


def predict(
    evidence: Evidence, full: FullSpec, baseline: CandidateRow, other: Sequence[RunRecord]
) -> Prediction:
    """Predict the full run of the evidence's candidate against that of ``baseline``.

    Args:
        evidence: The evidence of the promotion.
        full: The full run.
        baseline: The verdict's row of the baseline.
        other: The baseline's finished runs.
    """
    config = evidence.config
    runs_dir = Path(config.runs_dir)
    near = _nearest(evidence, baseline, other)
    proxy, theirs = (runs[0].manifest.config for runs in (near.runs, near.other))
    measured = (
        *checkpoint_slope(near.runs, near.other),
        *other_scales(runs_dir, evidence.study, evidence.second, near.runs[0]),
    )
    gap = _gap(proxy, theirs, config, full)
    scale = _Scale(gap=gap, factor=transfer_factor(gap, measured))
    added = _unseen(proxy, theirs, config)
    objective = _objective(runs_dir / near.study, near.verdict)
    own = objective.metrics == (SCORE,) and objective.form is None
    same = not own or _same_score(proxy, config)
    why = {} if same else {"score": "the full run's evaluation makes another score"}
    rows = [row for row in near.verdict.tasks if row.advantage is not None]
    for row in rows:
        for source in added:
            if row.task == f"heldout_{source}":
                why[f"{row.task}/{row.metric}"] = f"text of {source}, which no proxy read"
    curse = _Curse.of(near, len([row for row in rows if row.in_score]))
    kept = [row for row in rows if f"{row.task}/{row.metric}" not in why]
    return Prediction(
        study=near.study,
        baseline=baseline.name,
        gap=gap,
        factor=scale.factor,
        measured=measured,
        prior=PRIOR,
        added=added,
        score=_score(near, curse, scale) if same else None,
        objective=objective,
        direction=near.verdict.direction,
        tasks=_tasks(near, runs_dir, kept, curse, scale),
        not_comparable=why,
    )


@dataclass(frozen=True, kw_only=True)
class _Proxies:
    """Study whose difference is carried to the target."""

    study: str
    verdict: Verdict
    candidate: CandidateRow
    runs: Sequence[RunRecord]
    baseline: CandidateRow
    other: Sequence[RunRecord]


def _nearest(evidence: Evidence, baseline: CandidateRow, other: Sequence[RunRecord]) -> _Proxies:
    """Return the proxies nearest the target: the second study's if it judged the same pair."""
    own = _Proxies(
        study=evidence.study,
        verdict=evidence.verdict,
        candidate=evidence.candidate,
        runs=evidence.runs,
        baseline=baseline,
        other=other,
    )
    second = evidence.second
    if second is None or (second.pick, second.reference, second.score, second.direction) != (
        evidence.candidate.name,
        baseline.name,
        evidence.verdict.score,
        evidence.verdict.direction,
    ):
        return own
    rows = {row.name: row for row in second.candidates}
    pair = [rows[name] for name in (second.pick, second.reference)]
    runs = [picked_runs(Path(evidence.config.runs_dir), second.study, row) for row in pair]
    if _cost(runs[0][0]) <= _cost(evidence.runs[0]):
        return own
    return _Proxies(
        study=second.study,
        verdict=second,
        candidate=pair[0],
        runs=runs[0],
        baseline=pair[1],
        other=runs[1],
    )


def _cost(run: RunRecord) -> float:
    """Return tokens times parameters of a run."""
    config = run.manifest.config
    model: ModelSpec = validate(ModelSpec, config["model"])
    return tokens_of(config) * model.parameters


def _objective(folder: Path, verdict: Verdict) -> Objective:
    name = verdict.objective
    return objective_of(folder, None if name == SCORE else name)


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Scale of the target."""

    gap: Gap
    factor: Factor


@dataclass(frozen=True, kw_only=True)
class _Curse:
    """Winner's curse: how much the choice of the pick flatters its score and each of its tasks."""

    flattery: float
    """Flattery of the score, in units of the score."""
    error: float
    """Standard error of the score's difference."""
    tasks: int
    """Number of tasks in the score."""

    @classmethod
    def of(cls, near: _Proxies, tasks: int) -> _Curse:
        """Read it from the verdict; zero for a candidate that is not the verdict's pick."""
        verdict = near.verdict
        if near.candidate.name != verdict.pick:
            return cls(flattery=0.0, error=math.inf, tasks=max(1, tasks))
        return cls(
            flattery=max(0.0, verdict.advantage.value - verdict.regret.shrunk_advantage),
            error=verdict.advantage.standard_error,
            tasks=max(1, tasks),
        )

    def of_task(self, row: TaskRow, error: float) -> float:
        """Return the flattery of a task: the regression of its noise on the score's noise.

        Tasks of equal weight and independent noise correlate with their mean by 1/sqrt(tasks). A task whose
        noise is unknown is not corrected.
        """
        known = self.error > 0.0 and math.isfinite(self.error) and math.isfinite(error)
        if not row.in_score or not known:
            return 0.0
        return self.flattery * error / (self.error * math.sqrt(self.tasks))


def _score(near: _Proxies, curse: _Curse, scale: _Scale) -> Expected:
    verdict = near.verdict
    found = _against(near.candidate, near.baseline, verdict.direction)
    noise = verdict.noise
    means = [row.mean for row in verdict.candidates]
    return _expected(
        "score",
        "",
        found,
        curse.flattery,
        spread=SCORE_SPREAD * float(np.std(means, ddof=1)),
        run=(noise.run_sd, noise.df),
        scale=scale,
    )


def _against(candidate: CandidateRow, baseline: CandidateRow, direction: Direction) -> Estimate:
    """Return the difference of two candidates' scores, with the noise from the verdict."""
    if baseline.advantage is None and candidate.advantage is not None:
        return candidate.advantage
    # The verdict compared both with a third candidate: add the two errors as if independent.
    rows = [row.advantage for row in (candidate, baseline) if row.advantage is not None]
    error = math.sqrt(math.fsum(row.standard_error**2 for row in rows)) if rows else math.nan
    df = min((row.df for row in rows), default=1.0)
    value = -loss_sign(direction) * (candidate.mean - baseline.mean)
    nothing = {"low": math.nan, "high": math.nan, "p": math.nan, "p_corrected": math.nan}
    return Estimate(value=value, standard_error=error, df=df, **nothing)


def _tasks(
    near: _Proxies,
    runs_dir: Path,
    rows: Sequence[TaskRow],
    curse: _Curse,
    scale: _Scale,
) -> tuple[Expected, ...]:
    """Return the prediction of each task; nothing if the verdict's rows compare another pair."""
    verdict = near.verdict
    if near.candidate.name != verdict.pick or near.baseline.name != verdict.reference:
        return ()
    seeds = math.fsum(1.0 / len(row.seeds or (0,)) for row in (near.candidate, near.baseline))
    spreads = _spreads(runs_dir / near.study, verdict)
    found = []
    for row in rows:
        estimate = row.advantage
        assert estimate is not None
        error = estimate.standard_error
        training = max(0.0, error**2 - (row.item_error or 0.0) ** 2)
        own = spreads.get(f"{row.task}/{row.metric}", abs(estimate.value) / math.sqrt(2.0))
        run_sd = math.sqrt(training / seeds) if math.isfinite(error) else None
        expected = _expected(
            row.task,
            row.metric,
            estimate,
            curse.of_task(row, error),
            spread=own,
            run=(run_sd, estimate.df),
            scale=scale,
        )
        found.append(expected)
    return tuple(found)


def _expected(
    task: str,
    metric: str,
    seen: Estimate,
    flattery: float,
    *,
    spread: float,
    run: tuple[float | None, float],
    scale: _Scale,
) -> Expected:
    value, error, (run_sd, run_df) = seen.value - flattery, seen.standard_error, run
    known = run_sd is not None and math.isfinite(error)
    found: Carried = carry(
        value,
        error=error if known else 0.0,
        df=seen.df,
        spread=spread,
        run_sd=run_sd or 0.0,
        run_df=run_df,
        factor=scale.factor,
        gap=scale.gap,
    )
    return Expected(
        task=task,
        metric=metric,
        proxies=value,
        error=error if known else None,
        mean=found.mean,
        low=found.low if known else None,
        high=found.high if known else None,
        signal=known and abs(value) > error,
    )


def _spreads(folder: Path, verdict: Verdict) -> dict[str, float]:
    """Return ``task/metric`` → standard deviation between the verdict's candidates, with their noise."""
    trials = {row.trial for row in verdict.candidates}
    values: dict[str, dict[str, list[float]]] = {}
    for name in verdict.runs:
        record = RunRecord(folder / name)
        trial = record.manifest.trial if record.exists() else None
        if trial not in trials:
            continue
        for key, value in ((record.result() or {}).get("metrics") or {}).items():
            if value is not None:
                values.setdefault(key, {}).setdefault(str(trial), []).append(float(value))
    return {
        key: float(np.std([math.fsum(v) / len(v) for v in of_trial.values()], ddof=1))
        for key, of_trial in values.items()
        if len(of_trial) > 1
    }


def _gap(
    proxy: Mapping[str, Any], other: Mapping[str, Any], config: RunConfig, full: FullSpec
) -> Gap:
    small: ModelSpec = validate(ModelSpec, proxy["model"])
    near, far = (
        [_mixture(one, spec) for one in (proxy, other)]
        for spec in (replace(full, stages=None), full)
    )
    curved, plain = (_share(near, far, power) for power in (_POWER, 1.0))
    return Gap(
        tokens=full.total_tokens / max(1.0, tokens_of(proxy)),
        parameters=config.model.parameters / small.parameters,
        share=curved,
        # The exponent is uncertain: use half of the larger dilution, by this law or by a linear one.
        share_sd=max(abs(1.0 - curved), abs(1.0 - plain)) / 2.0,
    )


def _mixture(proxy: Mapping[str, Any], full: FullSpec) -> dict[str, float]:
    """Return source → share of all tokens, as ``full`` would train the proxy's mixture."""
    found: dict[str, float] = {}
    for stage in freeze(proxy, full)["stages"].values():
        for source, weight in stage["weights"].items():
            found[source] = found.get(source, 0.0) + stage["share"] * weight
    return found


_POWER = 0.35
"""Exponent of the weights in a distance, the same as in the project's surrogate: the first tenth of a source
changes more than the fifth."""


def _share(
    near: Sequence[Mapping[str, float]], far: Sequence[Mapping[str, float]], power: float
) -> float:
    """Return the distance of a pair of mixtures in the full run divided by that in the proxies."""

    def distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
        names = {*first, *second}
        return math.fsum(
            abs(first.get(n, 0.0) ** power - second.get(n, 0.0) ** power) for n in names
        )

    before = distance(*near)
    return distance(*far) / before if before > 0.0 else 1.0


def _unseen(
    proxy: Mapping[str, Any], other: Mapping[str, Any], config: RunConfig
) -> dict[str, float]:
    """Return source that neither proxy was asked to read → its share of the full run's tokens."""
    read = config.build_schedule().tokens()
    total = math.fsum(read.values())
    asked: set[str] = set()
    for one in (proxy, other):
        asked.update(name for name, weight in one["mixture"]["weights"].items() if weight > 0.0)
        for stage in one["schedule"]["stages"].values():
            asked.update(n for n, weight in (stage.get("weights") or {}).items() if weight > 0.0)
    return {n: tokens / total for n, tokens in read.items() if tokens > 0.0 and n not in asked}


def _same_score(proxy: Mapping[str, Any], config: RunConfig) -> bool:
    """Return True if the full run computes its score from the same terms as the proxies."""
    ours, theirs = dump(config.evaluation).get("score"), proxy["evaluation"].get("score")
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
