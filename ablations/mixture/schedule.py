"""Schedules: ordered stages, each with a mixture and a token budget, and the learning rate over them.

    steps   0 ─────────────────────────────────────────────────────────────▶ total_steps
    stages  │ stable: 54/36/10            │ code+math: 45/30/20/5 │ decay   │
    rate    ╱▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔╲________

A schedule counts SAMPLES (windows of ``sequence_length`` trained tokens); a step is ``batch_size``
of them. Budgets given in tokens or shares are rounded to whole steps, stage by stage, so that the
total is the rounded total: rounding never accumulates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ablations.errors import ConfigError, Problem
from ablations.mixture.mixture import Mixture

__all__ = ["DecayShape", "LearningRate", "Schedule", "Stage", "decay_words", "whole_steps"]

DecayShape = Literal["linear", "1-sqrt", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with one mixture."""

    name: str
    """Unique within the schedule."""
    steps: int
    """Optimiser steps of the stage."""
    mixture: Mixture
    """Shares of tokens."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(
                Problem(
                    f"schedule.stages.{self.name}",
                    "a stage shorter than one step",
                    found=f"{self.steps} steps",
                    allowed=">= 1 step",
                    do="raise schedule.total_tokens or the stage's share, or lower training.batch_size",
                )
            )


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """The learning rate over steps: linear warm-up, a plateau, a decay (WSD, arXiv 2404.06395).

        0 ──warm-up──▶ peak ──────▶ decay_start ──decay_steps──▶ minimum ──tail_steps──▶ the end

    Cosine without a plateau is ``decay_steps = total - warmup_steps`` with ``shape="cosine"``.
    """

    peak: float
    """Learning rate of the plateau."""
    warmup_steps: int
    """Steps of linear warm-up; step 1 trains at ``peak / warmup_steps``."""
    decay_steps: int
    """Steps of the decay; 0 = none."""
    total_steps: int
    """Steps of the whole schedule."""
    shape: DecayShape = "linear"
    """``1-sqrt`` is arXiv 2405.18392, equation 2."""
    min_ratio: float = 0.0
    """Final learning rate as a share of the peak."""
    tail_steps: int = 0
    """Steps at the minimum after the decay; below zero, the schedule ends before the decay does."""

    @property
    def decay_start(self) -> int:
        """Steps before the decay begins; all of them where there is none."""
        if not self.decay_steps:
            return self.total_steps
        return self.total_steps - self.decay_steps - self.tail_steps

    def __post_init__(self) -> None:
        after = self.decay_steps + self.tail_steps if self.decay_steps else 0
        if self.warmup_steps + after > self.total_steps or after < 0:
            tail = f" + {self.tail_steps}" if self.tail_steps else ""
            raise ConfigError(
                Problem(
                    "schedule.lr",
                    "warm-up and decay are longer than the schedule"
                    if after >= 0
                    else "the schedule ends before the decay begins",
                    found=f"{self.warmup_steps} + {self.decay_steps}{tail} steps",
                    allowed=f"at most {self.total_steps}",
                )
            )

    def factor(self, step: int) -> float:
        """Learning rate of optimiser step ``step`` (counted from 0), as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        start = self.decay_start
        if step < start or self.decay_steps == 0:
            return 1.0
        done = min(1.0, (step + 1 - start) / self.decay_steps)
        left = {
            "linear": 1.0 - done,
            "1-sqrt": 1.0 - math.sqrt(done),
            "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        }[self.shape]
        return self.min_ratio + (1.0 - self.min_ratio) * left

    def at(self, step: int) -> float:
        """Learning rate of optimiser step ``step`` (counted from 0)."""
        return self.peak * self.factor(step)


def decay_words(*, decay_steps: int, total_steps: int, tail_steps: int = 0, **_: object) -> str:
    """Return when the learning rate decays, in words; takes the fields of a :class:`LearningRate`.

    >>> decay_words(decay_steps=30, total_steps=100, tail_steps=50)
    'over 30 steps from step 20, then 50 at the minimum'
    """
    if not decay_steps or not tail_steps:
        return f"over the last {decay_steps:,}"
    start = f"over {decay_steps:,} steps from step {total_steps - decay_steps - tail_steps:,}"
    if tail_steps > 0:
        return f"{start}, then {tail_steps:,} at the minimum"
    return f"{start}, of which the schedule leaves out the last {-tail_steps:,}"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The ordered stages of one training."""

    stages: tuple[Stage, ...]
    sequence_length: int
    """Trained tokens of a sample; a window holds one more."""
    batch_size: int
    """Samples of an optimiser step, over all ranks and micro-batches."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ConfigError(
                Problem("schedule.stages", "stages need unique names, at least one", found=names)
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source of any stage, in order of first appearance, weight 0 included."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.mixture))

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def total_samples(self) -> int:
        """Windows of all stages."""
        return self.total_steps * self.batch_size

    @property
    def tokens_per_step(self) -> int:
        """Trained tokens of an optimiser step."""
        return self.batch_size * self.sequence_length

    @property
    def total_tokens(self) -> int:
        """Trained tokens of all stages."""
        return self.total_steps * self.tokens_per_step

    def first_step(self, stage: int) -> int:
        """Return the step (from 0) at which stage number ``stage`` begins."""
        return sum(before.steps for before in self.stages[:stage])

    def tokens(self) -> dict[str, float]:
        """Tokens asked of every source over the whole schedule."""
        totals = dict.fromkeys(self.sources, 0.0)
        for stage in self.stages:
            for name, weight in stage.mixture.items():
                totals[name] += weight * stage.steps * self.tokens_per_step
        return totals

    def epochs(self, available: Mapping[str, float]) -> dict[str, float]:
        """Tokens read / tokens available per source; infinite where nothing is available."""
        return {
            name: (read / available[name] if available.get(name, 0) > 0 else math.inf * bool(read))
            if read
            else 0.0
            for name, read in self.tokens().items()
        }


def whole_steps(budgets_tokens: Sequence[float], tokens_per_step: int) -> list[int]:
    """Steps per stage whose running total is the rounded running total of the token budgets."""
    edges, total = [0], 0.0
    for budget in budgets_tokens:
        total += budget
        edges.append(round(total / tokens_per_step))
    return [after - before for before, after in itertools.pairwise(edges)]
