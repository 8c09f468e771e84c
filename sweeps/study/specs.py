"""Specification of a study, as given in ``conf/search``: plain data, checked on construction.

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
from sweeps.study.spec_contradictions import contradictions

__all__ = [
    "BudgetSpec",
    "ConfirmSpec",
    "ConstraintSpec",
    "Direction",
    "FidelitySpec",
    "ObjectiveSpec",
    "Proposer",
    "SearchSpec",
    "StrategySpec",
    "TaskQualitySpec",
    "loss_sign",
]

Direction = Literal["maximize", "minimize"]
Proposer = Literal["surrogate", "tpe", "gp", "cmaes", "qmc", "random"]


def loss_sign(direction: Direction | None) -> float:
    """Return the factor that turns a value so that less is better; None counts as ``minimize``."""
    return -1.0 if direction == "maximize" else 1.0


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """Number that a study optimises, computed from the results of a run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    metrics: tuple[str, ...] = ("score",)
    """``score`` (the run's own), or patterns of ``<task>/<metric>``; the mean of all that match."""
    direction: Direction | None = None
    """Better direction; None = ``evaluation.score.direction``, allowed for ``score`` alone."""


@dataclass(frozen=True, kw_only=True)
class ConstraintSpec:
    """Bound on a measured metric; epoch caps are bounds of the search space instead."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    metrics: tuple[str, ...]
    """``score`` or patterns of ``<task>/<metric>``; the mean of all that match."""
    direction: Direction = "minimize"
    """Better direction of the metric."""
    bound: float | None = None
    """Worst value allowed."""
    margin: float | None = None
    """Largest distance by which a trial may be worse than the baseline, in the metric's unit."""

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
    """Strategy of a search: which trials it runs, and in which order."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    baselines: tuple[Literal["natural", "uniform", "unimax"], ...] = (
        "natural",
        "uniform",
        "unimax",
    )
    """Standing baselines, run before all other trials."""
    mixtures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Name → weights of further mixtures, run together with the baselines."""
    baseline: str = "natural"
    """Trial that the verdict compares with: a name from ``baselines`` or ``mixtures``."""
    design: Literal["sobol", "sobol-edges", "dirichlet", "maximin", "d-optimal"] = "sobol-edges"
    """Method that fills the space before the first proposal."""
    design_trials: int | None = None
    """Trials of the design; None = max(20, 6 × sources), at most 2/3 of what the baselines leave."""
    proposer: Proposer = "surrogate"
    """Source of proposals after the design: the surrogate, an Optuna sampler, or random draws."""
    batch: int = 4
    """Trials proposed at a time; batches of 5 are as good as single proposals (docs/search.md)."""
    pruner: Literal["none", "median"] = "none"
    """``median`` ends runs whose loss is above the median at the same step. The default is ``none``
    because the loss curves of mixtures cross early."""
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
    """Budget of a study; every limit that is set applies, exploring and confirming separately."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    trials: int | None = None
    """Number of trials that explore, baselines and failed trials included."""
    tokens: float | None = None
    """Trained tokens of all runs."""
    flops: float | None = None
    """Training FLOPs of all runs."""
    gpu_hours: float | None = None
    """Wall-clock hours of all runs, times the devices of a run (a CPU slot counts as one device)."""
    confirm_share: float = 0.25
    """Share of ``tokens``, ``flops`` and ``gpu_hours`` reserved for confirming the finalists."""

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
        """Return whether no limit is set."""
        return self.trials is self.tokens is self.flops is self.gpu_hours is None


@dataclass(frozen=True, kw_only=True)
class ConfirmSpec:
    """Confirmation: which trials are run again with more seeds after exploring."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    finalists: int = 3
    """Number of best trials to confirm in addition to the baseline; 0 = none."""
    pick: bool = True
    """Add the optimum of the surrogate to the finalists, as a trial of its own."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each finalist and of the baseline after confirmation."""


