"""The audit: tokens really read, per source and stage, against the weights asked for.

What a run read is not taken from the plan. The trainer counts the windows it was handed, and the
audit recounts them from the sampler; a mix that was asked at 50% and realised at 0.6% fails here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.errors import AuditError
from ablations.mixture.sampler import Placement
from ablations.mixture.schedule import Schedule

__all__ = ["Audit", "AuditRow", "WindowCounts", "audit", "audit_rows"]


class WindowCounts:
    """Windows read so far per stage and source; a counter that a trainer feeds."""

    def __init__(self, schedule: Schedule, counts: npt.NDArray[np.int64] | None = None) -> None:
        shape = (len(schedule.stages), len(schedule.sources))
        self.array = np.zeros(shape, dtype=np.int64) if counts is None else counts

    def add(self, placement: Placement) -> None:
        """Count the samples of one batch."""
        np.add.at(self.array, (placement.stage, placement.source), 1)


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """One source in one stage."""

    stage: str
    source: str
    asked: float
    """Share of the stage's tokens asked for."""
    realised: float
    """Share of the stage's tokens read."""
    tokens: int
    """Trained tokens read."""
    windows: int
    """Windows read; sft, dpo, vlm: rows."""
    realised_other: float | None = None
    """sft, dpo, vlm: share in the other unit: of tokens that the loss counted, where samples were asked for,
    and the other way round."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Tokens read in each stage."""

    ok: bool
    tolerance: float
    """Largest gap allowed between realised and asked share."""
    stages: Sequence[AuditRow]
    epochs: Mapping[str, float]
    """Source → tokens read / tokens available to the run."""

    @property
    def worst(self) -> AuditRow:
        """The row with the largest gap."""
        return max(self.stages, key=lambda row: abs(row.realised - row.asked))

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``audit.json`` holds them."""
        plain = asdict(self)
        for row in plain["stages"]:
            if row["realised_other"] is None:
                del row["realised_other"]
        return plain

    def require(self) -> None:
        """Raise :class:`AuditError` unless every gap is within the tolerance."""
        if not self.ok:
            row = self.worst
            raise AuditError(
                f"stage {row.stage!r} read {row.realised:.4%} of its tokens from {row.source!r}, "
                f"asked was {row.asked:.4%} (tolerance {self.tolerance:.4%})"
            )


def audit(
    schedule: Schedule,
    counts: npt.NDArray[np.int64],
    windows: Mapping[str, int],
    *,
    tolerance: float,
) -> Audit:
    """Compare windows read [stage, source] with the schedule.

    A share is never closer than the windows allow: the tolerance is widened by the sampler's bound of
    log2(n)/2 + 2 windows of n, which matters below some ten thousand samples a stage.
    """
    rows, ok = [], True
    for stage, read in zip(schedule.stages, counts, strict=True):
        total = int(read.sum())
        if not total:
            continue  # a run stopped before this stage
        # A plain float: the verdict below goes into JSON, which knows no numpy.
        allowed = tolerance + float(np.log2(max(total, 2)) / 2 + 2) / total
        for name, count in zip(schedule.sources, read.tolist(), strict=True):
            asked, realised = stage.mixture.get(name, 0.0), count / total
            ok = ok and abs(realised - asked) <= allowed and (asked > 0 or count == 0)
            rows.append(
                AuditRow(
                    stage=stage.name,
                    source=name,
                    asked=asked,
                    realised=realised,
                    tokens=count * schedule.sequence_length,
                    windows=count,
                )
            )
    per_source = counts.sum(axis=0).tolist()
    epochs = {
        name: count / windows[name] if windows.get(name) else 0.0
        for name, count in zip(schedule.sources, per_source, strict=True)
    }
    return Audit(ok=ok, tolerance=tolerance, stages=rows, epochs=epochs)


def audit_rows(
    schedule: Schedule,
    rows: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    available: Mapping[str, int],
    *,
    unit: str,
    longest: int,
) -> Audit:
    """Compare rows trained on with the schedule, in samples and in tokens.

    A share of samples is exact within one row; a share of tokens within one row of the longest.

    Args:
        schedule: In samples; its weights are shares of ``unit``.
        rows: Rows [stage, source].
        tokens: Tokens that the loss counted [stage, source].
        available: Source → rows that it has.
        unit: ``samples`` or ``tokens``.
        longest: Most tokens of a row.
    """
    found, ok, tolerance = [], True, 0.0
    for stage, read, counted in zip(schedule.stages, rows, tokens, strict=True):
        if not read.sum():
            continue  # a run stopped before this stage
        asked_of = (read, counted) if unit == "samples" else (counted, read)
        shares, others = (part / max(1, int(part.sum())) for part in asked_of)
        allowed = (1 if unit == "samples" else longest) / max(1, int(asked_of[0].sum())) + 1e-9
        tolerance = max(tolerance, allowed)
        for k, name in enumerate(schedule.sources):
            asked = stage.mixture.get(name, 0.0)
            within = abs(float(shares[k]) - asked) <= allowed
            ok = ok and within and (asked > 0 or not read[k])
            found.append(
                AuditRow(
                    stage=stage.name,
                    source=name,
                    asked=asked,
                    realised=float(shares[k]),
                    tokens=int(counted[k]),
                    windows=int(read[k]),
                    realised_other=float(others[k]),
                )
            )
    per_source = rows.sum(axis=0).tolist()
    epochs = {
        name: count / available[name] if available.get(name) else 0.0
        for name, count in zip(schedule.sources, per_source, strict=True)
    }
    return Audit(ok=ok, tolerance=tolerance, stages=found, epochs=epochs)
