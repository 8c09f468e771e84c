"""The rule that turns evidence into an outcome, and its error rate.

    winner         the pick is better than the baseline beyond the noise: two-sided p, corrected for
                   every candidate compared, at most alpha
    keep-baseline  no candidate can be better by the margin: every interval ends below it
    tie            neither; "equivalent" where the pick lies within the margin of the baseline on
                   both sides (two one-sided tests at alpha), "undecided" otherwise

With equal candidates a winner is named in alpha / 2 = 2.5% of studies where the baseline is fixed
beforehand (the other 2.5% is the baseline being better), and in at most alpha without a baseline,
where one candidate has to beat all others. Selection costs nothing extra: the correction covers
every candidate that was looked at, so the best of them may be picked from the same scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sweeps.verdict.contrasts import Estimate, Evidence, best_subset, many_to_one

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
"""With fewer candidates their spread cannot be told from noise, and a pick is not shrunk."""


@dataclass(frozen=True, kw_only=True)
class Regret:
    """What could be lost by taking the pick, or by not taking it."""

    margin: float
    """A loss counts beyond this many score units."""
    chance: float | None
    """Probability that the pick is worse than the baseline by more than the margin."""
    expected: float | None
    """Expected loss from taking the pick, in score units; None where the noise is unknown."""
    expected_if_kept: float | None
    """Expected gain missed by keeping the baseline, in score units."""
    shrunk_advantage: float
    """The advantage after the winner's curse is taken out of a pick made from the same scores."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What the rule says, and the comparison it says it of."""

    outcome: Outcome
    tie_kind: TieKind | None
    """None unless the outcome is a tie."""
    pick: str
    reference: str
    """What the pick is compared with: the baseline, or without one the runner-up."""
    advantages: Mapping[str, Estimate]
    """Every other candidate against the reference."""

    @property
    def advantage(self) -> Estimate:
        """The pick against the reference."""
        return self.advantages[self.pick]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The rule's outcome with what a decision maker asks next."""

    ruling: Ruling
    finalists: tuple[str, ...]
    """Candidates, baseline included, that cannot be ruled out as the best; best first."""
    regret: Regret


def apply_rule(
    evidence: Evidence, *, baseline: str | None, pick: str | None = None, margin: float = 0.0
) -> Ruling:
    """The outcome alone.

    Args:
        evidence: Means and noise of every candidate that was looked at.
        baseline: The candidate to beat; None asks for one that beats all the others.
        pick: The candidate proposed; the best mean where None.
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
    """The outcome, the finalists and the regret; arguments as of :func:`apply_rule`.

    ``shrink`` says whether the pick was made from these very scores (no fresh seeds confirmed it).
    """
    ruling = apply_rule(evidence, baseline=baseline, pick=pick, margin=margin)
    finalists, _ = best_subset(evidence)
    return Judgement(
        ruling=ruling,
        finalists=tuple(name for name in best_first(evidence) if name in finalists),
        regret=regret(evidence, ruling.pick, ruling.reference, margin, shrink=shrink),
    )


def best_first(evidence: Evidence) -> tuple[str, ...]:
    """The candidates by their mean, best first; equal ones in the order given."""
    return tuple(evidence.names[k] for k in np.argsort(-evidence.means, kind="stable"))


def equivalence_p(estimate: Estimate, margin: float) -> float:
    """p-value of "the difference is beyond the margin, on either side" (two one-sided tests)."""
    if not math.isfinite(estimate.standard_error) or estimate.df <= 0.0:
        return 1.0
    error = max(estimate.standard_error, 1e-300)
    below = stats.t.sf((estimate.value + margin) / error, estimate.df)
    above = stats.t.sf((margin - estimate.value) / error, estimate.df)
    return float(max(below, above))


def regret(
    evidence: Evidence, pick: str, reference: str, margin: float, *, shrink: bool = True
) -> Regret:
    """Chance and size of a loss, from the t distribution of the difference.

    A pick made from the same scores is flattered. Where four or more candidates were looked at,
    the candidates are taken as draws from one normal distribution whose variance is what their
    spread shows beyond the noise, and the pick is drawn back towards their mean accordingly.
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
    """Posterior mean, standard error and degrees of freedom of the pick's advantage."""
    names = evidence.names
    weights = np.zeros((1, len(names)))
    weights[0, names.index(pick)], weights[0, names.index(reference)] = 1.0, -1.0
    values, covariance, df = evidence.contrasts(weights)
    plain = float(values[0]), math.sqrt(covariance[0, 0]), float(df[0])
    rest = [k for k, name in enumerate(names) if name != reference]
    if not shrink or len(rest) < SHRINK_FROM or not evidence.noise.known:
        return plain
    centre = np.zeros((len(rest), len(names)))
    centre[:, rest] = np.eye(len(rest)) - 1.0 / len(rest)
    deviations, spread, _ = evidence.contrasts(centre)
    noise = float(np.trace(spread)) / (len(rest) - 1.0)
    seen = float(deviations @ deviations) / (len(rest) - 1.0)
    kept = max(0.0, 1.0 - noise / seen) if seen > 0.0 else 0.0
    # pick - reference = (centre of candidates - reference) + kept share of (pick - centre)
    blend = kept * weights[0]
    blend[rest] += (1.0 - kept) / len(rest)
    blend[names.index(reference)] = -1.0
    values, covariance, df = evidence.contrasts(blend[None, :])
    # The posterior of the pick's own effect keeps `kept` of its sampling variance, not its square.
    own = kept * (1.0 - kept) * noise
    return float(values[0]), math.sqrt(covariance[0, 0] + own), float(df[0])


def _expected_excess(value: float, error: float, df: float) -> float | None:
    """E[max(0, X)] of X = value + error * t(df); None where the t has no mean."""
    if df <= 1.0:
        return None
    if error == 0.0:
        return max(0.0, value)
    z = value / error
    if math.isinf(df):
        return float(error * (stats.norm.pdf(z) + z * stats.norm.cdf(z)))
    density = stats.t.pdf(z, df) * (df + z * z) / (df - 1.0)
    return float(error * (density + z * stats.t.cdf(z, df)))
