"""Sentences of a report, including those about what is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from analysis.direction import minimised
from analysis.figures.theme import number
from analysis.report.content import ReportContent
from analysis.report.facts import cost_value, percent
from analysis.report.post_training import method_sentence
from analysis.score_fit import LEVEL

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.verdict.verdict_record import Verdict

__all__ = [
    "EFFECTS",
    "OUTCOMES",
    "answer_parts",
    "audit",
    "caveats",
    "compared",
    "cost",
    "evidence",
    "headline",
    "mixture_in_words",
    "notices",
    "signal",
    "surrogates",
    "under_headline",
]

OUTCOMES: Mapping[str, str] = {
    "winner": "winner",
    "tie": "tie",
    "keep-baseline": "keep the baseline",
}
"""Outcome in the stored verdict → its words in reports."""

EFFECTS: Mapping[str, str] = {
    "gains": "better",
    "pays": "worse",
    "not shown": "no significant difference",
    "blind": "ahead without use of the picture",
    "unknown": "unknown",
}
"""Effect on a task in the stored verdict → its words in reports, better first."""


def headline(content: ReportContent) -> tuple[str, str, str]:
    """Return the outcome, its label, and the verdict in one sentence."""
    verdict = content.loaded.verdict
    if verdict is None:
        return "none", "no verdict", content.loaded.note
    return verdict.outcome, OUTCOMES[verdict.outcome], verdict.sentence


def answer_parts(verdict: Verdict | None) -> tuple[str, str]:
    """Return the advice of the answer, and the range of mixtures that may be best.

    The recorded answer is "RANGE; ADVICE."; the advice comes first on a page. Without an answer in weights
    the advice is the verdict's sentence.
    """
    if verdict is None:
        return "There is no verdict yet.", ""
    span, _, advice = verdict.answer.rpartition("; ")
    if not span:
        return verdict.answer or verdict.sentence, ""
    return f"{advice[0].upper()}{advice[1:]}", f"{span}."


def compared(content: ReportContent) -> Iterator[str]:
    """Yield the two candidates compared, the better and worse tasks, and what a tie means."""
    verdict = content.loaded.verdict
    if verdict is None:
        return
    yield from _compared(content, verdict)
    yield from _effects(verdict)
    if verdict.outcome == "tie" and verdict.reference == verdict.baseline:
        yield f"A tie is a result: the study gives no reason to change from {verdict.reference}."


def under_headline(content: ReportContent) -> Iterator[str]:
    """Yield the lines below a verdict that has no facts beside it: comparison, tasks, risk, next steps."""
    verdict = content.loaded.verdict
    if verdict is None:
        return
    from sweeps.verdict.messages import number as rounded

    yield from compared(content)
    chance = verdict.regret.chance
    if chance is not None:
        yield (
            f"Risk: the chance that {verdict.pick} is worse than {verdict.reference} is "
            f"{percent(chance)}. "
            f"The expected loss is {rounded(verdict.regret.expected, 2)} if it is taken, "
            f"{rounded(verdict.regret.expected_if_kept, 2)} if it is not."
        )
    if verdict.settle_text:
        yield f"What would settle it: {verdict.settle_text}"
    if content.loaded.note:
        yield content.loaded.note


MOST_SOURCES = 6
"""Most sources that a sentence names; the table of trials has all of them."""


def mixture_in_words(weights: Mapping[str, float]) -> str:
    """Return the sources of a mixture with their shares, largest first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    present = [(name, weight) for name, weight in ordered if weight >= 5e-4]
    shown = present if len(present) <= MOST_SOURCES else present[: MOST_SOURCES - 1]
    parts = [f"{name} {100 * weight:.1f}%" for name, weight in shown]
    if rest := present[len(shown) :]:
        parts.append(f"{len(rest)} others {100 * sum(weight for _, weight in rest):.1f}%")
    return ", ".join(parts)


def _compared(content: ReportContent, verdict: Verdict) -> Iterator[str]:
    known = {row.name: row.weights for row in verdict.candidates}
    parts = []
    for name in (verdict.pick, verdict.reference):
        varies = known.get(name) and (content.searched or not content.parameters)
        described = [mixture_in_words(known[name])] if varies else []
        trial = content.trial_of(name)
        values = [
            f"{path} {of_trial[trial]}"
            for path, of_trial in content.parameters.items()
            if trial in of_trial
        ]
        described += values[:MOST_SOURCES]
        if described:
            parts.append(f"{name} is {', '.join(described)}")
    if parts:
        yield f"Compared: {'; '.join(parts)}."


def _effects(verdict: Verdict) -> Iterator[str]:
    """Yield the counts of better and worse tasks; the verdict's sentence names them if there are both."""
    counts = Counter(row.effect for row in verdict.tasks)
    if not counts:
        return
    total, better, worse = len(verdict.tasks), counts["gains"], counts["pays"]
    if not better + worse:
        yield f"Better and worse tasks: none of {total} tasks shows a significant difference."
        return
    shown = [row.task for row in verdict.tasks if row.effect in ("gains", "pays")]
    which = "" if better and worse else f" ({', '.join(shown)})"
    blind = f", {counts['blind']} {EFFECTS['blind']}" if counts["blind"] else ""
    rest = total - better - worse - counts["blind"]
    yield (
        f"Better and worse tasks with {verdict.pick}: {better} of {total} better, {worse} "
        f"worse{which}{blind}; {rest} without a significant difference."
    )


