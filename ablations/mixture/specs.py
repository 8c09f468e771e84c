"""Read mixtures and schedules from a config, and build a :class:`Schedule` of them.

A stage boundary is one number, so that it can be searched: one stage may take the rest of the
tokens, and the learning rate may decay over a stage, whatever its length::

    total_tokens: 1.0e+9
    stages:
      stable: {share: rest}
      decay: {share: 0.2}
    lr: {decay_share: decay}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem, unknown_name
from ablations.mixture.mixture import Mixture
from ablations.mixture.repeats import RepeatLaw
from ablations.mixture.schedule import DecayShape, LearningRate, Schedule, Stage, whole_steps

__all__ = ["LearningRateSpec", "MixtureSpec", "ScheduleSpec", "StageSpec"]

_FORBID: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class MixtureSpec:
    """The mixture of every stage that does not bring its own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    weights: Mapping[str, float]
    """Source → share of tokens; must sum to 1 within 1e-6."""
    normalize: bool = False
    """Divide weights by their sum instead of refusing a sum other than 1."""
    epoch_cap: float = 4.0
    """Most epochs of any source over the whole schedule (SmolLM2 held 4 to 5)."""
    epoch_cap_exempt: Mapping[str, str] = field(default_factory=dict)
    """Source → why it may be read more often, e.g. ``published recipe``; shown by every plan and kept
    in the record."""
    repeats: RepeatLaw | None = None
    """Law of repeats that this study's runs gave (``ablate repeats``); epochs are then judged by what the
    last one is worth, and no more by ``epoch_cap``."""
    audit_tolerance: float = 1e-3
    """Largest gap between realised and asked share of a stage's tokens; more fails the run."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"mixture.{name}", "must be above zero", found=value)
            for name, value in (
                ("epoch_cap", self.epoch_cap),
                ("audit_tolerance", self.audit_tolerance),
            )
            if not value > 0
        ]
        problems += [
            Problem(
                f"mixture.epoch_cap_exempt.{name}", "an exemption needs its reason", found=repr(why)
            )
            for name, why in self.epoch_cap_exempt.items()
            if not why.strip()
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def most_epochs(self) -> float:
        """Return the most epochs of any source: by the law of repeats if there is one, else the cap."""
        return self.epoch_cap if self.repeats is None else self.repeats.most_epochs


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage: its budget as a share of the total or in tokens, and its weights."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    share: float | Literal["rest"] | None = None
    """Share of ``schedule.total_tokens``; either this or ``tokens``. ``rest`` is what the other stages
    leave, for one stage."""
    tokens: float | None = None
    """Budget in tokens."""
    weights: Mapping[str, float] | None = None
    """Source → share of tokens; null = ``mixture.weights``."""


@dataclass(frozen=True, kw_only=True)
class LearningRateSpec:
    """The learning rate over the schedule; the peak is ``training.peak_lr``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    kind: Literal["wsd", "cosine", "constant"] = "wsd"
    """wsd = warm-up, stable, decay; cosine = decay from the end of the warm-up; constant = no decay."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; null = ``warmup_share``."""
    warmup_share: float = 0.02
    """Share of the steps that warm up, where ``warmup_steps`` is null."""
    decay_share: float | str = 0.2
    """Share of the steps that decay (wsd); SmolLM2 1.7B took the last 10%. Or the name of a stage: the
    decay begins with it and takes all stages from there on."""
    decay_steps: int | None = None
    """Steps of the decay (wsd); null = ``decay_share``."""
    tail_steps: int = 0
    """Steps at the minimum after the decay (wsd); below zero, the schedule ends so many steps before
    the decay does, as SmolLM3's does."""
    shape: DecayShape = "linear"
    """linear, 1-sqrt or cosine."""
    min_ratio: float = 0.0
    """Final learning rate as a share of the peak."""

    def __post_init__(self) -> None:
        ranges = (
            ("warmup_steps", self.warmup_steps, math.inf),
            ("warmup_share", self.warmup_share, 1.0),
            ("decay_share", 0 if isinstance(self.decay_share, str) else self.decay_share, 1.0),
            ("decay_steps", self.decay_steps, math.inf),
            ("min_ratio", self.min_ratio, 1.0),
        )
        problems = [
            Problem(
                f"schedule.lr.{name}",
                "outside its range",
                found=value,
                allowed=">= 0" if most == math.inf else f"0 to {most:g}",
            )
            for name, value, most in ranges
            if value is not None and not 0 <= value <= most
        ]
        if problems:
            raise ConfigError(problems)

    def build(self, *, peak: float, schedule: Schedule) -> LearningRate:
        """Return the learning rate over ``schedule``.

        Raises:
            ConfigError: ``decay_share`` names no stage of it, or the parts are longer than the whole.
        """
        total_steps = schedule.total_steps
        warmup = self.warmup_steps
        if warmup is None:
            warmup = round(self.warmup_share * total_steps)
        decay = self.decay_steps
        if self.kind == "cosine":
            decay = total_steps - warmup
        elif self.kind == "constant":
            decay = 0
        elif decay is None:
            decay = self._decay_steps(schedule)
        return LearningRate(
            peak=peak,
            warmup_steps=warmup,
            decay_steps=decay,
            total_steps=total_steps,
            shape="cosine" if self.kind == "cosine" else self.shape,
            min_ratio=self.min_ratio,
            tail_steps=self.tail_steps if self.kind == "wsd" and decay else 0,
        )

    def _decay_steps(self, schedule: Schedule) -> int:
        """Return the steps of the decay by ``decay_share``: a share, or the stage that it begins with."""
        if not isinstance(self.decay_share, str):
            return round(self.decay_share * schedule.total_steps)
        names = [stage.name for stage in schedule.stages]
        if self.decay_share not in names:
            where = "schedule.lr.decay_share"
            raise ConfigError(unknown_name(where, "stage", self.decay_share, names))
        return schedule.total_steps - schedule.first_step(names.index(self.decay_share))


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """Stages in order, their budgets, and the learning rate over them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    total_tokens: float | None = None
    """Tokens of all stages; null = the sum of the stages' ``tokens``."""
    total_samples: float | None = None
    """method=sft and dpo, instead of ``total_tokens``: conversations or pairs of all stages."""
    stages: Mapping[str, StageSpec] = field(default_factory=lambda: {"main": StageSpec(share=1.0)})
    """Name → stage, in order of training."""
    lr: LearningRateSpec = field(default_factory=LearningRateSpec)
    """The learning rate."""
    full_tokens: float | None = None
    """Tokens of the full run that this proxy stands for; each source is cut to a slice so that its
    epochs equal the full run's (simulated epoching); null = read every source whole."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"schedule.{name}", "not a budget", found=value, allowed="> 0, finite")
            for name, value in (
                ("total_tokens", self.total_tokens),
                ("total_samples", self.total_samples),
                ("full_tokens", self.full_tokens),
            )
            if value is not None and not 0 < value < math.inf
        ]
        if self.total_tokens is not None and self.total_samples is not None:
            problems.append(
                Problem("schedule.total_samples", "give it or schedule.total_tokens, one of them")
            )
        for name, stage in self.stages.items():
            if (stage.share is None) == (stage.tokens is None):
                problems.append(
                    Problem(f"schedule.stages.{name}", "give a share or tokens, one of them")
                )
            elif stage.share is not None and self.total is None:
                problems.append(
                    Problem("schedule.total_tokens", f"needed by the share of stage {name!r}")
                )
        rest = [name for name, stage in self.stages.items() if stage.share == "rest"]
        if len(rest) > 1:
            problems.append(
                Problem("schedule.stages", "only one stage can take the rest", found=rest)
            )
        if not problems:
            problems = self._budget_problems()
        if problems:
            raise ConfigError(problems)

    def _budget_problems(self) -> list[Problem]:
        bad = [
            Problem(f"schedule.stages.{name}", "needs a budget above zero", found=budget)
            for name, budget in self.budgets().items()
            if not (math.isfinite(budget) and budget > 0)
        ]
        total = math.fsum(self.budgets().values())
        if not bad and self.total is not None and not math.isclose(total, self.total, rel_tol=1e-6):
            bad.append(
                Problem(
                    "schedule.stages",
                    "the stages' budgets do not add up to schedule.total_tokens",
                    found=f"{total:.8g} tokens",
                    allowed=f"{self.total:.8g}",
                )
            )
        return bad

    @property
    def total(self) -> float | None:
        """Return the budget of all stages, in tokens or, where it is stated so, in samples."""
        return self.total_tokens if self.total_samples is None else self.total_samples

    def budgets(self) -> dict[str, float]:
        """Return stage → tokens, or samples where the total counts them.

        A stage of the rest takes what the others leave of the total.
        """
        total = self.total or 0.0
        taken: dict[str, float | None] = {
            name: stage.tokens
            if stage.tokens is not None
            else (None if stage.share == "rest" else (stage.share or 0.0) * total)
            for name, stage in self.stages.items()
        }
        left = total - math.fsum(budget for budget in taken.values() if budget is not None)
        return {name: left if budget is None else budget for name, budget in taken.items()}

    def build(self, mixture: MixtureSpec, *, sequence_length: int, batch_size: int) -> Schedule:
        """Return the schedule in whole steps.

        Raises:
            ConfigError: weights that are no mixture, or a stage shorter than one step.
        """
        steps = whole_steps(list(self.budgets().values()), sequence_length * batch_size)
        stages: list[Stage] = []
        problems: list[Problem] = []
        for (name, stage), length in zip(self.stages.items(), steps, strict=True):
            where = (
                "mixture.weights" if stage.weights is None else f"schedule.stages.{name}.weights"
            )
            weights = mixture.weights if stage.weights is None else stage.weights
            try:
                made = Mixture(weights, normalize=mixture.normalize, where=where)
                stages.append(Stage(name=name, steps=length, mixture=made))
            except ConfigError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        if problems:
            raise ConfigError(problems)
        return Schedule(
            stages=tuple(stages), sequence_length=sequence_length, batch_size=batch_size
        )
