"""Decision: compute the verdict of a study from its observations.

    Observations ─▶ declared objective of each run ─▶ means, noise ─▶ rule ─▶ Verdict
                                                        │
                   items: paired noise, bootstrap ──────┘

If the study added fresh seeds after it had chosen its finalists, only those count for the candidates:
the scores that they were chosen by are too good by selection. The baseline was not chosen by its scores,
so all its runs count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ablations.errors import ConfigError, Problem, UserError, unknown_name
from sweeps.verdict import messages
from sweeps.verdict.analysis_inputs import AnalysisInputs, VerdictOptions, prepare_inputs, too_few
from sweeps.verdict.answer import Tested, all_tested, answer, not_ruled_out
from sweeps.verdict.contrasts import Estimate, Evidence, Selection
from sweeps.verdict.covariance import variances
from sweeps.verdict.decision import Judgement, Ruling, best_first, equivalence_p, judge
from sweeps.verdict.item_noise import hierarchical_bootstrap, permutation_p
from sweeps.verdict.observations import Observations
from sweeps.verdict.pictures import PictureUse, picture_use
from sweeps.verdict.power import PowerEstimate, estimate_power
from sweeps.verdict.task_effects import task_rows
from sweeps.verdict.task_quality import TaskQuality, task_qualities
from sweeps.verdict.training_noise import TrainingNoise
from sweeps.verdict.verdict_record import CandidateRow, NoiseRow, Verdict

__all__ = ["VerdictOptions", "decide", "selection"]


def decide(observed: Observations, options: VerdictOptions | None = None) -> Verdict:
    """Return the verdict on a study.

    Args:
        observed: All runs of the study.
        options: Options of the verdict; the defaults if None.

    Raises:
        UserError: fewer than two candidates have a score.
        ConfigError: the baseline or the pick is not a candidate.
    """
    options = options or VerdictOptions()
    if len(observed.candidates) < 2:
        raise UserError(too_few(observed))
    names = {c.trial: c.name for c in observed.candidates}
    baseline = _candidate("baseline", options.baseline or observed.first_baseline, names)
    pick = _candidate("pick", options.pick, names)
    if pick is not None and pick == baseline:
        raise ConfigError(Problem("pick", "is the baseline itself", found=pick))
    qualities = task_qualities(observed, options.last_checkpoints)
    allowed = _allowed(observed, baseline)
    counted, confirmed = _fresh_runs(allowed, baseline)
    inputs = prepare_inputs(counted, options)
    if confirmed:
        chosen = selection(observed, inputs.observed, baseline)
        inputs = replace(inputs, evidence=replace(inputs.evidence, selection=chosen))
    for where, name in (("baseline", baseline), ("pick", pick)):
        _require_counted(where, name, observed, inputs.observed)
    judged = judge(
        inputs.evidence, baseline=baseline, pick=pick, margin=options.margin, shrink=not confirmed
    )
    use = _picture_use(inputs, options, baseline)
    judged = use.withhold(judged, inputs.evidence, baseline)
    views = _views(inputs.observed, judged.ruling, "the plain mean of the runs that count")
    if confirmed:
        views |= _views(allowed, judged.ruling, "the mean of all its runs, search included,")
    verdict = _verdict(
        inputs, judged, qualities, options, views, baseline=baseline, confirmed=confirmed
    )
    verdict = _with_pictures(verdict, use)
    searched = _searched(allowed, verdict, options) if confirmed else ()
    found = {one.trial: one.may_be_best for one in all_tested(verdict, searched)}
    verdict = replace(verdict, answer=answer(verdict, searched), may_be_best=found)
    return replace(verdict, sentence=messages.sentence(verdict))


def _picture_use(
    inputs: AnalysisInputs, options: VerdictOptions, baseline: str | None
) -> PictureUse:
    return picture_use(
        inputs.observed,
        inputs.weights,
        baseline=baseline,
        alpha=options.alpha,
        last=options.last_checkpoints,
    )


def _with_pictures(verdict: Verdict, use: PictureUse) -> Verdict:
    """Return the verdict with the use of pictures; the same one in a study without any."""
    rows = use.of(verdict.pick, verdict.reference)
    if not rows:
        return verdict
    verdict = replace(
        verdict,
        pictures=rows,
        tasks=use.effects(verdict.tasks, verdict.pick, verdict.reference),
        rule=f"{verdict.rule} {messages.picture_rule(verdict.alpha)}",
        caveats=(*verdict.caveats, *messages.picture_caveats(rows)),
    )
    return (
        replace(verdict, settle_text=messages.train_longer(verdict.blind))
        if verdict.blind
        else verdict
    )


def _searched(
    allowed: Observations, verdict: Verdict, options: VerdictOptions
) -> tuple[Tested, ...]:
    """Return the trials that were searched and not confirmed, compared over all runs of the study."""
    inputs = prepare_inputs(allowed, options)
    best = not_ruled_out(inputs.evidence)
    if _picture_use(inputs, options, verdict.baseline).blind(best_first(inputs.evidence)[0]):
        best = frozenset(inputs.evidence.names)
    compared = {row.name for row in verdict.candidates}
    return tuple(
        Tested(candidate.trial, candidate.weights, candidate.name in best)
        for candidate in inputs.observed.candidates
        if candidate.name not in compared
    )


def _views(observed: Observations, ruling: Ruling, view: str) -> dict[str, float]:
    """Return the advantage of the pick by the plain mean of the declared objective over ``observed``."""
    means = []
    for name in (ruling.pick, ruling.reference):
        scores = [
            run.score
            for run in observed.runs
            if observed.candidates[run.candidate].name == name and math.isfinite(run.score)
        ]
        means.append(math.fsum(scores) / len(scores))
    return {view: observed.sign * (means[0] - means[1])}


def _candidate(where: str, asked: str | None, names: Mapping[str, str]) -> str | None:
    """Return the name of the candidate that was asked for by name or trial."""
    if asked is None or asked in names.values():
        return asked
    if asked not in names:
        raise ConfigError(unknown_name(where, "candidate", asked, {*names, *names.values()}))
    return names[asked]


def _require_counted(
    where: str, name: str | None, observed: Observations, counted: Observations
) -> None:
    """Refuse a baseline or a pick without a run that counts, with the reason."""
    if name is None or any(candidate.name == name for candidate in counted.candidates):
        return
    candidate = next(c for c in observed.candidates if c.name == name)
    fresh = "it has no fresh seeds, and others have"
    missing = "its scores are missing" if where == "baseline" else fresh
    raise ConfigError(
        Problem(
            where,
            f"{name} cannot be judged",
            found=candidate.breaks or missing,
            allowed=", ".join(candidate.name for candidate in counted.candidates),
        )
    )


def _allowed(observed: Observations, baseline: str | None) -> Observations:
    """Return the observations without the candidates that break a constraint of the study."""
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
        raise UserError(too_few(kept))
    return kept


def _fresh_runs(observed: Observations, baseline: str | None) -> tuple[Observations, bool]:
    """Return the runs that count, and True if they are fresh: not those that the pick was chosen by."""
    own = [observed.candidates[run.candidate].name == baseline for run in observed.runs]
    fresh = [run.confirms for run in observed.runs]
    confirmed = {
        run.candidate for run, f, o in zip(observed.runs, fresh, own, strict=True) if f > o
    }
    enough = len(confirmed) >= (1 if any(own) else 2)
    if not enough:
        return observed, False
    return observed.keep([f or o for f, o in zip(fresh, own, strict=True)]), True


def selection(
    observed: Observations, counted: Observations, baseline: str | None
) -> Selection | None:
    """Return how confirmed candidates were chosen; None if all searched candidates are compared.

    Args:
        observed: All runs of the study.
        counted: The runs that count for the verdict.
        baseline: Name of the baseline, which was not chosen by its scores.
    """
    names = {candidate.name for candidate in counted.candidates} - {baseline}
    first = [observed.candidates[run.candidate].name for run in observed.runs if not run.confirms]
    searched = set(first) - {baseline}
    if len(searched) <= len(names):
        return None
    return Selection(
        searched=len(searched),
        seeds=sum(name != baseline for name in first) / len(searched),
        unchosen=() if baseline is None else (baseline,),
    )


def _verdict(
    inputs: AnalysisInputs,
    judged: Judgement,
    qualities: tuple[TaskQuality, ...],
    options: VerdictOptions,
    views: Mapping[str, float],
    *,
    baseline: str | None,
    confirmed: bool,
) -> Verdict:
    observed, ruling = inputs.observed, judged.ruling
    advantage = ruling.advantage
    settled = _settled(inputs, judged, options)
    return Verdict(
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
        candidates=_candidates(inputs, judged),
        tasks=task_rows(
            observed,
            inputs.weights,
            pick=ruling.pick,
            reference=ruling.reference,
            alpha=options.alpha,
            last=options.last_checkpoints,
        ),
        signal=qualities,
        transfer=observed.transfer,
        settle=settled,
        settle_text=messages.settle_text(ruling.outcome, settled, ruling.pick, ruling.reference),
        noise=_noise_row(inputs, judged),
        confirmed=confirmed,
        alpha=options.alpha,
        margin=options.margin,
        rule=messages.rule(options.alpha, options.margin, baseline),
        caveats=(
            *observed.caveats,
            *inputs.caveats,
            *messages.selection_caveats(inputs.evidence, confirmed),
        ),
        runs=tuple(run.name for run in observed.runs),
        left_out=dict(observed.left_out),
        created=time.time(),
        objective=observed.objective,
        question=observed.question,
        disagreements=messages.disagreements(ruling.pick, ruling.reference, advantage.value, views),
    )


def _candidates(inputs: AnalysisInputs, judged: Judgement) -> tuple[CandidateRow, ...]:
    rows = []
    seeds_of: list[list[int]] = [[] for _ in inputs.observed.candidates]
    for run in inputs.observed.runs:
        seeds_of[run.candidate].append(run.seed)
    finalists = frozenset(judged.finalists)
    for k, candidate in enumerate(inputs.observed.candidates):
        rows.append(
            CandidateRow(
                name=candidate.name,
                trial=candidate.trial,
                seeds=tuple(sorted(seeds_of[k])),
                mean=float(inputs.observed.sign * inputs.fit.means[k]),
                advantage=judged.ruling.advantages.get(candidate.name),
                finalist=candidate.name in finalists,
                weights=dict(candidate.weights),
            )
        )
    order = {name: place for place, name in enumerate(best_first(inputs.evidence))}
    return tuple(sorted(rows, key=lambda row: order[row.name]))


def _noise_row(inputs: AnalysisInputs, judged: Judgement) -> NoiseRow:
    pick, reference = judged.ruling.pick, judged.ruling.reference
    rows = [_rows_of(inputs, name) for name in (pick, reference)]
    noise = inputs.evidence.noise
    # Two runs against two cannot reach a p-value below 1/3: such a test is no evidence either way.
    exact = min(len(r) for r in rows) >= 3
    return NoiseRow(
        source=noise.source,
        run_sd=noise.sd if noise.known else None,
        df=noise.df,
        item_error=_item_error(inputs.evidence, judged),
        blocked=inputs.fit.blocked,
        bootstrap=_bootstrap(inputs, rows, noise),
        permutation_p=permutation_p(inputs.scores[rows[0]], inputs.scores[rows[1]])
        if exact
        else None,
    )


def _rows_of(inputs: AnalysisInputs, name: str) -> list[int]:
    """Return the rows of a candidate's runs, in the order of their seeds."""
    k = inputs.evidence.names.index(name)
    found = [i for i, run in enumerate(inputs.observed.runs) if run.candidate == k]
    return sorted(found, key=lambda i: inputs.observed.runs[i].seed)


