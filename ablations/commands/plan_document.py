"""The plan of a run as a document for programs (``ablate plan json=true``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ablations.config.schema import RunConfig
from ablations.plan import Plan, PlannedMemory
from ablations.price import Cost

__all__ = [
    "PlanResult",
    "PlannedSource",
    "PlannedStage",
    "RankMemory",
    "SourceToPrepare",
    "plan_result",
]


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One stage of the schedule."""

    name: str
    first_step: int
    """Its first step, counted from 1."""
    last_step: int
    tokens: int
    """Tokens that the stage trains on."""
    weights: Mapping[str, float]
    """Source → share of the stage's tokens."""


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """One source over the whole schedule."""

    name: str
    domain: str
    tokens: float
    """Tokens that the schedule reads of it."""
    available_tokens: float
    """Tokens that it has: of the prepared store, else what preparing it should give."""
    prepared: bool
    """True if a token store exists."""
    epochs: float
    """Times that it is read."""
    over_cap: bool
    """True if that is more than ``mixture.epoch_cap``, or than the law of repeats passes; exempt sources
    included."""


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Memory of one rank on a device, in bytes."""

    device: str
    total_bytes: float | None
    """None if the training does not fit."""
    micro_batch_size: int | None
    """Samples of one forward pass."""
    micro_batches: int | None
    """Forward passes of one step."""
    reason: str | None
    """Reason why it does not fit."""


@dataclass(frozen=True, kw_only=True)
class SourceToPrepare:
    """Text expected to be read, stored and downloaded for one source."""

    name: str
    basis: str
    """``its text``, ``a sample of its text``, or ``published size``."""
    documents: float | None
    """Documents kept and held out; null if nothing tells."""
    text_bytes: float
    """UTF-8 bytes of their texts."""
    tokens: float
    """Training tokens."""
    download_bytes: float | None
    """Bytes that come over the network; null if nothing tells."""
    store_bytes: float
    """Size of the store."""
    peak_bytes: float
    """Largest size while it is made."""


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """Plan of one run."""

    study: str
    total_tokens: int
    total_steps: int
    tokens_per_step: int
    batch_size: int
    """Samples of one step."""
    sequence_length: int
    """Tokens of one sample."""
    stages: tuple[PlannedStage, ...]
    sources: tuple[PlannedSource, ...]
    peak_lr: float
    """Peak learning rate."""
    warmup_steps: int
    parameters: int
    """Parameters of the model, embeddings included."""
    embedding_parameters: int
    flops: float
    """Training FLOPs."""
    seconds: Mapping[str, float]
    """Device → estimated seconds of training on one of them."""
    disk_bytes: float
    """Largest size of the checkpoints and exports that the run keeps."""
    checkpoint_steps: tuple[int, ...]
    """Steps after which a checkpoint is scored."""
    tasks: tuple[str, ...]
    """Names of the tasks."""
    memory: tuple[RankMemory, ...]
    cost: Cost
    """Time and price of training on the configured devices."""
    to_prepare: tuple[SourceToPrepare, ...]
    """Sources without a token store."""
    full_run: Cost | None
    """Time and price of the full run that ``full=…`` names; null without one."""


def plan_result(run: RunConfig, plan: Plan, full_run: Cost | None = None) -> PlanResult:
    """Return the document of a plan.

    Args:
        run: The run.
        plan: Its plan.
        full_run: Cost of the run on the cluster of its ``full`` config; None if it is no full run.
    """
    schedule = plan.schedule
    return PlanResult(
        study=run.study,
        total_tokens=schedule.total_tokens,
        total_steps=schedule.total_steps,
        tokens_per_step=schedule.tokens_per_step,
        batch_size=schedule.batch_size,
        sequence_length=schedule.sequence_length,
        stages=_stages(plan),
        sources=_sources(run, plan),
        peak_lr=plan.learning_rate.peak,
        warmup_steps=plan.learning_rate.warmup_steps,
        parameters=plan.parameters,
        embedding_parameters=plan.embedding_parameters,
        flops=plan.flops,
        seconds=dict(plan.seconds),
        disk_bytes=plan.disk_bytes,
        checkpoint_steps=plan.checkpoint_steps,
        tasks=plan.tasks,
        memory=_memory(plan),
        cost=plan.cost,
        to_prepare=tuple(
            SourceToPrepare(name=name, **vars(one)) for name, one in plan.to_prepare.items()
        ),
        full_run=full_run,
    )


def _stages(plan: Plan) -> tuple[PlannedStage, ...]:
    schedule = plan.schedule
    return tuple(
        PlannedStage(
            name=stage.name,
            first_step=schedule.first_step(index) + 1,
            last_step=schedule.first_step(index + 1),
            tokens=stage.steps * schedule.tokens_per_step,
            weights={name: weight for name, weight in stage.mixture.items() if weight > 0.0},
        )
        for index, stage in enumerate(schedule.stages)
    )


def _sources(run: RunConfig, plan: Plan) -> tuple[PlannedSource, ...]:
    read = plan.schedule.tokens()
    return tuple(
        PlannedSource(
            name=name,
            domain=run.source[name].domain,
            tokens=read[name],
            available_tokens=plan.available_tokens[name],
            prepared=plan.prepared[name],
            epochs=plan.epochs[name],
            over_cap=plan.epochs[name] > run.mixture.most_epochs,
        )
        for name in plan.schedule.sources
    )


def _memory(plan: Plan) -> tuple[RankMemory, ...]:
    return tuple(_rank_memory(device, planned) for device, planned in plan.memory.items())


def _rank_memory(device: str, planned: PlannedMemory | str) -> RankMemory:
    if isinstance(planned, str):
        return RankMemory(
            device=device,
            total_bytes=None,
            micro_batch_size=None,
            micro_batches=None,
            reason=planned,
        )
    return RankMemory(
        device=device,
        total_bytes=planned.memory.total,
        micro_batch_size=planned.cut.micro_batch_size,
        micro_batches=planned.cut.micro_batches,
        reason=None,
    )
