"""Worth of a repeat: tokens that are read again, counted as fresh ones.

Muennighoff et al. 2023 (Scaling Data-Constrained Language Models, arXiv 2305.16264, equation 5) count the
tokens of a source of ``U`` tokens that is read in ``1 + R`` epochs as

    U × (1 + R* × (1 − exp(−R / R*)))

so that the r-th epoch is worth exp(−(r − 1) / R*) of the first one. They fitted R* = 15.39 on runs of 7M to
9B parameters::

    >>> law = RepeatLaw(constant=15.39, low=15.39, high=15.39, study="published")
    >>> round(law.effective(10e9, 40e9) / 1e9, 1)
    37.3
    >>> round(law.value(4), 2)
    0.82
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ablations.errors import ConfigError, Problem
from ablations.mixture.schedule import Schedule

__all__ = ["PUBLISHED", "RepeatLaw", "effective_tokens", "runs_out"]


@dataclass(frozen=True, kw_only=True)
class RepeatLaw:
    """Law of repeats with the range that runs allow (``ablate repeats study=…``)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    constant: float
    """R*: repeats after which an epoch is worth 1/e of the first; the median."""
    low: float
    """Lower end of its 90% interval."""
    high: float
    """Upper end of its 90% interval."""
    study: str
    """Study that it was fitted to."""
    least_value: float = 0.5
    """Least value of the last epoch, at the lower end of the interval, that the epoch gate passes."""

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.low <= self.constant <= self.high < math.inf:
            found = f"{self.low:g}, {self.constant:g}, {self.high:g}"
            problems.append(
                Problem("mixture.repeats", "not an interval", found, "0 < low <= constant <= high")
            )
        if not 0.0 < self.least_value <= 1.0:
            problems.append(
                Problem(
                    "mixture.repeats.least_value", "not a share", self.least_value, "above 0, to 1"
                )
            )
        if problems:
            raise ConfigError(problems)

    def effective(self, unique: float, read: float) -> float:
        """Return how many fresh tokens ``read`` tokens of a source of ``unique`` tokens are worth."""
        if read <= unique or unique <= 0.0:
            return min(read, max(unique, 0.0))
        repeats = read / unique - 1.0
        return unique * (1.0 - self.constant * math.expm1(-repeats / self.constant))

    def value(self, epoch: float, *, constant: float | None = None) -> float:
        """Return the value of the ``epoch``-th epoch (from 1) as a share of the first."""
        return math.exp(-max(0.0, epoch - 1.0) / (self.constant if constant is None else constant))

    @property
    def most_epochs(self) -> float:
        """Return the epochs that the gate passes: the last is worth ``least_value`` at the lower end."""
        return 1.0 - self.low * math.log(self.least_value)


PUBLISHED = RepeatLaw(constant=15.39, low=15.39, high=15.39, study="arXiv 2305.16264")
"""The published law, for a plan of a study without one of its own; the gate does not use it."""


def effective_tokens(
    law: RepeatLaw, schedule: Schedule, available: Mapping[str, float]
) -> dict[str, float]:
    """Return source → fresh tokens that its tokens are worth over the whole schedule."""
    return {
        name: law.effective(available.get(name, 0.0), read)
        for name, read in schedule.tokens().items()
    }


def runs_out(schedule: Schedule, available: Mapping[str, float]) -> dict[str, int]:
    """Return source → step after which every token of it was read once; sources that last are left out."""
    found: dict[str, int] = {}
    for name in schedule.sources:
        left, first = available.get(name, 0.0), 0
        for stage in schedule.stages:
            per_step = stage.mixture.get(name, 0.0) * schedule.tokens_per_step
            if per_step * stage.steps > left:
                found[name] = first + math.ceil(left / per_step)
                break
            left -= per_step * stage.steps
            first += stage.steps
    return found
