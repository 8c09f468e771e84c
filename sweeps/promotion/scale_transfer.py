"""Carry a difference between two mixtures from the proxies' size to the full run's.

    difference at the target  =  factor x share x difference of the proxies  +  own part

    ln factor     a_T ln(tokens ratio) + a_P ln(parameters ratio); both exponents have a prior, which the
                  study's own measurements correct: its checkpoints, and other proxy sizes
    share         distance between the two mixtures that remains after the full run adds the same
                  sources to both
    own part      effect of another size on a mixture that no factor explains, in proportion to the
                  spread between mixtures

The prior is measured on public tables (``benchmarks/transfer.py`` prints the figures and the share of
intervals that hold). A study of one size relies on the prior alone, and the sealed prediction names it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "LEVEL",
    "PRIOR",
    "SCORE_SPREAD",
    "Carried",
    "Factor",
    "Gap",
    "Measured",
    "carry",
    "transfer_factor",
]

LEVEL = 0.9
"""Level of every sealed interval."""

_TOKENS = (-0.22, 0.20)
"""Mean and standard deviation of the exponent of the tokens."""
_PARAMETERS = (-0.05, 0.06)
"""Mean and standard deviation of the exponent of the parameters."""
_BASE = 0.10
"""Standard deviation of the factor that no ratio explains, relative to the factor."""
_OWN = (0.12, 0.06)
"""Own part in spreads between mixtures: at equal tokens, and its increase per ln of the tokens ratio."""
SCORE_SPREAD = 2.5
"""Factor on the spread between mixtures for the own part of a score: the score's metrics cancel in the
spread, while the effects of another size on them do not."""
_EXTRAPOLATED = 0.45
"""Standard deviation in ln of a slope between two token counts: the exponent changes along a run, and
the learning rate falls at the end. With 0.10, slopes between two horizons made the intervals too
narrow: 85% held, but 91% with the prior alone. A slope between two sizes has ``_BASE``."""

PRIOR = (
    f"assumed of every study: a difference changes with tokens^({_TOKENS[0]:+.2f} ± {_TOKENS[1]:.2f}) and "
    f"parameters^({_PARAMETERS[0]:+.2f} ± {_PARAMETERS[1]:.2f}), measured on two public swarms "
    "(benchmarks/transfer.py)"
)
"""Assumption behind a factor, as printed on the card."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Distance from the proxies to the target."""

    tokens: float
    """Tokens of the full run divided by those of a proxy."""
    parameters: float
    """Parameters of the full run divided by those of a proxy."""
    share: float = 1.0
    """Distance between the two mixtures in the full run divided by that in the proxies."""
    share_sd: float = 0.0
    """Standard deviation of the share."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Slope that the study measured: differences at one scale against those at a smaller one."""

    where: str
    """Names of the two scales, for people."""
    tokens: float
    """Tokens of the larger scale divided by those of the smaller."""
    parameters: float
    """Parameters of the larger scale divided by those of the smaller."""
    slope: float
    error: float
    """Standard error of the slope from training noise."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """Factor by which a difference is multiplied, without the share."""

    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Difference at the target's scale; positive = better."""

    mean: float
    sd: float
    low: float
    """Lower end of the 90% interval."""
    high: float
    """Upper end of the 90% interval."""


def transfer_factor(gap: Gap, measured: Sequence[Measured] = ()) -> Factor:
    """Return the factor between the proxies and the target.

    The exponents have normal priors, and each measured slope is a noisy observation of their sum. A
    slope below 0.1 counts as 0.1, because zero has no logarithm; the gate ``second_proxy`` stops a
    promotion whose ranking turns over.
    """
    mean = np.array([_TOKENS[0], _PARAMETERS[0]])
    covariance = np.diag([_TOKENS[1] ** 2, _PARAMETERS[1] ** 2])
    for one in measured:
        way = np.array([math.log(one.tokens), math.log(one.parameters)])
        slope = max(one.slope, 0.1)
        kept = _EXTRAPOLATED if abs(way[0]) > 0.05 else _BASE
        noise = (one.error / slope) ** 2 + kept**2
        seen = float(way @ covariance @ way) + noise
        gain = covariance @ way / seen
        mean = mean + gain * (math.log(slope) - float(way @ mean))
        covariance = covariance - np.outer(gain, way @ covariance)
    way = np.array([math.log(gap.tokens), math.log(gap.parameters)])
    found = math.exp(float(way @ mean))
    spread = math.sqrt(max(0.0, float(way @ covariance @ way)) + _BASE**2)
    return Factor(mean=found, sd=found * spread)


def carry(
    difference: float,
    *,
    error: float,
    df: float,
    spread: float,
    run_sd: float,
    run_df: float,
    factor: Factor,
    gap: Gap,
) -> Carried:
    """Return the difference that two single full runs are expected to show.

    Args:
        difference: Difference of the proxies, corrected for the winner's curse; positive = better.
        error: Its standard error, from the proxies' training noise and the sampling of items.
        df: Degrees of freedom of that error.
        spread: Standard deviation between mixtures on the proxies, in the same units.
        run_sd: Training noise of one full run; two of them are compared. Use the proxies' noise if
            nothing better is known, because noise seldom grows with size.
        run_df: Degrees of freedom of ``run_sd``.
        factor: Factor between the proxies and the target.
        gap: Distance between the proxies and the target.
    """
    from scipy import stats

    scale = factor.mean * gap.share
    unsure = math.hypot(factor.sd * gap.share, factor.mean * gap.share_sd)
    own = (_OWN[0] + _OWN[1] * abs(math.log(gap.tokens))) * spread * scale
    sampled = (scale * error) ** 2 + (unsure * error) ** 2
    runs = 2.0 * run_sd**2
    variance = sampled + runs + (unsure * difference) ** 2 + own**2
    # Welch-Satterthwaite: the degrees of freedom of the training noise limit those of the sum.
    known = sampled**2 / max(df, 1.0) + runs**2 / max(run_df, 1.0)
    degrees = variance**2 / known if known > 0.0 else math.inf
    sd = math.sqrt(variance)
    half = float(stats.t.ppf(0.5 + LEVEL / 2.0, max(1.0, degrees))) * sd
    mean = scale * difference
    return Carried(mean=mean, sd=sd, low=mean - half, high=mean + half)
