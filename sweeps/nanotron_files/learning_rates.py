"""Learning rate of a file for nanotron, as its scheduler trains it.

``lr_scheduler_builder`` (``src/nanotron/helpers.py`` of huggingface/nanotron, main) has four
phases and two defaults that place them::

    warm-up            steps 0 … lr_warmup_steps; "constant" is at the plateau already
    plateau            up to the starting step (null: the end of the warm-up)
    decay              lr_decay_steps long (null: all steps - warm-up - starting step)
    min_decay_lr       from there to the last step (null: the plateau)

Main's loader fills ``lr_decay_steps: null`` with all steps - warm-up before its scheduler does. The
two differ if a starting step is given; then :mod:`.lint` reports it, and a file that is written back
keeps its null.
"""

from __future__ import annotations

from typing import Any

from ablations.errors import ConfigError, Problem
from sweeps.nanotron_files.sections import LearningRateScheduler, NanotronFile

__all__ = ["decay_window", "rate_config"]

_WHERE = "optimizer.learning_rate_scheduler"


def decay_window(rate: LearningRateScheduler, train_steps: int) -> tuple[int, int]:
    """Return the starting step of the decay and its length in steps, defaults filled in.

    The window may end before or after ``train_steps``. With a length below 1 the rate falls to its
    minimum at the starting step at once.
    """
    start, steps = rate.lr_decay_starting_step, rate.lr_decay_steps
    if steps is None:
        steps = train_steps - rate.lr_warmup_steps - (start or 0)
    return rate.lr_warmup_steps if start is None else start, steps


def rate_config(file: NanotronFile) -> dict[str, Any]:
    """Return the plain values of our ``schedule.lr`` that train as the file does.

    Raises:
        ConfigError: all reasons why our learning rate cannot have this shape.
    """
    rate, total = file.optimizer.learning_rate_scheduler, file.tokens.train_steps
    start, steps = decay_window(rate, total)
    least = rate.learning_rate if rate.min_decay_lr is None else rate.min_decay_lr
    falls = least != rate.learning_rate and start < total
    problems = list(_problems(rate, total, falls=falls))
    if problems:
        raise ConfigError(problems)
    warmup = 0 if rate.lr_warmup_style == "constant" else rate.lr_warmup_steps
    return {
        "kind": "wsd",
        "warmup_steps": warmup,
        "decay_steps": steps if falls else 0,
        "tail_steps": total - start - steps if falls else 0,
        "shape": rate.lr_decay_style or "linear",
        "min_ratio": least / rate.learning_rate if falls else 0.0,
    }


def _problems(rate: LearningRateScheduler, total: int, *, falls: bool) -> list[Problem]:
    start, steps = decay_window(rate, total)
    found = []
    if rate.lr_warmup_steps > total:
        found.append(
            Problem(
                f"{_WHERE}.lr_warmup_steps",
                "the warm-up is longer than the run",
                found=rate.lr_warmup_steps,
                allowed=f"at most {total:,}",
            )
        )
    if rate.lr_warmup_steps == 0 and steps == 0:
        found.append(
            Problem(
                _WHERE,
                "without warm-up and without decay nanotron multiplies the rate by itself",
                do="leave lr_decay_steps out and set min_decay_lr to learning_rate",
            )
        )
    elif falls and steps < 1:
        found.append(
            Problem(
                f"{_WHERE}.lr_decay_steps",
                f"nanotron falls to min_decay_lr at step {start} at once",
                found=steps,
                allowed=">= 1 step",
            )
        )
    if falls and start < rate.lr_warmup_steps:
        found.append(
            Problem(
                f"{_WHERE}.lr_decay_starting_step",
                "the decay begins inside the warm-up",
                found=start,
                allowed=f"at least {rate.lr_warmup_steps}",
            )
        )
    return found
