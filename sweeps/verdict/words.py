"""The verdict in words: the sentence, what would settle it, what the reader has to know beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.decision import SHRINK_FROM, Outcome
from sweeps.verdict.noise import CHECKPOINT_INFLATION, HIDDEN_INFLATION, TrainingNoise
from sweeps.verdict.power import MOST_SEEDS, Settle
from sweeps.verdict.record import Verdict

__all__ = [
    "noise_caveats",
    "number",
    "rule",
    "selection_caveats",
    "sentence",
    "settle_text",
    "without_vote",
]


_ROUNDING = 1e-12
"""A mean of equal values may miss them by so much."""


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:.{digits}g}"


def sentence(verdict: Verdict) -> str:
    """The verdict in one sentence, with who gains and who pays where both are shown."""
    gains = [row.task for row in verdict.tasks if row.effect == "gains"]
    pays = [row.task for row in verdict.tasks if row.effect == "pays"]
    said = _outcome(verdict)
    if gains and pays:
        return f"{said}; {verdict.pick} gains on {_listed(gains)} and pays on {_listed(pays)}."
    return said + "."


def _listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence, the first few where they are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _outcome(verdict: Verdict) -> str:
    advantage = verdict.advantage
    ahead = "ahead of" if advantage.value >= 0.0 else "behind"
    lead = f"{verdict.pick} is {number(abs(advantage.value))} {ahead} {verdict.reference}"
    if not math.isfinite(advantage.standard_error):
        return f"Tie: {lead}, but nothing in the study says how large the training noise is"
    numbers = (
        f"{100 * (1 - verdict.alpha):g}% interval {number(advantage.low)} to "
        f"{number(advantage.high)}, corrected p = {number(advantage.p_corrected, 2)}"
    )
    if verdict.outcome == "winner":
        over = (
            f"{verdict.reference} by" if verdict.baseline else "every other candidate, the next by"
        )
        return f"Winner: {verdict.pick} beats {over} {number(advantage.value)} ({numbers})"
    if verdict.outcome == "keep-baseline":
        return f"Keep {verdict.reference}: no candidate is better; {lead} ({numbers})"
    if verdict.tie_kind == "equivalent":
        within = f"within the margin of {number(verdict.margin)}"
        return f"Tie: {lead}, {within}: equivalent ({numbers})"
    return f"Tie: {lead}, which noise alone can explain ({numbers})"


def settle_text(outcome: Outcome, settled: Sequence[Settle], pick: str, reference: str) -> str:
    """What would settle the comparison, in a sentence or two; empty once it is settled."""
    if not settled:
        return (
            "Two seeds of any two candidates, or checkpoints along the way, would show the noise."
        )
    if outcome != "tie":
        return ""
    return " ".join(_settle_one(one, pick, reference) for one in settled)


def _settle_one(one: Settle, pick: str, reference: str) -> str:
    size = f"A true difference of {number(one.effect)}"
    if one.seeds_needed is None:
        needs = (
            f"{size} between {pick} and {reference} is too small to show with {MOST_SEEDS} seeds"
        )
    else:
        needs = (
            f"{size} would show with {one.seeds_needed} fresh seeds each of {pick} and {reference} "
            f"({one.power:.0%} power)"
        )
    if one.items_factor is not None and one.items_factor > 1.0:
        needs += f", or with {one.items_factor:.1f} times the items"
    elif one.items_known and one.items_factor is None:
        needs += "; more items alone would not do"
    if one.detectable_effect is not None:
        needs += f"; the runs of now show {number(one.detectable_effect)} or more"
    return needs + "."


def rule(alpha: float, margin: float, baseline: str | None) -> str:
    """The decision rule with its error rate."""
    many = "corrected for all candidates by the joint t distribution"
    if baseline is None:
        named = f"Winner where one candidate beats all others at one-sided {alpha / 2:g}, {many}."
        false = f"With equal candidates a winner is named in at most {alpha:.0%} of studies."
    else:
        named = f"Winner where the two-sided p over {baseline}, {many}, is at most {alpha:g}."
        false = (
            f"With equal candidates a winner is named in about {alpha / 2:.1%} of studies, and "
            f"{baseline} is found better than all in at most as many."
        )
    within = (
        f" Equivalent where two one-sided tests put the difference within {margin:g}."
        if margin
        else ""
    )
    return f"{named} {false}{within} Anything else is a tie."


def noise_caveats(noise: TrainingNoise) -> list[str]:
    """What has to be said of the noise that a verdict rests on."""
    if noise.source == "none":
        return ["No seeds, late checkpoints or declared noise: item noise alone names no winner."]
    if noise.source == "checkpoints":
        return [
            "One seed a candidate: the noise is that of late checkpoints "
            f"(variance times {CHECKPOINT_INFLATION * HIDDEN_INFLATION:g}, as if half of it were hidden), "
            "which cannot show what a whole run's seed does."
        ]
    if noise.source == "published":
        return [
            "One seed a candidate: the noise is declared, measured on other runs; "
            "it holds as far as those resemble these."
        ]
    if noise.df < 4.0:
        return [
            f"Few replicates: the noise is known with {noise.df:g} degrees of freedom, so intervals "
            "are wide."
        ]
    return []


def selection_caveats(evidence: Evidence, confirmed: bool) -> list[str]:
    """What has to be said of a pick made from the scores it is judged by."""
    if confirmed or len(evidence.names) <= 2:
        return []
    said = "The pick was chosen by the scores it is judged by: its lead is flattered"
    if len(evidence.names) - 1 >= SHRINK_FROM:
        said += "; the p-value is corrected for that and the chance of regret shrunk"
    else:
        said += "; the p-value is corrected for that"
    return [said + ". Fresh seeds of the finalists would give an unflattered difference."]


def without_vote(keys: Sequence[str]) -> str:
    """What has to be said of metrics that were taken out of the score."""
    return f"Without signal, so without a vote in the score: {', '.join(keys)}."
