"""From observations to a verdict.

    Observations ─▶ signal of tasks ─▶ score over the tasks that vote ─▶ means, noise ─▶ rule ─▶ Verdict
                                                                          │
                                     items: paired noise, bootstrap ──────┘

Where the study added fresh seeds after it had chosen its finalists, only those count for the
candidates: the scores they were chosen by flatter them. The baseline was not chosen by its scores, so
all its runs count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ablations.errors import ConfigError, Problem, UserError, unknown_name
from sweeps.verdict import words
from sweeps.verdict.contrasts import Estimate, Evidence
from sweeps.verdict.decision import Judgement, best_first, equivalence_p, judge
from sweeps.verdict.items import hierarchical_bootstrap, item_covariance, permutation_p
from sweeps.verdict.noise import (
    Floats,
    MeansFit,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
    mean_noise,
)
from sweeps.verdict.observations import Observations, score_weights, weighted
from sweeps.verdict.power import Settle, settle
from sweeps.verdict.record import CandidateRow, NoiseRow, Verdict
from sweeps.verdict.signal import Signal
from sweeps.verdict.tasks import task_rows, task_signals

__all__ = ["VerdictOptions", "decide"]


@dataclass(frozen=True, kw_only=True)
class VerdictOptions:
    """How a verdict is asked for."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    baseline: str | None = None
    """Candidate to beat, by name or trial; null = the first baseline of the study, or none."""
    pick: str | None = None
    """Candidate proposed; null = the best mean."""
    alpha: float = 0.05
    """Two-sided error rate of the study as a whole."""
    margin: float = 0.0
    """Differences within it do not matter, in score units; 0 = every difference matters."""
    effect: float | None = None
    """A difference for which to say what would show it, in score units; null = the one seen."""
    last_checkpoints: int = 5
    """Checkpoints of each run that count as late, for noise and the stability of rankings."""
    run_sd: float | None = None
    """Declared training noise (SD of the score of one run), where the study has none of its own."""

    def __post_init__(self) -> None:
        problems = [
            Problem(name, "out of range", found=value, allowed=allowed)
            for name, value, good, allowed in (
                ("alpha", self.alpha, 0.0 < self.alpha < 1.0, "0 < alpha < 1"),
                ("margin", self.margin, self.margin >= 0.0, ">= 0"),
                ("effect", self.effect, self.effect is None or self.effect > 0.0, "> 0"),
                ("last_checkpoints", self.last_checkpoints, self.last_checkpoints >= 3, ">= 3"),
                ("run_sd", self.run_sd, self.run_sd is None or self.run_sd > 0.0, "> 0"),
            )
            if not good
        ]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Observations with what was worked out of them on the way to the verdict."""

    observed: Observations
    """The runs that count."""
    fit: MeansFit
    evidence: Evidence
    weights: Mapping[str, float]
    """What one unit of each voting metric is worth in the oriented score."""
    caveats: tuple[str, ...]


def decide(observed: Observations, options: VerdictOptions | None = None) -> Verdict:
    """The verdict on a study.

    Raises:
        UserError: fewer than two candidates have a score.
        ConfigError: the baseline or the pick is not a candidate.
    """
    options = options or VerdictOptions()
    if len(observed.candidates) < 2:
        raise UserError(_too_few(observed))
    names = {c.trial: c.name for c in observed.candidates}
    baseline = _candidate("baseline", options.baseline or observed.first_baseline, names)
    pick = _candidate("pick", options.pick, names)
    if pick is not None and pick == baseline:
        raise ConfigError(Problem("pick", "is the baseline itself", found=pick))
    signals = task_signals(observed, options.last_checkpoints)
    counted, confirmed = _fresh_runs(_allowed(observed, baseline), baseline)
    _require_counted(pick, observed, counted)
    case = _case(counted, signals, options)
    judged = judge(
        case.evidence, baseline=baseline, pick=pick, margin=options.margin, shrink=not confirmed
    )
    return _verdict(case, judged, signals, options, baseline=baseline, confirmed=confirmed)


def _too_few(observed: Observations) -> Problem:
    left = "; ".join(f"{run}: {why}" for run, why in list(observed.left_out.items())[:5])
    return Problem(
        f"study {observed.study!r}",
        "a verdict compares at least two candidates with scores",
        found=f"{len(observed.candidates)} ({left})" if left else len(observed.candidates),
        do="run more trials of it",
    )


def _candidate(where: str, asked: str | None, names: Mapping[str, str]) -> str | None:
    """The name of the candidate that was asked for by name or trial."""
    if asked is None or asked in names.values():
        return asked
    if asked not in names:
        raise ConfigError(unknown_name(where, "candidate", asked, {*names, *names.values()}))
    return names[asked]


def _require_counted(pick: str | None, observed: Observations, counted: Observations) -> None:
    """Refuse a pick whose runs do not count, with the reason."""
    if pick is None or any(candidate.name == pick for candidate in counted.candidates):
        return
    candidate = next(c for c in observed.candidates if c.name == pick)
    raise ConfigError(
        Problem(
            "pick",
            f"{pick} cannot be judged",
            found=candidate.breaks or "it has no fresh seeds, and others have",
            allowed=", ".join(candidate.name for candidate in counted.candidates),
        )
    )


def _allowed(observed: Observations, baseline: str | None) -> Observations:
    """Without the candidates that break a constraint of the study: they cannot be picked."""
    out = [c.breaks is not None and c.name != baseline for c in observed.candidates]
    if not any(out):
        return observed
    kept = observed.keep([not out[run.candidate] for run in observed.runs])
    why = {
        run.name: str(observed.candidates[run.candidate].breaks)
        for run in observed.runs
        if out[run.candidate]
    }
    kept = replace(kept, left_out={**observed.left_out, **why})
    if len(kept.candidates) < 2:
        raise UserError(_too_few(kept))
    return kept


def _fresh_runs(observed: Observations, baseline: str | None) -> tuple[Observations, bool]:
    """The runs that count, and whether they are fresh: not those that the pick was chosen by."""
    own = [observed.candidates[run.candidate].name == baseline for run in observed.runs]
    fresh = [run.confirms for run in observed.runs]
    confirmed = {
        run.candidate for run, f, o in zip(observed.runs, fresh, own, strict=True) if f > o
    }
    enough = len(confirmed) >= (1 if any(own) else 2)
    if not enough:
        return observed, False
    return observed.keep([f or o for f, o in zip(fresh, own, strict=True)]), True


def _case(observed: Observations, signals: tuple[Signal, ...], options: VerdictOptions) -> _Case:
    caveats = []
    mute = {signal.task for signal in signals if not signal.votes}
    full, _ = score_weights(observed.rule, observed.direction, observed.tasks)
    voting = [task for task in observed.tasks if task.key not in mute]
    weights, constant = score_weights(observed.rule, observed.direction, voting)
    scores = np.array([run.score for run in observed.runs])
    if set(weights) != set(full) and weights:
        scores = constant + weighted(voting, weights)
        caveats.append(words.without_vote(sorted(set(full) - set(weights))))
    elif full and not weights:
        weights = full
        caveats.append("No task of the score carries signal: the scores say little.")
    observed, scores, lost = _without_missing(observed, scores)
    if lost:
        caveats.append(f"{lost} run(s) lack a metric of the score and were left out.")
    oriented = {key: observed.sign * weight for key, weight in weights.items()}
    fit = fit_means(observed.run_scores(observed.sign * scores))
    noise, said = _noise(observed, fit, oriented, options)
    items, item_df = _items(observed, oriented)
    evidence = Evidence(
        names=tuple(candidate.name for candidate in observed.candidates),
        means=fit.means,
        unit=fit.unit,
        noise=noise,
        item_covariance=items,
        item_df=item_df,
        alpha=options.alpha,
    )
    silent = bool(full) and not any(task.key in full and task.key not in mute for task in voting)
    if silent:
        evidence = replace(evidence, noise=TrainingNoise.unknown())
    return _Case(
        observed=observed,
        fit=fit,
        evidence=evidence,
        weights=oriented,
        caveats=(*caveats, *said),
    )


def _without_missing(observed: Observations, scores: Floats) -> tuple[Observations, Floats, int]:
    known = np.isfinite(scores)
    if known.all():
        return observed, scores, 0
    kept = observed.keep(known.tolist())
    if len(kept.candidates) < 2:
        raise UserError(_too_few(kept))
    return kept, scores[known], int((~known).sum())


def _noise(
    observed: Observations, fit: MeansFit, weights: Mapping[str, float], options: VerdictOptions
) -> tuple[TrainingNoise, list[str]]:
    """The training noise of the score, and what has to be said of it."""
    seeds, said = fit.noise, []
    if seeds.known and seeds.variance <= 0.0:
        said.append("Replicates are identical to the last bit, so they say nothing of the noise.")
        seeds = TrainingNoise.unknown()
    late = checkpoint_noise(observed.score_trajectories, options.last_checkpoints)
    if options.run_sd is not None:
        declared = TrainingNoise(
            variance=options.run_sd**2, df=observed.published_df, source="published"
        )
        late = late if seeds.known else TrainingNoise.unknown()
    else:
        sds = {t.key: t.published_sd for t in observed.tasks if t.published_sd is not None}
        declared = mean_noise(sds, weights, observed.published_df)
    noise = combine(seeds, late if late.variance > 0.0 else TrainingNoise.unknown(), declared)
    return noise, said + words.noise_caveats(noise)


def _items(observed: Observations, weights: Mapping[str, float]) -> tuple[Floats | None, float]:
    voting = [task for task in observed.tasks if task.key in weights]
    tables = [task.items for task in voting if task.items is not None]
    if not tables or len(tables) < len(voting):
        return None, math.inf
    owner = np.array([run.candidate for run in observed.runs])
    return item_covariance(tables, [weights[task.key] for task in voting], owner)


def _verdict(
    case: _Case,
    judged: Judgement,
    signals: tuple[Signal, ...],
    options: VerdictOptions,
    *,
    baseline: str | None,
    confirmed: bool,
) -> Verdict:
    observed, ruling = case.observed, judged.ruling
    advantage = ruling.advantage
    settled = _settled(case, judged, options)
    verdict = Verdict(
        study=observed.study,
        outcome=ruling.outcome,
        tie_kind=ruling.tie_kind,
        sentence="",
        pick=ruling.pick,
        baseline=baseline,
        reference=ruling.reference,
        direction=observed.direction,
        score=observed.score,
        advantage=advantage,
        equivalence_p=equivalence_p(advantage, options.margin) if options.margin else None,
        regret=judged.regret,
        finalists=judged.finalists,
        candidates=_candidates(case, judged),
        tasks=task_rows(
            observed,
            case.weights,
            signals,
            pick=ruling.pick,
            reference=ruling.reference,
            alpha=options.alpha,
            last=options.last_checkpoints,
        ),
        signal=signals,
        transfer=observed.transfer,
        settle=settled,
        settle_text=words.settle_text(ruling.outcome, settled, ruling.pick, ruling.reference),
        noise=_noise_row(case, judged),
        confirmed=confirmed,
        alpha=options.alpha,
        margin=options.margin,
        rule=words.rule(options.alpha, options.margin, baseline),
        caveats=(
            *observed.caveats,
            *case.caveats,
            *words.selection_caveats(case.evidence, confirmed),
        ),
        runs=tuple(run.name for run in observed.runs),
        left_out=dict(observed.left_out),
        created=time.time(),
    )
    return replace(verdict, sentence=words.sentence(verdict))


def _candidates(case: _Case, judged: Judgement) -> tuple[CandidateRow, ...]:
    rows = []
    for k, candidate in enumerate(case.observed.candidates):
        seeds = sorted(run.seed for run in case.observed.runs if run.candidate == k)
        rows.append(
            CandidateRow(
                name=candidate.name,
                trial=candidate.trial,
                seeds=tuple(seeds),
                mean=float(case.observed.sign * case.fit.means[k]),
                advantage=judged.ruling.advantages.get(candidate.name),
                finalist=candidate.name in judged.finalists,
                weights=dict(candidate.weights),
            )
        )
    order = best_first(case.evidence)
    return tuple(sorted(rows, key=lambda row: order.index(row.name)))


def _noise_row(case: _Case, judged: Judgement) -> NoiseRow:
    pick, reference = judged.ruling.pick, judged.ruling.reference
    rows = [_rows_of(case, name) for name in (pick, reference)]
    noise = case.evidence.noise
    scores = np.array([run.score for run in case.observed.runs]) * case.observed.sign
    # Two runs against two can reach no p-value below 1/3: such a test is no evidence either way.
    exact = min(len(r) for r in rows) >= 3
    return NoiseRow(
        source=noise.source,
        run_sd=noise.sd if noise.known else None,
        df=noise.df,
        item_error=_item_error(case.evidence, judged),
        blocked=case.fit.blocked,
        bootstrap=_bootstrap(case, rows, noise),
        permutation_p=permutation_p(scores[rows[0]], scores[rows[1]]) if exact else None,
    )


def _rows_of(case: _Case, name: str) -> list[int]:
    """The rows of a candidate's runs, by seed."""
    k = case.evidence.names.index(name)
    found = [i for i, run in enumerate(case.observed.runs) if run.candidate == k]
    return sorted(found, key=lambda i: case.observed.runs[i].seed)


