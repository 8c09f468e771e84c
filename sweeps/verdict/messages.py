"""Sentences of a verdict: its outcome, the seeds that would settle it, its rule and its caveats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sweeps.verdict.answer import named
from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.decision import SHRINK_FROM, Outcome
from sweeps.verdict.p_values import p_equals
from sweeps.verdict.power import MOST_SEEDS, PowerEstimate
from sweeps.verdict.training_noise import CHECKPOINT_INFLATION, HIDDEN_INFLATION, TrainingNoise
from sweeps.verdict.verdict_record import PictureRow, Verdict

__all__ = [
    "disagreements",
    "gains",
    "left_out_of_score",
    "noise_caveats",
    "number",
    "picture_caveats",
    "picture_rule",
    "rule",
    "selection_caveats",
    "sentence",
    "settle_text",
    "train_longer",
    "without_noise",
]


_ROUNDING = 1e-12
"""Largest difference that is put down to rounding in a mean of equal values."""

MANY_CANDIDATES = 15
"""Most candidates without fresh seeds for which the verdict does not ask to confirm the pick."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text; a dash if it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:.{digits}g}"


def sentence(verdict: Verdict) -> str:
    """Return the verdict in one sentence, and in a second one if another view disagrees."""
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
        reference: The candidate that it is compared with.
        advantage: Advantage of the pick in the verdict, positive = better.
        views: Name of a view → its advantage of the pick.
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
    """Return names as part of a sentence; of many the first few and the number of the rest."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _outcome(verdict: Verdict) -> str:
    advantage = verdict.advantage
    ahead = "ahead of" if advantage.value >= 0.0 else "behind"
    pick, reference = named(verdict, verdict.pick), named(verdict, verdict.reference)
    lead = f"{pick} is {number(abs(advantage.value))} {ahead} {reference}"
    if not math.isfinite(advantage.standard_error):
        if verdict.blind:
            return f"{_blind(verdict, reference)}; {lead}"
        return f"Tie: {lead}, but the study does not show how large the training noise is"
    numbers = (
        f"{100 * (1 - verdict.alpha):g}% interval {number(advantage.low)} to "
        f"{number(advantage.high)}, corrected {p_equals(advantage.p_corrected)}"
    )
    if verdict.blind:
        return f"{_blind(verdict, reference)}; {lead} ({numbers})"
    if verdict.outcome == "winner":
        over = f"{reference} by" if verdict.baseline else "every other candidate, the next by"
        return f"Winner: {pick} beats {over} {number(advantage.value)} ({numbers})"
    if verdict.outcome == "keep-baseline":
        return f"Keep {reference}: no candidate is better; {lead} ({numbers})"
    if verdict.tie_kind == "equivalent":
        within = f"within the margin of {number(verdict.margin)}"
        return f"Tie: {lead}, {within}: equivalent ({numbers})"
    return f"Tie: {lead}, which noise alone can explain ({numbers})"


def _blind(verdict: Verdict, reference: str) -> str:
    """Return the tasks whose pictures the pick does not use, with its gains there."""
    keeps = f"Keep {reference}: no" if verdict.baseline else "No"
    parts = []
    for row in verdict.blind:
        counted = [t.metric for t in verdict.tasks if t.task == row.task and t.in_score]
        parts.append(f"{row.task}/{'+'.join(counted)} ({gains(row)})")
    return (
        f"{keeps} winner is named, because pictures do not move the answers of {verdict.pick} beyond "
        f"their noise on {_listed(parts)}"
    )


def gains(row: PictureRow) -> str:
    """Return the gains of a candidate on one task with their lower ends, in words."""
    return (
        f"gain in bits per byte {_at_least(row.gain, row.gain_low)}; over another picture "
        f"{_at_least(row.shuffled_gain, row.shuffled_gain_low)}"
    )


def _at_least(value: float | None, low: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{number(value)}, at least {number(low)}" if low is not None else number(value)


def train_longer(blind: Sequence[PictureRow]) -> str:
    """Return what to do where pictures do not move the answers of the pick."""
    unmeasured = [row.task for row in blind if None in (row.gain, row.shuffled_gain)]
    if unmeasured:
        return (
            f"Add gain and shuffled_gain to the metrics of {_listed(unmeasured)}, and score the runs again: "
            "nothing shows whether the pictures are used."
        )
    return (
        "Train the vision part longer (the stage that all candidates share), or on more pictures, until "
        "gain and shuffled_gain are above zero beyond their noise. If they are above zero already and their "
        "noise is too large, more held-out items or seeds make it smaller."
    )


def picture_rule(alpha: float) -> str:
    """Return the part of the rule on answers about pictures, in a sentence."""
    return (
        "On answers about pictures no winner is named unless its gain and its gain over another picture are "
        f"above zero at one-sided {alpha / 2:g}, corrected for the candidates."
    )


def picture_caveats(rows: Sequence[PictureRow]) -> list[str]:
    """Return the caveats of the gains that a verdict on pictures rests on."""
    caveats = []
    if any(row.noise == "items" for row in rows):
        caveats.append(
            "No seeds repeat: whether pictures are used is judged by the noise of the items alone, for the "
            "models that were trained."
        )
    return caveats


def settle_text(
    outcome: Outcome, settled: Sequence[PowerEstimate], pick: str, reference: str
) -> str:
    """Return the seeds and items that would settle a tie, in one or two sentences; empty without a tie."""
    if not settled:
        return (
            "Two seeds of any two candidates, or checkpoints along the way, would show the noise."
        )
    if outcome != "tie":
        return ""
    return " ".join(_needs(one, pick, reference) for one in settled)


def _needs(one: PowerEstimate, pick: str, reference: str) -> str:
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
    """Return the decision rule with its error rate, in sentences."""
    many = "corrected for all candidates by the joint distribution of their t"
    if baseline is None:
        winner = f"Winner where one candidate beats all others at one-sided {alpha / 2:g}, {many}."
        false = f"If all candidates are equally good, at most {alpha:.0%} of studies name a winner."
    else:
        winner = f"Winner where the two-sided p over {baseline}, {many}, is at most {alpha:g}."
        false = (
            f"If all candidates are equally good, about {alpha / 2:.1%} of studies still name a winner, "
            f"and at most {alpha / 2:.1%} wrongly keep {baseline}."
        )
    within = (
        f" Equivalent where two one-sided tests put the difference within {margin:g}."
        if margin
        else ""
    )
    return f"{winner} {false}{within} Anything else is a tie."


def noise_caveats(noise: TrainingNoise) -> list[str]:
    """Return the caveats of the noise that a verdict rests on."""
    if noise.source == "none":
        return ["No seeds, late checkpoints or declared noise: item noise alone names no winner."]
    if noise.source == "checkpoints":
        return [
            "One seed per candidate: the noise is that of late checkpoints "
            f"(variance times {CHECKPOINT_INFLATION * HIDDEN_INFLATION * noise.smooth:.3g}: half of it is "
            "assumed to be hidden, and more if they are strongly correlated), which do not show the full "
            "effect of a run's seed."
        ]
    if noise.source == "published":
        return [
            "One seed per candidate: the noise is declared, measured on other runs; "
            "it is right only if these runs are similar."
        ]
    if noise.df < 4.0:
        return [
            f"Few replicates: the noise is known with {noise.df:g} degrees of freedom, so intervals "
            "are wide."
        ]
    return []


def selection_caveats(evidence: Evidence, confirmed: bool) -> list[str]:
    """Return the caveats of a pick that was made from the scores that it is compared by."""
    if confirmed or len(evidence.names) <= 2:
        return []
    caveat = "The pick was chosen by the same scores, so its lead is too large by selection"
    if len(evidence.names) - 1 >= SHRINK_FROM:
        caveat += "; the p-value is corrected for that and the chance of regret shrunk"
    else:
        caveat += "; the p-value is corrected for that"
    caveat += ". Fresh seeds of the finalists would give an unbiased difference."
    if len(evidence.names) > MANY_CANDIDATES:
        caveat += (
            f" With {len(evidence.names)} candidates and no fresh seeds, confirm the best of them before "
            "a decision rests on this."
        )
    return [caveat]


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
