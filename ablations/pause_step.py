"""Steps at which a run pauses and up to which it shares a trunk, and where they may lie."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.config.schema import RunConfig
from ablations.errors import Problem
from ablations.mixture.schedule import LearningRate

__all__ = ["pause_step", "trunk_step"]


def pause_step(
    config: RunConfig, rate: LearningRate, steps: Sequence[int]
) -> tuple[int | None, list[Problem]]:
    """Return the step at which a run pauses, and the problems of pausing there.

    Going on loses nothing on the plateau of the learning rate alone, because a score inside warm-up or
    decay is not that of a shorter run.

    Args:
        config: The run.
        rate: Its learning rate.
        steps: Steps of its checkpoints.
    """
    if config.execution.stop_tokens is None:
        return None, []
    stop = round(config.execution.stop_tokens / config.training.tokens_per_step)
    where, found = "execution.stop_tokens", f"step {stop} of {rate.total_steps}"
    if not rate.warmup_steps < stop <= rate.decay_start or stop == rate.total_steps:
        low, high = rate.warmup_steps + 1, min(rate.decay_start, rate.total_steps - 1)
        return None, [
            Problem(
                where,
                "not on the plateau of the learning rate",
                found=found,
                allowed=f"steps {low} to {high}, of {config.training.tokens_per_step} tokens each",
            )
        ]
    if stop not in steps:
        return None, [
            Problem(
                where,
                "not at a checkpoint of the run",
                found=found,
                allowed=f"steps {', '.join(map(str, steps))}",
                do="name its tokens in training.checkpoints",
            )
        ]
    return stop, []


def trunk_step(config: RunConfig, rate: LearningRate) -> tuple[int | None, list[Problem]]:
    """Return the step up to which a run shares its training (``execution.trunk_tokens``), and its problems.

    The steps of a decay depend on the length of the schedule, so a trunk ends before them.
    """
    if config.execution.trunk_tokens is None:
        return None, []
    of_rows = config.method.of_rows
    each = config.training.batch_size if of_rows else config.training.tokens_per_step
    step = round(config.execution.trunk_tokens / each)
    where = "execution.trunk_tokens"
    stop = config.execution.stop_tokens
    if stop is not None and stop <= config.execution.trunk_tokens:
        return None, [
            Problem(
                where, "after the pause of the run", allowed=f"less than stop_tokens = {stop:g}"
            )
        ]
    if config.warm_start.checkpoint is not None and not of_rows:
        return None, [
            Problem(where, "a run with warm_start.checkpoint starts from that checkpoint")
        ]
    low, high = max(1, rate.warmup_steps), min(rate.decay_start, rate.total_steps - 1)
    if low <= step <= high:
        return step, []
    return None, [
        Problem(
            where,
            "not on the plateau of the learning rate",
            found=f"step {step} of {rate.total_steps}",
            allowed=f"steps {low} to {high}, of {each} {'samples' if of_rows else 'tokens'} each",
        )
    ]