def notices(content: ReportContent) -> Iterator[str]:
    """Yield the warnings at the top of a report."""
    if content.synthetic:
        yield "The records are made up (label synthetic): nothing here was trained."
    if content.running:
        done = content.counts.get("done", 0)
        yield (
            f"The study is still running: {done} of {sum(content.counts.values())} recorded runs "
            "are done. Everything below may change."
        )


def evidence(content: ReportContent) -> Iterator[str]:
    """Yield the evidence for the verdict: runs, score, seed noise, finalists and rule."""
    counts = content.counts
    runs = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    yield f"{len(content.frames.trials)} trials, {sum(counts.values())} runs ({runs})."
    if (trained := method_sentence(content.configs)) is not None:
        yield trained
    yield from content.reused
    yield f"The score is {content.score}."
    if content.seed_sd == content.seed_sd:
        yield (
            "Between two runs that differ only in the seed, the score differs with a standard deviation "
            f"of {number(content.seed_sd * 2**0.5, 2)} (one run: {number(content.seed_sd, 2)})."
        )
    else:
        yield "No trial has two finished runs, so the seed noise of the study is unknown."
    verdict = content.loaded.verdict
    if verdict is None:
        return
    if len(verdict.finalists) > 1:
        shown = ", ".join(verdict.finalists[:8])
        more = f" and {len(verdict.finalists) - 8} more" if len(verdict.finalists) > 8 else ""
        yield f"Not distinguishable from the best: {shown}{more}."
    yield f"Rule: {verdict.rule}"


def caveats(content: ReportContent) -> list[str]:
    """Return the caveats of the verdict."""
    verdict = content.loaded.verdict
    return list(verdict.caveats) if verdict is not None else []


def surrogates(content: ReportContent) -> Iterator[str]:
    """Yield the quality of the best surrogate and its optimum."""
    fit = content.fit
    if fit is None:
        yield "Too few scored mixtures for a surrogate, or none was requested."
        return
    best = fit.leaderboard.iloc[0]
    drawn = f" drawn from {len(content.mixtures)}" if fit.trials < len(content.mixtures) else ""
    yield (
        f"Fitted to the score of {fit.trials} trials{drawn}, compared by {fit.folds}-fold cross-validation. "
        f"{fit.best} has the smallest error: {best['rmse']:.2f} standard deviations of the score, rank "
        f"correlation {best['rank_correlation']:.2f}."
    )
    if best["r2"] < 0.5:
        yield (
            f"It explains only {max(0.0, best['r2']):.0%} of the variance between left-out trials: its "
            "optimum is a guess, not a result."
        )
    yield (
        f"Its optimum among the mixtures covered is {mixture_in_words(fit.optimum)}. This is a "
        "prediction until the mixture has been run."
    )
    tied = _tied_share(content)
    if tied is not None:
        yield (
            f"Of the mixtures covered, {tied:.0%} have a {LEVEL:.0%} interval that reaches the "
            "optimum's prediction: the score alone cannot distinguish them from it."
        )


def _tied_share(content: ReportContent) -> float | None:
    from analysis.figures.mixtures import indistinct

    if content.fit is None or content.mixtures.empty:
        return None
    lower = minimised(content.mixtures)
    return float(indistinct(content.fit.prediction, minimised=lower).mean())


def signal(content: ReportContent) -> Iterator[str]:
    """Yield the results of task quality, which do not change the score."""
    verdict = content.loaded.verdict
    if verdict is None or not verdict.signal:
        yield "Task quality is measured with the verdict."
        return
    warned = [f"{s.task} ({', '.join(s.warnings)})" for s in verdict.signal if s.warnings]
    good = len(verdict.signal) - len(warned)
    yield f"{good} of {len(verdict.signal)} metrics meet each criterion."
    if warned:
        yield f"With warnings: {'; '.join(warned)}. They still count in the score."


def audit(content: ReportContent, realised: pd.DataFrame) -> Iterator[str]:
    """Yield the result of the audits: whether runs read the mixture that was requested."""
    if realised.empty:
        yield "No run has been audited yet."
        return
    runs, failing = realised["run"].nunique(), realised.loc[realised["fails"], "run"].nunique()
    gap = realised["gap"].abs().max()
    tolerance = realised["tolerance"].max()
    result = (
        f"All {runs} audited runs read the requested mixture"
        if not failing
        else f"{failing} of {runs} audited runs did not read the requested mixture"
    )
    yield f"{result}: the largest gap is {gap:.3f} percentage points, {tolerance:.3f} are allowed."
    missing = len(content.frames.runs) - runs
    if missing:
        yield f"{missing} runs have no audit, because a run is audited when it has finished."


def cost(content: ReportContent) -> Iterator[str]:
    """Yield the cost of the study."""
    frame = content.frames.cost
    if float(frame[["train_cpu_seconds", "eval_cpu_seconds", "wall_seconds"]].sum().sum()) <= 0:
        yield "No run has recorded its cost yet."
        return
    yield (
        f"{cost_value(content)}, {float(frame['flops'].sum()):.3g} training FLOPs, "
        f"{int(frame['tokens'].fillna(0).sum()):,} {content.counted} trained on."
    )
    for one in content.promoted:
        if content.study not in one.after:
            yield f"The full run {one.full} of promotion {one.name}: {one.cost}, an estimate."
        if one.after:
            steps = ", then ".join(f"the pick of study {study}" for study in one.after)
            yield f"Promotion {one.name} goes on after its full run {one.full}: {steps}."
