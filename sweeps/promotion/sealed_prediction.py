"""A sealed prediction as ``promotion.json`` keeps it, and the mark that finds a changed one out.

The mark goes into the labels of the full runs when they begin: a prediction that was changed after that
no longer fits it.
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

__all__ = ["Expected", "Prediction", "digest", "read_prediction"]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The difference that the full runs are expected to show; positive = better."""

    task: str
    """Task, or ``score``."""
    metric: str
    """Metric of the task; empty for the score."""
    proxies: float
    """Difference of the proxies, winner's curse taken out."""
    error: float | None
    """Its standard error; None where the study shows no noise."""
    mean: float
    """Expected difference at the target's scale."""
    low: float | None
    """Lower end of the 90% interval; None where the study shows no noise."""
    high: float | None
    """Upper end of it."""
    signal: bool
    """Whether the proxies' difference is larger than its own standard error."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Everything that was foretold, and what it rests on."""

    study: str
    """Study whose difference is carried: the promoted one, or the second where it is nearer."""
    baseline: str
    """Candidate that is trained at full size for comparison."""
    gap: Gap
    factor: Factor
    measured: tuple[Measured, ...]
    """Slopes that the study measured itself; empty = the prior alone."""
    prior: str
    """What is assumed of every study."""
    added: Mapping[str, float]
    """Source that no proxy read → its share of the full run's tokens; the same in both full runs."""
    score: Expected | None
    """None where the full run's score is not made as the study's was."""
    objective: Objective
    """What the study judged; the full runs' score is computed by it."""
    direction: str
    """Which way the score is better."""
    tasks: tuple[Expected, ...]
    not_comparable: Mapping[str, str] = field(default_factory=dict)
    """Task, or ``score`` → why nothing is foretold of it."""

    def plain(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def read_prediction(stored: Mapping[str, Any]) -> Prediction:
    """Return the prediction of a ``promotion.json``."""
    found: Prediction = validate(Prediction, stored)
    return found


def digest(stored: Mapping[str, Any]) -> str:
    """Return the mark of a prediction: SHA-256 over its canonical JSON, the first 16 hex digits."""
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
