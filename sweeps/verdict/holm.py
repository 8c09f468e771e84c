"""Holm's step-down correction (1979) over the tasks of one comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sweeps.verdict.contrasts import Estimate

__all__ = ["corrected_by_holm", "holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values after Holm's step-down correction; NaN (not tested) stays NaN and is not counted."""
    tested = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    corrected, running = [math.nan] * len(p_values), 0.0
    for rank, (p, k) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        corrected[k] = running
    return corrected


def corrected_by_holm(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Return the same estimates with Holm's correction over them."""
    corrected = holm([estimate.p for estimate in estimates])
    return [replace(e, p_corrected=p) for e, p in zip(estimates, corrected, strict=True)]