def _item_variance(evidence: Evidence, judged: Judgement) -> float:
    if evidence.item_covariance is None:
        return 0.0
    contrast = np.zeros(len(evidence.names))
    contrast[evidence.names.index(judged.ruling.pick)] = 1.0
    contrast[evidence.names.index(judged.ruling.reference)] = -1.0
    return max(0.0, float(variances(evidence.item_covariance, contrast[None, :])[0]))


def _item_error(evidence: Evidence, judged: Judgement) -> float | None:
    if evidence.item_covariance is None:
        return None
    return math.sqrt(_item_variance(evidence, judged))


def _bootstrap(
    inputs: AnalysisInputs, rows: list[list[int]], noise: TrainingNoise
) -> tuple[float, float] | None:
    counted_tasks = [task for task in inputs.observed.tasks if task.key in inputs.weights]
    tables = [task.items for task in counted_tasks if task.items is not None]
    if not tables or len(tables) < len(counted_tasks) or not noise.known:
        return None
    first, second = ([table[rows_of] for table in tables] for rows_of in rows)
    seeds = [[inputs.observed.runs[i].seed for i in rows_of] for rows_of in rows]
    draws = hierarchical_bootstrap(
        first,
        second,
        [inputs.weights[task.key] for task in counted_tasks],
        run_sd=noise.sd,
        shared_seeds=inputs.fit.blocked and seeds[0] == seeds[1],
        groups=[task.groups for task in counted_tasks],
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _settled(
    inputs: AnalysisInputs, judged: Judgement, options: VerdictOptions
) -> tuple[PowerEstimate, ...]:
    advantage: Estimate = judged.ruling.advantage
    noise = inputs.evidence.noise
    if not noise.known:
        return ()
    return tuple(
        estimate_power(
            effect=effect,
            standard_error=advantage.standard_error,
            df=advantage.df,
            run_variance=noise.variance,
            item_variance=_item_variance(inputs.evidence, judged),
            seeds_now=min(
                len(_rows_of(inputs, n)) for n in (judged.ruling.pick, judged.ruling.reference)
            ),
            alpha=options.alpha,
        )
        for effect in [advantage.value, *([options.effect] if options.effect else [])]
    )
