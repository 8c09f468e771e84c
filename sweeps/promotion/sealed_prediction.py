"""Sealed prediction as ``promotion.json`` stores it, and the digest that detects a changed one.

The full runs record the digest in their labels when they start. A prediction that is changed later no
longer matches it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ablations.config.schema import validate
from sweeps.promotion.scale_transfer import Factor, Gap, Measured
from sweeps.study.objective import Objective
from sweeps.study.specs import Direction

__all__ = ["Expected", "Prediction", "digest", "read_prediction"]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Expected difference between the full runs; positive = better."""

    task: str
    """Task, or ``score``."""
    metric: str
    """Metric of the task; empty for the score."""
    proxies: float
    """Difference of the proxies, corrected for the winner's curse."""
    error: float | None
    """Standard error of the proxies' difference; None if the study shows no noise."""
    mean: float
    """Expected difference at the target's scale."""
    low: float | None
    """Lower end of the 90% interval; None if the study shows no noise."""
    high: float | None
    """Upper end of the interval."""
    signal: bool
    """True if the proxies' difference is larger than its standard error."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted differences and their assumptions."""

    study: str
    """Study whose difference is carried: the promoted one, or the second if it is nearer."""
    baseline: str
    """Candidate that is trained at full size for comparison."""
    gap: Gap
    factor: Factor
    measured: tuple[Measured, ...]
    """Slopes that the study measured itself; empty = the prior alone."""
    prior: str
    """Assumption made for every study."""
    added: Mapping[str, float]
    """Source that no proxy read → its share of the full run's tokens; the same in both full runs."""
    score: Expected | None
    """None if the full run's score is not computed as the study's was."""
    objective: Objective
    """Objective of the study, by which the full runs' score is computed."""
    direction: Direction
    """Direction in which the score is better."""
    tasks: tuple[Expected, ...]
    not_comparable: Mapping[str, str] = field(default_factory=dict)
    """Task, or ``score`` → reason why it is not predicted."""

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def read_prediction(stored: Mapping[str, Any]) -> Prediction:
    """Return the prediction of a ``promotion.json``."""
    found: Prediction = validate(Prediction, stored)
    return found


def digest(stored: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of a prediction's canonical JSON."""
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
