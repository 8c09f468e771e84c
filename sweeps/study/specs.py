"""What a study is asked to do, as it is said in ``conf/search``: plain data, checked when it is made.

search:
  question: Which share of wiki against chat?
  space: {mixtures: {mixture.weights: {sources: [wiki, chat]}}}
  strategy: {baselines: [natural, uniform], baseline: natural, proposer: surrogate}
  budget: {trials: 12}
  confirm: {finalists: 2, seeds: [0, 1, 2]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ablations.errors import ConfigError, Problem
from ablations.ranges import Seed
from sweeps.search.space.specs import SearchSpaceSpec

__all__ = [
    "BudgetSpec",
    "ConfirmSpec",
    "ConstraintSpec",
    "Direction",
    "ObjectiveSpec",
    "Proposer",
    "SearchSpec",
    "StrategySpec",
    "TaskQualitySpec",
]

Direction = Literal["maximize", "minimize"]
Proposer = Literal["surrogate", "tpe", "gp", "cmaes", "qmc", "random"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """One number that a study optimises, built from the results of a run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    metrics: tuple[str, ...] = ("score",)
    """``score`` (the run's own), or patterns of ``<task>/<metric>``; the mean of all that match."""
    direction: Direction | None = None
    """Which way is better; None = as ``evaluation.score.direction`` says, for ``score`` alone."""


@dataclass(frozen=True, kw_only=True)
class ConstraintSpec:
    """A bound on something measured; epoch caps and the like are bounds of the space instead."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    metrics: tuple[str, ...]
    """``score`` or patterns of ``<task>/<metric>``; the mean of all that match."""
    direction: Direction = "minimize"
    """Which way is better."""
    bound: float | None = None
    """Worst value allowed."""
    margin: float | None = None
    """How much worse than the baseline a trial may be, in the metric's own unit."""

    def __post_init__(self) -> None:
        if (self.bound is None) == (self.margin is None):
            raise ConfigError(
                Problem(
                    "search.constraints",
                    "needs exactly one of bound and margin",
                    found=f"bound {self.bound}, margin {self.margin}",
                )
            )


@dataclass(frozen=True, kw_only=True)
class StrategySpec:
    """Which trials are asked for, and in which order."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    baselines: tuple[Literal["natural", "uniform", "unimax"], ...] = (
        "natural",
        "uniform",
        "unimax",
    )
    """Standing baselines, run before anything else."""
    mixtures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Name → weights of further mixtures that are run with the baselines."""
    baseline: str = "natural"
    """The trial that the verdict compares with: a name from ``baselines`` or ``mixtures``."""
    design: Literal["sobol", "sobol-edges", "dirichlet", "maximin", "d-optimal"] = "sobol-edges"
    """How the space is filled before anything is learned."""
    design_trials: int | None = None
    """Trials of the design; None = max(20, 6 × sources), at most 2/3 of what the baselines leave."""
    proposer: Proposer = "surrogate"
    """Who proposes after the design: the surrogate, or an Optuna sampler."""
    batch: int = 4
    """Trials proposed at a time; batches of 5 lose nothing against one by one (docs/search.md)."""
    pruner: Literal["none", "median"] = "none"
    """``median`` ends runs whose loss is worse than the median at the same step. None by default:
    the curves of mixtures cross early."""
    seed: Seed = 0
    """Seed of the design and of the proposer."""

    def __post_init__(self) -> None:
        problems = []
        known = (*self.baselines, *self.mixtures)
        if known and self.baseline not in known:
            problems.append(
                Problem(
                    "search.strategy.baseline",
                    "not among the mixtures that are run first",
                    found=self.baseline,
                    allowed=", ".join(known),
                )
            )
        if self.batch < 1:
            problems.append(Problem("search.strategy.batch", "not a count", found=self.batch))
        if clash := sorted(set(self.baselines) & set(self.mixtures)):
            problems.append(
                Problem("search.strategy.mixtures", "a name of a standing baseline", found=clash)
            )
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """How much a study may spend; every limit that is said counts, exploring and confirming apart."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    trials: int | None = None
    """Mixtures explored, baselines and failed trials included."""
    tokens: float | None = None
    """Trained tokens of all runs."""
    flops: float | None = None
    """Training FLOPs of all runs."""
    gpu_hours: float | None = None
    """Hours that runs held their devices, times the devices of a run (a CPU slot counts as one)."""
    confirm_share: float = 0.25
    """Share of ``tokens``, ``flops`` and ``gpu_hours`` kept for confirming the finalists."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"search.budget.{name}", "not a budget", found=value, allowed="> 0")
            for name in ("trials", "tokens", "flops", "gpu_hours")
            if (value := getattr(self, name)) is not None and value <= 0
        ]
        if not 0.0 <= self.confirm_share < 1.0:
            problems.append(
                Problem(
                    "search.budget.confirm_share",
                    "not a share",
                    found=self.confirm_share,
                    allowed="[0, 1)",
                )
            )
        if problems:
            raise ConfigError(problems)

    @property
    def unlimited(self) -> bool:
        """Whether no limit is said."""
        return self.trials is self.tokens is self.flops is self.gpu_hours is None


