"""Cost of a run over its legs: each process that worked on it, paused, failed and killed ones included.

A leg that paused or failed wrote its cost into its last event. A killed leg wrote none: its time is
the sum of the step times that it recorded, without its start and its scoring.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ablations.files import read_json_lines
from ablations.record.run_record import RunRecord

__all__ = ["LegCost", "earlier_legs", "step_seconds"]


@dataclass(frozen=True, kw_only=True)
class LegCost:
    """Cost of one or more legs, in seconds."""

    wall_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    eval_cpu_seconds: float = 0.0
    step_seconds: float = 0.0
    """Sum of the wall times of the steps."""

    def plus(self, other: LegCost) -> LegCost:
        """Return the sum of both."""
        return LegCost(
            **{name: value + getattr(other, name) for name, value in asdict(self).items()}
        )


def step_seconds(record: RunRecord) -> float:
    """Return the sum of the times of all recorded steps, those that were trained twice included."""
    path = record.path / "metrics.jsonl"
    if not path.exists():
        return 0.0
    return sum(float(row.get("seconds") or 0.0) for row in read_json_lines(path, needs="step"))


def earlier_legs(record: RunRecord) -> LegCost:
    """Return the cost of the legs so far; call it before a new leg records its first step."""
    names = LegCost.__dataclass_fields__
    known = LegCost()
    for event in record.events():
        if "wall_seconds" in event:
            known = known.plus(LegCost(**{n: float(event.get(n) or 0.0) for n in names}))
    killed = max(0.0, step_seconds(record) - known.step_seconds)
    return known.plus(LegCost(wall_seconds=killed, train_cpu_seconds=killed, step_seconds=killed))
