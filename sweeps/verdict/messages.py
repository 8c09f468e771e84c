"""The verdict in words: the sentence, the answer in weights, what would settle it, the caveats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sweeps.verdict.answer import called
from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.decision import SHRINK_FROM, Outcome
from sweeps.verdict.p_values import p_equals
from sweeps.verdict.power import MOST_SEEDS, Settle
from sweeps.verdict.training_noise import CHECKPOINT_INFLATION, HIDDEN_INFLATION, TrainingNoise
from sweeps.verdict.verdict_record import Verdict

__all__ = [
    "disagreements",
    "left_out_of_score",
    "noise_caveats",
    "number",
    "rule",
    "selection_caveats",
    "sentence",
    "settle_text",
    "without_noise",
]


_ROUNDING = 1e-12
"""A mean of equal values may miss them by so much."""


MANY_CANDIDATES = 15
"""Above it a pick without fresh seeds is one of very many looks, and the reader is asked to confirm it."""


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:.{digits}g}"


def sentence(verdict: Verdict) -> str:
    """Return the verdict in one sentence, and in a second one where another view disagrees."""
    better = [row.task for row in verdict.tasks if row.effect == "gains"]
    worse = [row.task for row in verdict.tasks if row.effect == "pays"]
    text = _outcome(verdict)
    if better and worse:
        text += f"; better on {_listed(better)}, worse on {_listed(worse)}"
    return " ".join([text + ".", *verdict.disagreements])


def disagreements(
    pick: str, reference: str, advantage: float, views: Mapping[str, float]
) -> tuple[str, ...]:
    """Return a sentence for each view of the same runs whose sign differs from the advantage.

    Args:
        pick: The candidate proposed.
        reference: What it is compared with.
        advantage: The advantage that is judged, positive = better.
        views: Name of a view → the advantage that it shows.
    """
    found = []
    for view, value in views.items():
        if value * advantage < 0.0 and abs(value) > _ROUNDING:
            side = "ahead of" if value > 0.0 else "behind"
            found.append(
                f"Note: {view} puts {pick} {number(abs(value))} {side} {reference} instead."
            )
    return tuple(found)


def _listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence, the first few where they are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _outcome(verdict: Verdict) -> str:
    advantage = verdict.advantage
    ahead = "ahead of" if advantage.value >= 0.0 else "behind"
    pick, reference = called(verdict, verdict.pick), called(verdict, verdict.reference)
    lead = f"{pick} is {number(abs(advantage.value))} {ahead} {reference}"
    if not math.isfinite(advantage.standard_error):
        return f"Tie: {lead}, but the study does not show how large the training noise is"
    numbers = (
        f"{100 * (1 - verdict.alpha):g}% interval {number(advantage.low)} to "
        f"{number(advantage.high)}, corrected {p_equals(advantage.p_corrected)}"
    )
    if verdict.outcome == "winner":
        over = f"{reference} by" if verdict.baseline else "every other candidate, the next by"
        return f"Winner: {pick} beats {over} {number(advantage.value)} ({numbers})"
    if verdict.outcome == "keep-baseline":
        return f"Keep {reference}: no candidate is better; {lead} ({numbers})"
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
        needs = f"{size} between {pick} and {reference} would take more than {MOST_SEEDS} seeds"
    else:
        needs = (
            f"{size} would show with {one.seeds_needed} fresh seeds each of {pick} and {reference} "
            f"({one.power:.0%} power)"
        )
    if one.items_factor is not None and one.items_factor > 1.0:
        needs += f", or with {one.items_factor:.1f} times the items"
    elif one.items_known and one.items_factor is None:
        needs += "; more items alone would not help"
    if one.detectable_effect is not None:
        needs += f"; the current runs can detect {number(one.detectable_effect)} or more"
    return needs + "."


def rule(alpha: float, margin: float, baseline: str | None) -> str:
    """The decision rule with its error rate."""
    many = "corrected for all candidates by the joint distribution of their t"
    if baseline is None:
        named = f"Winner where one candidate beats all others at one-sided {alpha / 2:g}, {many}."
        false = f"If all candidates are equally good, at most {alpha:.0%} of studies name a winner."
    else:
        named = f"Winner where the two-sided p over {baseline}, {many}, is at most {alpha:g}."
        false = (
            f"If all candidates are equally good, about {alpha / 2:.1%} of studies still name a winner, "
            f"and at most {alpha / 2:.1%} wrongly keep {baseline}."
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
            f"(variance times {CHECKPOINT_INFLATION * HIDDEN_INFLATION * noise.smooth:.3g}: half of it is "
            "taken to be hidden, and the more the smoother they follow one another), which cannot show "
            "what a whole run's seed does."
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
    said += ". Fresh seeds of the finalists would give an unflattered difference."
    if len(evidence.names) > MANY_CANDIDATES:
        said += (
            f" With {len(evidence.names)} candidates and no fresh seeds, confirm the best of them before "
            "a decision rests on this."
        )
    return [said]


def without_noise(named: Sequence[str]) -> str:
    """Return the caveat of declared noise that some metrics of the score lack."""
    return (
        f"No noise is declared for {_listed(named)}, so the noise of the score is not known: declare it, "
        "or give run_sd=."
    )


def left_out_of_score(reasons: Mapping[str, str]) -> str:
    """Return the caveat of a study that applied task quality to its score."""
    parts = "; ".join(f"{key} ({why})" for key, why in reasons.items())
    return (
        f"Left out of the study's score before its first proposal (search.task_quality): {parts}."
    )
