"""Pause of a run at one of its checkpoints, and the cost of a run over its legs.

A paused run has ``paused.json`` and no ``result.json``, so that no reader takes it for a run that ended.
The same command without ``execution.stop_tokens`` goes on from the checkpoint, with the losses of a run
that was never paused. ``paused.json`` stays until the result is written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ablations.record.legs import LegCost, step_seconds
from ablations.record.paused import write_paused
from ablations.rescoring import last_scores
from ablations.trunks import trunk_fields, trunk_step_of

if TYPE_CHECKING:
    from ablations.execute import Work

__all__ = ["leg_of", "pause", "run_cost"]


def leg_of(work: Work) -> LegCost:
    """Return the cost of this leg so far."""
    return LegCost(
        wall_seconds=time.time() - work.began,
        train_cpu_seconds=work.outcome.cpu_seconds if work.outcome else 0.0,
        eval_cpu_seconds=work.scoring_cpu_seconds,
        step_seconds=max(0.0, step_seconds(work.record) - work.earlier.step_seconds),
    )


def run_cost(work: Work, step: int) -> dict[str, Any]:
    """Return the cost of a run at ``step``: seconds of all its legs, FLOPs of the whole training.

    The steps of a trunk are the trunk's cost.
    """
    schedule = work.plan.schedule
    before = max(work.plan.first_step, min(step, trunk_step_of(work.record)))
    tokens = (step - before) * schedule.tokens_per_step
    if work.config.method.of_rows:  # rows differ in length
        flops = work.plan.flops * tokens / schedule.total_tokens
    else:
        flops = work.config.model.flops_per_token(schedule.sequence_length) * tokens
    cost = work.earlier.plus(leg_of(work))
    return {
        "train_cpu_seconds": cost.train_cpu_seconds,
        "eval_cpu_seconds": cost.eval_cpu_seconds,
        "wall_seconds": cost.wall_seconds,
        "flops": float(flops),
        "device": work.outcome.device if work.outcome else None,
    }


def pause(work: Work) -> dict[str, Any]:
    """Record that the run pauses at its last checkpoint; return the content of ``paused.json``."""
    assert work.outcome is not None
    step = work.outcome.last_step
    content = {
        "status": "paused",
        "step": step,
        "tokens": step * work.plan.schedule.tokens_per_step,
        "share": step / work.plan.schedule.total_steps,
        "cost": run_cost(work, step),
        **trunk_fields(work),
        **last_scores(work.record, work.config.evaluation),
        "audit_ok": work.audited.ok if work.audited is not None else None,
    }
    # The event is written first: if the process dies here, the next leg still knows this one's cost.
    work.record.event("paused", step=step, **vars(leg_of(work)))
    write_paused(work.record, content)
    work.record.set_status("paused")
    return content
