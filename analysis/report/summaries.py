"""What a report says in words. It says what is not known as plainly as what is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from analysis.figures.theme import number
from analysis.report.content import ReportContent
from analysis.score_fit import LEVEL

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.verdict.verdict_record import Verdict

__all__ = [
    "audit",
    "caveats",
    "cost",
    "evidence",
    "headline",
    "mixture_in_words",
    "notices",
    "signal",
    "surrogates",
    "under_headline",
]

_LABELS = {
    "winner": "winner",
    "tie": "tie",
    "keep-baseline": "keep the baseline",
    "none": "no verdict",
}


def headline(content: ReportContent) -> tuple[str, str, str]:
    """Outcome, its label, and the verdict in one sentence."""
    verdict = content.judged.verdict
    if verdict is None:
        return "none", _LABELS["none"], content.judged.note
    return verdict.outcome, _LABELS[verdict.outcome], verdict.sentence


def under_headline(content: ReportContent) -> Iterator[str]:
    """What stands under the sentence: what was compared, who gains, the risk, what would settle it."""
    verdict = content.judged.verdict
    if verdict is None:
        return
    yield from _compared(verdict)
    yield from _effects(verdict)
    chance = verdict.regret.chance
    if chance is not None:
        yield (
            f"Risk: the chance that {verdict.pick} is worse than {verdict.reference} is {chance:.1%}. "
            f"Expected loss {number(verdict.regret.expected, 2)} if it is taken, "
            f"{number(verdict.regret.expected_if_kept, 2)} if it is not."
        )
    if verdict.outcome == "tie" and verdict.reference == verdict.baseline:
        yield f"A tie is an answer: the study gives no reason to leave {verdict.reference}."
    if verdict.settle_text:
        yield f"What would settle it: {verdict.settle_text}"
    if content.judged.note:
        yield content.judged.note


MOST_SOURCES = 6
"""Sources that a sentence names; the tables of trials hold the rest."""


def mixture_in_words(weights: Mapping[str, float]) -> str:
    """The sources of a mixture with their shares, the largest first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    present = [(name, weight) for name, weight in ordered if weight >= 5e-4]
    shown = present if len(present) <= MOST_SOURCES else present[: MOST_SOURCES - 1]
    said = [f"{name} {100 * weight:.1f}%" for name, weight in shown]
    if rest := present[len(shown) :]:
        said.append(f"{len(rest)} others {100 * sum(weight for _, weight in rest):.1f}%")
    return ", ".join(said)


def _compared(verdict: Verdict) -> Iterator[str]:
    known = {row.name: row.weights for row in verdict.candidates}
    said = [
        f"{name} is {mixture_in_words(known[name])}"
        for name in (verdict.pick, verdict.reference)
        if known.get(name)
    ]
    if said:
        yield f"Compared: {'; '.join(said)}."


def _effects(verdict: Verdict) -> Iterator[str]:
    """How many tasks gain and pay, and which; the verdict's own sentence names them where there are both."""
    counts = Counter(row.effect for row in verdict.tasks)
    if not counts:
        return
    total, gain, pay = len(verdict.tasks), counts["gains"], counts["pays"]
    if not gain + pay:
        yield f"Who gains, who pays: none of {total} tasks shows a difference."
        return
    shown = [row.task for row in verdict.tasks if row.effect in ("gains", "pays")]
    which = "" if gain and pay else f" ({', '.join(shown)})"
    yield (
        f"Who gains, who pays: of {total} tasks {gain} gain and {pay} pay with {verdict.pick}{which}; "
        f"{total - gain - pay} show no difference."
    )


def notices(content: ReportContent) -> Iterator[str]:
    """What has to be known before anything is read."""
    if content.synthetic:
        yield "The records are made up (label synthetic): nothing here was trained."
    if content.running:
        done = content.counts.get("done", 0)
        yield (
            f"The study is still running: {done} of {sum(content.counts.values())} recorded runs "
            "are done. Everything below may change."
        )


