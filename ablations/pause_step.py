"""Step at which a run pauses (``execution.stop_tokens``), and where it may."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.config.schema import RunConfig
from ablations.errors import Problem
from ablations.mixture.schedule import LearningRate

__all__ = ["pause_step"]


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