def _item_variance(evidence: Evidence, judged: Judgement) -> float:
    if evidence.item_covariance is None:
        return 0.0
    contrast = np.zeros(len(evidence.names))
    contrast[evidence.names.index(judged.ruling.pick)] = 1.0
    contrast[evidence.names.index(judged.ruling.reference)] = -1.0
    return max(0.0, float(contrast @ evidence.item_covariance @ contrast))


def _item_error(evidence: Evidence, judged: Judgement) -> float | None:
    if evidence.item_covariance is None:
        return None
    return math.sqrt(_item_variance(evidence, judged))


def _bootstrap(
    case: _Case, rows: list[list[int]], noise: TrainingNoise
) -> tuple[float, float] | None:
    voting = [task for task in case.observed.tasks if task.key in case.weights]
    tables = [task.items for task in voting if task.items is not None]
    if not tables or len(tables) < len(voting) or not noise.known:
        return None
    first, second = ([table[rows_of] for table in tables] for rows_of in rows)
    seeds = [[case.observed.runs[i].seed for i in rows_of] for rows_of in rows]
    draws = hierarchical_bootstrap(
        first,
        second,
        [case.weights[task.key] for task in voting],
        run_sd=noise.sd,
        shared_seeds=case.fit.blocked and seeds[0] == seeds[1],
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _settled(case: _Case, judged: Judgement, options: VerdictOptions) -> tuple[Settle, ...]:
    advantage: Estimate = judged.ruling.advantage
    noise = case.evidence.noise
    if not noise.known:
        return ()
    return tuple(
        settle(
            effect=effect,
            standard_error=advantage.standard_error,
            df=advantage.df,
            run_variance=noise.variance,
            item_variance=_item_variance(case.evidence, judged),
            seeds_now=min(
                len(_rows_of(case, n)) for n in (judged.ruling.pick, judged.ruling.reference)
            ),
            alpha=options.alpha,
        )
        for effect in [advantage.value, *([options.effect] if options.effect else [])]
    )
