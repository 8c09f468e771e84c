"""Rule that turns evidence into an outcome, and its error rate.

    winner         the pick is better than the baseline beyond the noise: two-sided p, corrected for
                   all candidates compared, at most alpha
    keep-baseline  no candidate can be better by the margin: every interval ends below it
    tie            neither; "equivalent" if the pick lies within the margin of the baseline on
                   both sides (two one-sided tests at alpha), "undecided" otherwise

If all candidates are equally good, a winner is named in alpha / 2 = 2.5% of studies whose baseline is
fixed beforehand (in the other 2.5% the baseline is better). Without a baseline one candidate has to beat
all others, and a winner is named in at most alpha of studies. Selection needs no further correction: the
correction covers all candidates compared, so the best of them may be picked from the same scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sweeps.verdict.contrasts import Estimate, Evidence, best_subset, many_to_one
from sweeps.verdict.covariance import centred

__all__ = [
    "Judgement",
    "Outcome",
    "Regret",
    "Ruling",
    "TieKind",
    "apply_rule",
    "best_first",
    "equivalence_p",
    "judge",
    "regret",
]

Outcome = Literal["winner", "tie", "keep-baseline"]
TieKind = Literal["equivalent", "undecided"]

SHRINK_FROM = 4
"""Fewest candidates for a pick to be shrunk: the spread of fewer cannot be separated from noise."""


@dataclass(frozen=True, kw_only=True)
class Regret:
    """Possible loss from taking the pick, and from not taking it."""

    margin: float
    """Smallest loss that counts, in score units."""
    chance: float | None
    """Probability that the pick is worse than the baseline by more than the margin."""
    expected: float | None
    """Expected loss from taking the pick, in score units; None if the noise is unknown."""
    expected_if_kept: float | None
    """Expected gain missed by keeping the baseline, in score units."""
    shrunk_advantage: float
    """Advantage, corrected for the winner's curse if the pick was made from the same scores."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """Outcome of the rule, and the comparison behind it."""

    outcome: Outcome
    tie_kind: TieKind | None
    """None unless the outcome is a tie."""
    pick: str
    reference: str
    """Candidate that the pick is compared with: the baseline, or without one the runner-up."""
    advantages: Mapping[str, Estimate]
    """Each other candidate → its advantage over the reference."""

    @property
    def advantage(self) -> Estimate:
        """Advantage of the pick over the reference."""
        return self.advantages[self.pick]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Outcome of the rule with the finalists and the regret."""

    ruling: Ruling
    finalists: tuple[str, ...]
    """Candidates, baseline included, that cannot be ruled out as the best; best first."""
    regret: Regret


def apply_rule(
    evidence: Evidence, *, baseline: str | None, pick: str | None = None, margin: float = 0.0
) -> Ruling:
    """Return the outcome of the rule.

    Args:
        evidence: Means and noise of all candidates compared.
        baseline: The candidate to beat; None = a winner has to beat all the others.
        pick: The candidate proposed; None = the best mean.
        margin: Differences within it do not matter, in score units.
    """
    order = best_first(evidence)
    pick = pick or next(name for name in order if name != baseline)
    reference = baseline or next(name for name in order if name != pick)
    advantages = many_to_one(evidence, evidence.names.index(reference))
    advantage = advantages[pick]
    outcome: Outcome = "tie"
    tie_kind: TieKind | None = None
    if margin > 0.0 and equivalence_p(advantage, margin) <= evidence.alpha:
        tie_kind = "equivalent"
    elif baseline is None:
        outcome = "winner" if best_subset(evidence)[0] == (pick,) else "tie"
    elif advantage.value > 0.0 and advantage.p_corrected <= evidence.alpha:
        outcome = "winner"
    elif all(estimate.high < margin for estimate in advantages.values()):
        outcome = "keep-baseline"
    if outcome == "tie" and tie_kind is None:
        tie_kind = "undecided"
    return Ruling(
        outcome=outcome,
        tie_kind=tie_kind,
        pick=pick,
        reference=reference,
        advantages=advantages,
    )


def judge(
    evidence: Evidence,
    *,
    baseline: str | None,
    pick: str | None = None,
    margin: float = 0.0,
    shrink: bool = True,
) -> Judgement:
    """Return the outcome, the finalists and the regret.

    Args:
        evidence: Means and noise of all candidates compared.
        baseline: The candidate to beat; None = a winner has to beat all the others.
        pick: The candidate proposed; None = the best mean.
        margin: Differences within it do not matter, in score units.
        shrink: True if the pick was made from these scores, without fresh seeds that confirm it.
    """
    ruling = apply_rule(evidence, baseline=baseline, pick=pick, margin=margin)
    finalists = frozenset(best_subset(evidence)[0])
    return Judgement(
        ruling=ruling,
        finalists=tuple(name for name in best_first(evidence) if name in finalists),
        regret=regret(evidence, ruling.pick, ruling.reference, margin, shrink=shrink),
    )


def best_first(evidence: Evidence) -> tuple[str, ...]:
    """Return the candidates by their mean, best first; equal ones in the order given."""
    return tuple(evidence.names[k] for k in np.argsort(-evidence.means, kind="stable"))


def equivalence_p(estimate: Estimate, margin: float) -> float:
    """Return the p-value of a difference beyond the margin on either side (two one-sided tests)."""
    if not math.isfinite(estimate.standard_error) or estimate.df <= 0.0:
        return 1.0
    error = max(estimate.standard_error, 1e-300)
    below = stats.t.sf((estimate.value + margin) / error, estimate.df)
    above = stats.t.sf((margin - estimate.value) / error, estimate.df)
    return float(max(below, above))


def regret(
    evidence: Evidence, pick: str, reference: str, margin: float, *, shrink: bool = True
) -> Regret:
    """Return the chance and the size of a loss, from the t distribution of the difference.

    The advantage of a pick made from the same scores is too large by selection. With four or more
    candidates, these are taken as draws from one normal distribution whose variance is their spread
    beyond the noise, and the pick is shrunk towards their mean accordingly.

    Args:
        evidence: Means and noise of all candidates compared.
        pick: The candidate proposed.
        reference: The candidate that it is compared with.
        margin: Smallest loss that counts, in score units.
        shrink: True if the pick was made from these scores.
    """
    value, error, df = _shrunk(evidence, pick, reference, shrink)
    if not math.isfinite(error):
        return Regret(
            margin=margin, chance=None, expected=None, expected_if_kept=None, shrunk_advantage=value
        )
    return Regret(
        margin=margin,
        chance=float(stats.t.cdf((-margin - value) / error, df)),
        expected=_expected_excess(-value, error, df),
        expected_if_kept=_expected_excess(value, error, df),
        shrunk_advantage=value,
    )


def _shrunk(
    evidence: Evidence, pick: str, reference: str, shrink: bool
) -> tuple[float, float, float]:
    """Return posterior mean, standard error and degrees of freedom of the pick's advantage."""
    names = evidence.names
    weights = np.zeros((1, len(names)))
    weights[0, names.index(pick)], weights[0, names.index(reference)] = 1.0, -1.0
    values, variances, df = evidence.contrasts(weights)
    plain = float(values[0]), math.sqrt(variances[0]), float(df[0])
    rest = [k for k, name in enumerate(names) if name != reference]
    if not shrink or len(rest) < SHRINK_FROM or not evidence.noise.known:
        return plain
    deviations, spread, _ = evidence.contrasts(centred(len(names), rest))
    noise = float(spread.sum()) / (len(rest) - 1.0)
    observed = float(deviations @ deviations) / (len(rest) - 1.0)
    kept = max(0.0, 1.0 - noise / observed) if observed > 0.0 else 0.0
    # pick - reference = (centre of candidates - reference) + kept share of (pick - centre)
    blend = kept * weights[0]
    blend[rest] += (1.0 - kept) / len(rest)
    blend[names.index(reference)] = -1.0
    values, variances, df = evidence.contrasts(blend[None, :])
    # The posterior of the pick's own effect keeps `kept` of its sampling variance, not its square.
    own = kept * (1.0 - kept) * noise
    return float(values[0]), math.sqrt(variances[0] + own), float(df[0])


def _expected_excess(value: float, error: float, df: float) -> float | None:
    """Return E[max(0, X)] of X = value + error * t(df); None if the t has no mean."""
    if df <= 1.0:
        return None
    if error == 0.0:
        return max(0.0, value)
    z = value / error
    if math.isinf(df):
        return float(error * (stats.norm.pdf(z) + z * stats.norm.cdf(z)))
    density = stats.t.pdf(z, df) * (df + z * z) / (df - 1.0)
    return float(error * (density + z * stats.t.cdf(z, df)))
