"""Answer of a verdict in weights of the mixture: the shares that may be best, and the one to use.

A confirmed verdict compares the few candidates that got fresh seeds. The other mixtures that were searched
are not ruled out by that: each may be best unless its own runs show that it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.covariance import differences
from sweeps.verdict.verdict_record import Verdict

__all__ = ["Tested", "all_tested", "answer", "mixture", "named", "not_ruled_out"]


_MOST_SPANS = 4
"""Sources whose range the answer names if there are many: those with the largest weights."""


@dataclass(frozen=True)
class Tested:
    """One trial that a study ran."""

    trial: str
    weights: Mapping[str, float]
    """Source → weight; empty if it is not a mixture."""
    may_be_best: bool
    """False if a better one was found beyond the noise."""


def not_ruled_out(evidence: Evidence) -> frozenset[str]:
    """Return the candidates that the best mean does not beat, corrected for all others.

    One comparison for each candidate, one-sided at ``alpha / 2`` with Bonferroni's correction: wider than
    :func:`~sweeps.verdict.contrasts.best_subset`, and linear in the candidates.
    """
    count, best = len(evidence.names), int(np.argmax(evidence.means))
    others = [k for k in range(count) if k != best]
    if not evidence.noise.known or not others:
        return frozenset(evidence.names)
    values, variances, df = evidence.contrasts(differences(count, others, best))
    level = evidence.alpha / 2.0 / len(others)
    beaten = -values > stats.t.isf(level, df) * np.sqrt(variances)
    return frozenset(evidence.names) - {evidence.names[others[j]] for j in np.flatnonzero(beaten)}


def all_tested(verdict: Verdict, searched: Sequence[Tested]) -> list[Tested]:
    """Return the verdict's candidates and the trials that were ``searched`` besides."""
    return [*(Tested(c.trial, c.weights, c.finalist) for c in verdict.candidates), *searched]


def answer(verdict: Verdict, searched: Sequence[Tested] = ()) -> str:
    """Return the answer in weights; empty if no weight varies between candidates.

    Args:
        verdict: The verdict.
        searched: Trials that the study ran and the verdict does not compare.
    """
    rows = {row.name: row for row in verdict.candidates}
    chosen = rows[verdict.pick if verdict.outcome == "winner" else verdict.reference]
    varied = _varied(verdict)
    if not varied or not chosen.weights:
        return ""
    if verdict.outcome == "winner":
        advice = f"use {mixture(chosen.weights)}"
    elif verdict.baseline is not None:
        advice = f"keep {mixture(chosen.weights)}"
    else:
        advice = "the study does not show which of them to use"
    mixtures = [one for one in all_tested(verdict, searched) if one.weights]
    best = [one.weights for one in mixtures if one.may_be_best]
    if len(best) < 2:
        return f"{advice[0].upper()}{advice[1:]}: no other mixture that was tested may be best."
    # Of two shares the second is what the first leaves.
    shown = varied[:1] if len(varied) == 2 else varied
    spans = [(name, *_span(best, name)) for name in shown]
    if len(spans) == 1:
        name, low, high = spans[0]
        out = _ruled_out(mixtures, name, low, high)
        if _share(low) == _share(high):
            return f"A {name} share of about {_share(low)} may be best; {advice}."
        return (
            f"Any {name} share between {_share(low)} and {_share(high)}{out} may be best; {advice}."
        )
    largest = sorted(spans, key=lambda span: -chosen.weights.get(span[0], 0.0))[:_MOST_SPANS]
    shown_spans = spans if len(spans) <= _MOST_SPANS + 1 else largest
    inside = ", ".join(f"{name} {_share(low)} to {_share(high)}" for name, low, high in shown_spans)
    if more := len(spans) - len(shown_spans):
        inside += f" and the ranges of {more} more sources"
    return f"The best mixture may lie anywhere within {inside}; {advice}."


def _span(mixtures: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    weights = [one.get(name, 0.0) for one in mixtures]
    return min(weights), max(weights)


def _ruled_out(tested: Sequence[Tested], name: str, low: float, high: float) -> str:
    """Return the tested shares inside a range that cannot be best, in words; empty if there are none."""
    out = sorted(
        weight
        for one in tested
        if not one.may_be_best and low < (weight := one.weights.get(name, 0.0)) < high
    )
    return f" (not {', '.join(dict.fromkeys(map(_share, out)))})" if out else ""


def mixture(weights: Mapping[str, float], most: int = 4) -> str:
    """Return the weights of a mixture as shares, e.g. ``wiki 61%, chat 39%``; largest first.

    Args:
        weights: Source → weight.
        most: Sources that are named; the rest are summed.
    """
    shares = sorted(((w, name) for name, w in weights.items() if w > 0.0), key=lambda x: -x[0])
    shown = [f"{name} {_share(w)}" for w, name in shares[:most]]
    rest = sum(w for w, _ in shares[most:])
    return ", ".join([*shown, *([f"{len(shares) - most} more {_share(rest)}"] if rest else [])])


def named(verdict: Verdict, name: str) -> str:
    """Return a candidate's weights with its name, or the name alone if no weight varies."""
    row = next((row for row in verdict.candidates if row.name == name), None)
    if row is None or not row.weights or not _varied(verdict):
        return name
    return f"{mixture(row.weights)} ({name})"


def _varied(verdict: Verdict) -> list[str]:
    """Return the sources whose weight differs between candidates, sorted by name as in the figures."""
    sources = sorted({name for row in verdict.candidates for name in row.weights})
    return [
        name
        for name in sources
        if len({round(row.weights.get(name, 0.0), 9) for row in verdict.candidates}) > 1
    ]


def _share(weight: float) -> str:
    percent = 100.0 * weight
    return f"{percent:.0f}%" if percent >= 1.0 or percent == 0.0 else f"{percent:.1g}%"