@dataclass(frozen=True, kw_only=True)
class TaskQualitySpec:
    """Criteria that a metric must meet to be part of the study's score.

    Metrics that cannot distinguish mixtures are removed from the score. The decision is made once,
    before the first proposal, and kept in ``study.json``: from then on the surrogate, the finalists,
    every table and the verdict use the same score. Held-out text, and metrics that a term of the
    score names in full, always count.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    apply: bool = False
    """Remove these metrics from the score; false = only measure and report the criteria."""
    study: str | None = None
    """Earlier study under ``runs_dir`` to decide from; null = baselines and design of this study."""
    min_variance_ratio: float = 1.0
    """Lowest ratio of the variance between mixtures to the noise variance of one run."""
    min_monotonicity: float = 0.5
    """Lowest mean Spearman correlation of an accuracy with tokens."""
    min_above_chance: float = 3.0
    """Lowest distance of an accuracy from chance, in standard deviations of one run's noise."""

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
class FidelitySpec:
    """Low rung of a study: a share of the tokens at which explored runs pause.

    Cheap runs choose which mixtures go on to the end; the verdict rests on full runs alone.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    share: float | None = None
    """Share of a run's tokens at which designed and proposed runs pause, on the plateau of the learning
    rate; .3 is a good choice. null = every run goes to its end."""
    model: str | Mapping[str, int | float | bool] | None = None
    """Smaller model of designed and proposed runs: a name of ``conf/model``, or values of ``model`` that
    differ, such as {hidden_size: 64}. They end at the share, and the best mixtures are run in full. null =
    the model of all runs; the best runs go on."""

    def __post_init__(self) -> None:
        if self.share is None and self.model is not None:
            raise ConfigError(
                Problem(
                    "search.fidelity.model",
                    "needs the share of the tokens at which its runs end",
                    do="set search.fidelity.share, for example to 0.3",
                )
            )
        if self.share is not None and not 0.0 < self.share < 1.0:
            raise ConfigError(
                Problem(
                    "search.fidelity.share",
                    "not a share of a run",
                    found=self.share,
                    allowed="above 0 and below 1, or null",
                )
            )


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """Specification of one study: question, search space, strategy and budget."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    question: str = ""
    """Question that the study answers, in one sentence."""
    space: SearchSpaceSpec | None = None
    """Search space; None = a plain Hydra sweep, where each combination is a trial."""
    strategy: StrategySpec = field(default_factory=StrategySpec)
    """Trials and their order."""
    objectives: Mapping[str, ObjectiveSpec] = field(
        default_factory=lambda: {"score": ObjectiveSpec()}
    )
    """Name → objective; several objectives search for the Pareto front. A null entry is ignored."""
    constraints: Mapping[str, ConstraintSpec] = field(default_factory=dict)
    """Name → bound on a measured metric."""
    task_quality: TaskQualitySpec = field(default_factory=TaskQualitySpec)
    """Criteria for the metrics of the score."""
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    """Limits on trials, tokens, FLOPs and GPU-hours."""
    confirm: ConfirmSpec = field(default_factory=ConfirmSpec)
    """Trials to run again with more seeds."""
    fidelity: FidelitySpec = field(default_factory=FidelitySpec)
    """Low rung that explored runs pause at."""
    trunks: bool = False
    """Train the steps that trials have in common once, and start the trials from there, with the same losses.
    For trials that differ after some step only: a search of the last stage, arms with other decays."""
    evidence: tuple[str, ...] = ()
    """Earlier studies under ``runs_dir`` whose finished runs the surrogate is fitted to as well."""
    evidence_split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Source of an earlier study → the sources that it was split into, in this study."""
    seeds: tuple[int, ...] = ()
    """Seeds of each trial while exploring; empty = the run's own ``seed``. One is enough: more
    mixtures beat more seeds in 6 of 8 cells measured (docs/search.md)."""
    max_failures: int = 3
    """Number of failed trials allowed; one more ends the study."""
    attempts: int = 3
    """Number of launches of a run that ends without a result, before it counts as failed."""
    workers: int | None = None
    """Number of runs in flight; None = the capacity of the launcher. With ``runs_per_job``, of jobs."""
    runs_per_job: int = 1
    """Most runs that one job of ``hydra/launcher=slurm`` or ``submitit_local`` does, one after another."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"search.{name}", "not a count", found=value, allowed=f">= {least}")
            for name, value, least in (
                ("max_failures", self.max_failures, 0),
                ("attempts", self.attempts, 1),
                ("workers", 1 if self.workers is None else self.workers, 1),
                ("runs_per_job", self.runs_per_job, 1),
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
        problems += contradictions(self)
        if self.space is not None and self.budget.unlimited:
            problems.append(
                Problem(
                    "search.budget",
                    "no limit is set",
                    do="set search.budget.trials, tokens, flops or gpu_hours",
                )
            )
        if problems:
            raise ConfigError(problems)