@dataclass(frozen=True, kw_only=True)
class ConfirmSpec:
    """What is run again, with seeds, once exploring is over."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    finalists: int = 3
    """Best trials that are confirmed, beside the baseline; 0 = none."""
    pick: bool = True
    """Whether the surrogate's own optimum joins the finalists as a trial of its own."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds that every finalist and the baseline end up with."""


@dataclass(frozen=True, kw_only=True)
class TaskQualitySpec:
    """Whether metrics that cannot tell mixtures apart leave the score of the study.

    The decision is made once, before the first proposal, and kept in ``study.json``: from then on the
    surrogate, the finalists, every table and the verdict use the same score. Held-out text and metrics
    that a term of the score names in full always count.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    apply: bool = False
    """Leave such metrics out of the score; false = measure and report them only."""
    study: str | None = None
    """Earlier study under ``runs_dir`` that decides; null = baselines and design of this study."""
    min_variance_ratio: float = 1.0
    """Least variance between mixtures over the noise variance of one run."""
    min_monotonicity: float = 0.5
    """Least mean Spearman correlation of an accuracy with tokens."""
    min_above_chance: float = 3.0
    """Least distance of an accuracy from guessing, in noises (SD) of one run."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"search.task_quality.{name}", "out of range", found=value, allowed=allowed)
            for name, value, good, allowed in (
                (
                    "min_variance_ratio",
                    self.min_variance_ratio,
                    0.0 <= self.min_variance_ratio < float("inf"),
                    ">= 0",
                ),
                (
                    "min_monotonicity",
                    self.min_monotonicity,
                    -1.0 <= self.min_monotonicity <= 1.0,
                    "-1 to 1",
                ),
                (
                    "min_above_chance",
                    self.min_above_chance,
                    0.0 <= self.min_above_chance < float("inf"),
                    ">= 0",
                ),
            )
            if not good
        ]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """One study: its question, where it looks, how, and at what price."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    question: str = ""
    """What the study is to answer, in a sentence."""
    space: SearchSpaceSpec | None = None
    """Where it looks; None = a plain Hydra sweep, each combination a trial."""
    strategy: StrategySpec = field(default_factory=StrategySpec)
    """Which trials, in which order."""
    objectives: Mapping[str, ObjectiveSpec] = field(
        default_factory=lambda: {"score": ObjectiveSpec()}
    )
    """Name → objective; more than one searches for the Pareto front. A null entry is left out."""
    constraints: Mapping[str, ConstraintSpec] = field(default_factory=dict)
    """Name → bound on a measured metric."""
    task_quality: TaskQualitySpec = field(default_factory=TaskQualitySpec)
    """Whether metrics that cannot tell mixtures apart leave the score."""
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    """How much it may spend."""
    confirm: ConfirmSpec = field(default_factory=ConfirmSpec)
    """What is run again with seeds."""
    seeds: tuple[int, ...] = ()
    """Seeds of every trial while exploring; empty = the run's own ``seed``. One is enough: extra
    mixtures beat extra seeds in 6 of 8 cells measured (docs/search.md)."""
    max_failures: int = 3
    """Failed trials that a study puts up with; one more ends it."""
    attempts: int = 3
    """Launches of a run that keeps dying without a word before it counts as failed."""
    workers: int | None = None
    """Runs in flight; None = what the launcher can hold."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"search.{name}", "not a count", found=value, allowed=f">= {least}")
            for name, value, least in (
                ("max_failures", self.max_failures, 0),
                ("attempts", self.attempts, 1),
                ("workers", 1 if self.workers is None else self.workers, 1),
                ("strategy.design_trials", self.strategy.design_trials or 0, 0),
                ("confirm.finalists", self.confirm.finalists, 0),
            )
            if value < least
        ]
        problems += [
            Problem(
                where, "not seeds", found=list(seeds), allowed="whole numbers from 0 on, each once"
            )
            for where, seeds in (
                ("search.seeds", self.seeds),
                ("search.confirm.seeds", self.confirm.seeds),
            )
            if len(set(seeds)) < len(seeds) or min(seeds, default=0) < 0
        ]
        if not self.objectives:
            problems.append(Problem("search.objectives", "a study needs an objective"))
        problems += self._quality_problems()
        if self.space is not None and self.budget.unlimited:
            problems.append(
                Problem(
                    "search.budget",
                    "no limit is said",
                    do="say search.budget.trials, tokens, flops or gpu_hours",
                )
            )
        if problems:
            raise ConfigError(problems)

    def _quality_problems(self) -> list[Problem]:
        if not self.task_quality.apply:
            return []
        where = "search.task_quality.apply"
        if self.space is None:
            return [
                Problem(where, "a plain sweep has no design that could decide", allowed="false")
            ]
        if all(objective.metrics != ("score",) for objective in self.objectives.values()):
            return [Problem(where, "no objective is made of the score", allowed="false")]
        return []
