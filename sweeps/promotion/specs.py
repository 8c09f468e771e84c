"""Options of a promotion: the full run's budget, its cluster, its cost, and the gates' limits.

The full run's model, batch, learning rate and tokenizer are its own config groups. A promotion takes
only the mixture of each stage and the stages' shares of the budget from the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, ClassVar

from ablations.errors import ConfigError, Problem
from ablations.mixture.specs import LearningRateSpec
from ablations.price import PriceSpec
from ablations.record.identity import folder_problem
from ablations.sbatch import partition_problems, time_problems
from sweeps.nanotron_files.recorded_schema import Branch

__all__ = [
    "GATES",
    "ClusterSpec",
    "FullSpec",
    "FullStage",
    "LimitSpec",
    "PostStageSpec",
    "PriceSpec",
    "PromotionSpec",
]

_FORBID: dict[str, Any] = {"extra": "forbid"}

GATES = (
    "beats_baseline",
    "epoch_caps",
    "audit",
    "contamination",
    "second_proxy",
    "token_counts",
    "one_tokenizer",
    "surrogate_evidence",
)
"""The gates, in the order in which they are printed."""


_TAKEN = ("promoted", "baseline", "full", "chain")
"""Names of a promotion's own experiments and runs."""


@dataclass(frozen=True, kw_only=True)
class FullStage:
    """Stage of the full run for a mixture that was searched without stages."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    share: float
    """Share of the full budget."""
    add: Mapping[str, float] = field(default_factory=dict)
    """Source → share of the stage's tokens reserved for it; the promoted mixture fills the rest."""


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """Cluster on which the full run is trained."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 8
    """GPUs per machine."""
    cpus_per_task: int = 88
    """Cores requested on each machine."""
    tp: int = 1
    """Tensor-parallel ranks."""
    pp: int = 1
    """Pipeline ranks."""
    zero_stage: int = 0
    """ZeRO stage: 1 divides the optimiser's state over the data-parallel ranks."""
    micro_batch_size: int = 4
    """Samples per forward pass on one rank."""
    checkpoint_interval_steps: int = 2000
    """Steps between two checkpoints."""
    partition: str = "gpu"
    """Slurm partition."""
    time: str = "72:00:00"
    """Slurm time limit of one job (HH:MM:SS or D-HH); a job that reaches it resumes when resubmitted."""
    folders: str = "datasets/{tokenizer}/{source}/train"
    """Folder of a source's token files on the cluster, laid out as the stores are."""
    checkpoints: str = "checkpoints"
    """Parent folder of the checkpoints on the cluster."""
    nanotron: str = "nanotron"
    """Checkout of nanotron with ``run_train.py``, on the branch given by ``promotion.nanotron``."""

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus_per_node

    @property
    def dp(self) -> int:
        """Data-parallel replicas."""
        return self.gpus // (self.tp * self.pp)

    def __post_init__(self) -> None:
        problems = [*_cluster_numbers(self), *_cluster_texts(self)]
        if not problems and self.gpus % (self.tp * self.pp):
            problems.append(
                Problem(
                    "promotion.full.cluster",
                    "GPUs do not divide over tensor and pipeline ranks",
                    found=f"{self.gpus} GPUs, tp {self.tp}, pp {self.pp}",
                )
            )
        if problems:
            raise ConfigError(problems)


_LEAST = {
    "nodes": 1,
    "gpus_per_node": 1,
    "cpus_per_task": 1,
    "tp": 1,
    "pp": 1,
    "zero_stage": 0,
    "micro_batch_size": 1,
    "checkpoint_interval_steps": 1,
}

_PLACEHOLDERS = {"tokenizer", "source"}


def _cluster_numbers(cluster: ClusterSpec) -> Iterator[Problem]:
    for name, least in _LEAST.items():
        value = getattr(cluster, name)
        if value < least:
            yield Problem(
                f"promotion.full.cluster.{name}",
                "too small",
                found=value,
                allowed=f"{least} or more",
            )


def _cluster_texts(cluster: ClusterSpec) -> Iterator[Problem]:
    where = "promotion.full.cluster"
    yield from partition_problems(f"{where}.partition", cluster.partition)
    yield from time_problems(f"{where}.time", cluster.time)
    for name in ("folders", "checkpoints", "nanotron"):
        value = getattr(cluster, name)
        if not value or not value.isprintable():
            yield Problem(
                f"promotion.full.cluster.{name}",
                "not a path of printable characters",
                found=repr(value),
            )
    try:
        fields = {
            place for _, place, _, _ in Formatter().parse(cluster.folders) if place is not None
        }
    except ValueError:
        fields = {"{"}
    if fields - _PLACEHOLDERS:
        yield Problem(
            "promotion.full.cluster.folders",
            "unknown placeholder",
            found=repr(cluster.folders),
            allowed="{tokenizer} and {source}",
        )