def evidence(content: ReportContent) -> Iterator[str]:
    """What the verdict rests on."""
    counts = content.counts
    runs = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    yield f"{len(content.frames.trials)} trials, {sum(counts.values())} runs ({runs})."
    yield f"The score is {content.score}."
    if content.seed_sd == content.seed_sd:
        yield (
            f"Two runs that differ in the seed alone differ by a standard deviation of "
            f"{number(content.seed_sd * 2**0.5, 2)} in the score (one run: {number(content.seed_sd, 2)})."
        )
    else:
        yield "No trial has two finished runs, so the study does not say how large its seed noise is."
    verdict = content.judged.verdict
    if verdict is None:
        return
    if len(verdict.finalists) > 1:
        shown = ", ".join(verdict.finalists[:8])
        more = f" and {len(verdict.finalists) - 8} more" if len(verdict.finalists) > 8 else ""
        yield f"Cannot be told apart from the best: {shown}{more}."
    yield f"Rule: {verdict.rule}"


def caveats(content: ReportContent) -> list[str]:
    """What the verdict itself warns of."""
    verdict = content.judged.verdict
    return list(verdict.caveats) if verdict is not None else []


def surrogates(content: ReportContent) -> Iterator[str]:
    """Which surrogate to believe, and how far."""
    fit = content.fit
    if fit is None:
        yield "Too few scored mixtures for a surrogate, or none was asked for."
        return
    best = fit.leaderboard.iloc[0]
    drawn = f" drawn from {len(content.mixtures)}" if fit.trials < len(content.mixtures) else ""
    yield (
        f"Fitted to the score of {fit.trials} trials{drawn}, compared by {fit.folds}-fold cross-validation. "
        f"{fit.best} errs least: {best['rmse']:.2f} standard deviations of the score, rank "
        f"correlation {best['rank_correlation']:.2f}."
    )
    if best["r2"] < 0.5:
        yield (
            f"It explains {max(0.0, best['r2']):.0%} of the variance between left-out trials: its "
            "optimum is a guess, not a result."
        )
    yield (
        "Its optimum among the mixtures that were covered: "
        f"{mixture_in_words(fit.optimum)}: a prediction, until it has been run."
    )
    tied = _tied_share(content)
    if tied is not None:
        yield (
            f"Of the mixtures covered, {tied:.0%} have a {LEVEL:.0%} interval that reaches the "
            "optimum's prediction: the score alone cannot tell them from it."
        )


def _tied_share(content: ReportContent) -> float | None:
    from analysis.figures.mixtures import indistinct

    if content.fit is None or content.mixtures.empty:
        return None
    minimised = bool((content.mixtures["direction"] == "minimize").any())
    return float(indistinct(content.fit.prediction, minimised=minimised).mean())


def signal(content: ReportContent) -> Iterator[str]:
    """Yield what task quality shows; it is reported and changes no score."""
    verdict = content.judged.verdict
    if verdict is None or not verdict.signal:
        yield "Task quality is measured with the verdict."
        return
    warned = [f"{s.task} ({', '.join(s.warnings)})" for s in verdict.signal if s.warnings]
    good = len(verdict.signal) - len(warned)
    yield f"{good} of {len(verdict.signal)} metrics meet each criterion."
    if warned:
        yield f"With warnings: {'; '.join(warned)}. They count in the score all the same."


def audit(content: ReportContent, realised: pd.DataFrame) -> Iterator[str]:
    """Whether what was read is what was asked for."""
    if realised.empty:
        yield "No run has been audited yet."
        return
    runs, failing = realised["run"].nunique(), realised.loc[realised["fails"], "run"].nunique()
    gap = realised["gap"].abs().max()
    tolerance = realised["tolerance"].max()
    said = (
        f"All {runs} audited runs read the mixture that they were asked to"
        if not failing
        else f"{failing} of {runs} audited runs did not read the mixture that they were asked to"
    )
    yield f"{said}: the largest gap is {gap:.3f} points of 100, {tolerance:.3f} are allowed."
    missing = len(content.frames.runs) - runs
    if missing:
        yield f"{missing} runs have no audit: it is made when a run has finished."


def cost(content: ReportContent) -> Iterator[str]:
    """What the study cost."""
    frame = content.frames.cost
    cpu = float(frame["train_cpu_seconds"].sum() + frame["eval_cpu_seconds"].sum())
    if cpu <= 0:
        yield "No run has recorded its cost yet."
        return
    yield (
        f"{cpu / 3600:.3g} CPU-hours, {float(frame['flops'].sum()):.3g} training FLOPs, "
        f"{int(frame['tokens'].fillna(0).sum()):,} tokens trained on."
    )