@dataclass(frozen=True, kw_only=True)
class LimitSpec:
    """Limits of the gates."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    contamination_share: float = 0.01
    """Largest share of a task's items that may occur in the text of one source."""
    audit_tolerance: float = 1e-3
    """Largest gap between the realised and the asked share of a stage's tokens."""
    second_proxy_decisions: float = 0.75
    """Smallest share of pairs ranked alike at a second proxy size. 150M proxies rank about 80% of pairs
    correctly (DataDecide, arXiv 2504.11393)."""


@dataclass(frozen=True, kw_only=True)
class FullSpec:
    """Full run that a study is promoted to."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    """Name of the full run: part of the folder's and the jobs' names."""
    total_tokens: float
    """Budget of the full run in tokens."""
    lr: LearningRateSpec
    """Learning rate over the full schedule; the peak is the target's ``training.peak_lr``."""
    stages: Mapping[str, FullStage] | None = None
    """Stages for a mixture that was searched without stages; null = one stage. A study with its own
    stages keeps them and their shares of the budget."""
    tokenizer: str
    """Tokenizer in nanotron's files: hub id, or folder on the cluster."""
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    """Cluster on which it is trained."""
    price: PriceSpec = field(default_factory=PriceSpec)
    """Assumptions of the cost estimate."""

    def __post_init__(self) -> None:
        problem = folder_problem("promotion.full.name", self.name)
        problems = [] if problem is None else [problem]
        if self.stages is None:
            if problems:
                raise ConfigError(problems)
            return
        total = sum(stage.share for stage in self.stages.values())
        if abs(total - 1.0) > 1e-6:
            problems.append(
                Problem("promotion.full.stages", "shares do not sum to 1", found=f"{total:.8g}")
            )
        for name, stage in self.stages.items():
            if sum(stage.add.values()) > 1.0 or min(stage.add.values(), default=0.0) < 0.0:
                problems.append(
                    Problem(
                        f"promotion.full.stages.{name}.add", "not shares", found=dict(stage.add)
                    )
                )
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class PostStageSpec:
    """Stage of post-training that follows a full run: the pick of a study of method=sft or dpo."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    study: str
    """Study with a verdict, whose runs were fine-tuned or preferred."""
    pick: str | None = None
    """Candidate, by name or trial; null = the winner of its verdict, else its baseline; the verdict's pick
    if it has no baseline."""


@dataclass(frozen=True, kw_only=True)
class PromotionSpec:
    """Options of one promotion."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    full: FullSpec
    """The full run."""
    pick: str | None = None
    """Candidate to promote, by name or trial; null = the verdict's pick, or the baseline if the
    verdict keeps it."""
    after: Mapping[str, PostStageSpec] = field(default_factory=dict)
    """Name → stage after the full run, in order, each from the model of the one before; by convention sft,
    dpo."""
    nanotron: Branch = "main"
    """Branch of nanotron for which the chain is written and checked: main or smollm3."""
    out: str = "promotions"
    """Parent folder of the promotions."""
    by: str | None = None
    """Name of the person who promotes; null = the user of this process."""
    override: Mapping[str, str] = field(default_factory=dict)
    """Gate → reason for promoting although it is not passed, three words or more; it is recorded."""
    limits: LimitSpec = field(default_factory=LimitSpec)
    """Limits of the gates."""
    second_study: str | None = None
    """Study at another proxy size whose ranking must agree; null = none was run."""
    contamination_tasks: tuple[str, ...] = ()
    """Tasks whose items are searched for in the sources; empty = every task of the evaluation that has
    an item file."""

    def __post_init__(self) -> None:
        problems = [
            problem for name in self.after if (problem := folder_problem("promotion.after", name))
        ]
        problems += [
            Problem(f"promotion.after.{name}", "the name of a full run", found=name)
            for name in self.after
            if name in _TAKEN
        ]
        for gate, reason in self.override.items():
            if gate not in GATES:
                problems.append(
                    Problem(f"promotion.override.{gate}", "no such gate", allowed=", ".join(GATES))
                )
            elif len(reason.split()) < 3:
                problems.append(
                    Problem(
                        f"promotion.override.{gate}",
                        "an override needs its reason",
                        found=repr(reason),
                        allowed="a sentence, three words or more",
                    )
                )
        if problems:
            raise ConfigError(problems)
