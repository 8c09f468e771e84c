"""Plan of a run before it starts: tokens, epochs, steps, FLOPs, time, memory, disk, and the rules it breaks.

This module does not train, write or import torch. A source that is not prepared counts with what its
preparation is expected to give (:mod:`ablations.data.expected`), so that an 11T-token schedule can be
planned on a laptop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.schema import RunConfig
from ablations.errors import ConfigError, DataError, Problem
from ablations.evaluation.metric_matching import score_problems
from ablations.mixture.constraints import broken_caps, simulated_slices
from ablations.mixture.repeats import PUBLISHED, effective_tokens, runs_out
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.pause_step import pause_step, trunk_step
from ablations.precision import with_precision
from ablations.price import Cost, PriceSpec, cost_of
from ablations.row_plan import guard_problems, row_parts, too_long_with_pictures
from ablations.training.checkpoints import read_state
from ablations.training.planned_memory import PlannedMemory, planned_memory
from ablations.training.specs import ExecutionSpec
from ablations.training.visible_gpus import visible_gpus
from ablations.training.vision import VisionLoad

if TYPE_CHECKING:
    from ablations.data.expected import Expected
    from ablations.data.store import TokenStore

__all__ = ["Plan", "PlanRow", "PlannedMemory", "checkpoint_bytes", "make_plan"]

_CPU_FLOPS = 60e9
"""FLOP/s of two laptop cores on a model of some million parameters in float32 (measured: 11M
parameters, sequence 256, 1.1k tokens per CPU-second: docs/decisions/run.md)."""

_GPU_FLOPS = 989e12 * 0.40
"""FLOP/s of an H100: its dense bf16 peak (NVIDIA's data sheet) at 40% utilisation; assumed, not measured."""

_BYTES_PER_PARAMETER = {"float32": 12, "bfloat16": 14}
"""Checkpoint bytes per parameter: weights, two Adam moments, for bfloat16 a float32 copy of the weights."""


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """Share of one source in one stage."""

    stage: str
    source: str
    weight: float
    tokens: float
    """Tokens of the stage that come from the source."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of a run: the data that it reads, its steps and cost, and the rules that it breaks."""

    schedule: Schedule
    learning_rate: LearningRate
    rows: tuple[PlanRow, ...]
    available_tokens: Mapping[str, float]
    """Source → tokens (sft, dpo, vlm: rows) that a run can read: of its store, or what preparing it gives."""
    prepared: Mapping[str, bool]
    """Source → True if a token store exists."""
    to_prepare: Mapping[str, Expected]
    """Source without a store → what preparing it reads, stores and downloads."""
    epochs: Mapping[str, float]
    """Source → epochs over the whole schedule, simulated epoching included."""
    effective_tokens: Mapping[str, float]
    """Source → fresh tokens that its tokens are worth, by the law of repeats: the config's, else the
    published one; empty for conversations and pairs, which the law does not cover."""
    runs_out: Mapping[str, int]
    """Source → step after which every token of it was read once; sources that last are left out."""
    slices: Mapping[str, int] | None
    """Source → windows that may be read under simulated epoching; None without it."""
    parameters: int
    """Parameters of the model, its vision part included."""
    embedding_parameters: int
    vision: VisionLoad | None
    """Vision part of a run with method=vlm, with the pictures of the row with the most of them."""
    flops: float
    """FLOPs of the training, without the steps that a warm start leaves out."""
    seconds: Mapping[str, float]
    """Device → estimated seconds of training on one such device."""
    cost: Cost
    """Time and price of training with the execution that is configured."""
    memory: Mapping[str, PlannedMemory | str]
    """GPU → division of the batch and memory of one rank, or the reason why it does not fit."""
    disk_bytes: float
    """Largest size of the checkpoints and exports that the run keeps."""
    first_step: int
    """Number of the schedule's steps that a warm start leaves out; 0 without one."""
    checkpoint_steps: tuple[int, ...]
    stop_step: int | None
    """Step at which the run pauses; None = it goes to its end."""
    trunk_step: int | None
    """Step up to which the run shares its training with others of its study; None = it trains alone."""
    tasks: tuple[str, ...]
    problems: tuple[Problem, ...]
    """Rules that the run would break; a run that breaks one is refused."""

    def require(self) -> None:
        """Raise :class:`ConfigError` with every rule that is broken."""
        if self.problems:
            raise ConfigError(self.problems)


def make_plan(
    config: RunConfig, *, mirror: str | Path | None = None, price: PriceSpec | None = None
) -> Plan:
    """Return the plan of a run, its problems included.

    Args:
        config: The run.
        mirror: Folder that stands for the hub when sources are prepared.
        price: What a GPU can do and costs; None = the defaults.
    """
    config = with_precision(config)
    schedule = config.build_schedule()
    stores, problems = _open_stores(config, schedule)
    if config.method.of_rows:
        return _plan_of_rows(config, schedule, stores, problems, price)
    to_prepare = _to_prepare(config, [n for n in schedule.sources if n not in stores], mirror)
    available = {
        name: float(stores[name].num_tokens) if name in stores else to_prepare[name].tokens
        for name in schedule.sources
    }
    slices = _slices(config, schedule, stores)
    readable = {
        name: (slices or {}).get(name, 0) * schedule.sequence_length or available[name]
        for name in schedule.sources
    }
    mixture = config.mixture
    problems += broken_caps(
        schedule,
        readable,
        epoch_cap=mixture.most_epochs,
        exempt=mixture.epoch_cap_exempt,
        law=mixture.repeats,
    )
    problems += _full_run_caps(config, schedule)
    problems += _scoring_problems(config)
    first = _first_step(config)
    trained = schedule.total_tokens - first * schedule.tokens_per_step
    flops = float(config.model.flops_per_token(schedule.sequence_length) * trained)
    return _plan(
        config,
        schedule,
        available=available,
        prepared=stores.keys(),
        epochs=schedule.epochs(readable),
        slices=slices,
        flops=flops,
        first=first,
        problems=problems,
        to_prepare=to_prepare,
        effective=effective_tokens(mixture.repeats or PUBLISHED, schedule, readable),
        ends=runs_out(schedule, readable),
        price=price,
    )


def _plan_of_rows(
    config: RunConfig,
    schedule: Schedule,
    stores: Mapping[str, TokenStore],
    problems: list[Problem],
    price: PriceSpec | None,
) -> Plan:
    """Return the plan of a post-training, whose samples are rows."""
    folders = {name: store.folder for name, store in stores.items()}
    parts = row_parts(config, schedule, {name: store.manifest for name, store in stores.items()})
    problems += too_long_with_pictures(config, folders)
    return _plan(
        config,
        schedule,
        available=parts.available,
        prepared=stores.keys(),
        epochs=parts.epochs,
        flops=parts.flops,
        problems=[*problems, *parts.problems, *_scoring_problems(config)],
        price=price,
        vision=parts.vision,
    )


def _scoring_problems(config: RunConfig) -> list[Problem]:
    scored = score_problems(config.evaluation, config.scored_sources())
    return [*scored, *guard_problems(config)]


def _plan(
    config: RunConfig,
    schedule: Schedule,
    *,
    available: Mapping[str, float],
    prepared: Collection[str],
    epochs: Mapping[str, float],
    flops: float,
    problems: list[Problem],
    price: PriceSpec | None,
    slices: Mapping[str, int] | None = None,
    first: int = 0,
    to_prepare: Mapping[str, Expected] | None = None,
    effective: Mapping[str, float] | None = None,
    ends: Mapping[str, int] | None = None,
    vision: VisionLoad | None = None,
) -> Plan:
    """Return a plan with what every method computes alike."""
    steps = config.training.checkpoint_steps(
        schedule.total_steps, first, in_samples=config.method.of_rows
    )
    learning_rate = config.build_learning_rate(schedule)
    stop, stop_problems = pause_step(config, learning_rate, steps)
    trunk, trunk_problems = trunk_step(config, learning_rate)
    problems += [*stop_problems, *trunk_problems]
    return Plan(
        schedule=schedule,
        learning_rate=learning_rate,
        rows=_rows(schedule),
        available_tokens=available,
        prepared={name: name in prepared for name in schedule.sources},
        to_prepare=to_prepare or {},
        epochs=epochs,
        effective_tokens=effective or {},
        runs_out=ends or {},
        slices=slices,
        parameters=config.model.parameters + (vision.parameters if vision else 0),
        embedding_parameters=config.model.embedding_parameters,
        vision=vision,
        flops=flops,
        seconds={"2 CPU cores": flops / _CPU_FLOPS, "H100 at 40% MFU": flops / _GPU_FLOPS},
        cost=_cost(config.execution, flops, price or PriceSpec()),
        memory=planned_memory(config.model, config.training, config.execution, vision),
        disk_bytes=checkpoint_bytes(config, vision) * len(steps),
        first_step=first,
        checkpoint_steps=steps,
        stop_step=stop,
        trunk_step=trunk,
        tasks=tuple(config.evaluation.tasks),
        problems=tuple(problems),
    )


def _to_prepare(
    config: RunConfig, names: Sequence[str], mirror: str | Path | None
) -> dict[str, Expected]:
    """Return what preparing the named sources gives."""
    if not names:
        return {}
    # Imported here because the plan of prepared sources reads no text.
    from ablations.data.demo.packages import mirror_folder
    from ablations.data.expected import expected_stores

    return expected_stores(
        config.source,
        names,
        config.tokenizer,
        Path(config.data_dir),
        mirror=mirror_folder(mirror),
        vocab_size=config.model.vocab_size,
    )


def _cost(execution: ExecutionSpec, flops: float, price: PriceSpec) -> Cost:
    """Return the cost on the configured devices; the cores of a machine have no price."""
    if execution.device == "cuda" or (execution.device == "auto" and visible_gpus()):
        return cost_of(flops, price, execution.dp * execution.tp * execution.pp)
    hours = flops / _CPU_FLOPS / 3600.0
    return Cost(device="2 CPU cores", devices=1, device_hours=hours, usd=None)


def checkpoint_bytes(config: RunConfig, vision: VisionLoad | None = None) -> float:
    """Return the size of one checkpoint of a run with its export."""
    per_parameter = _BYTES_PER_PARAMETER[config.training.dtype] + 4
    parameters = config.model.parameters + (vision.parameters if vision else 0)
    return float(parameters * per_parameter)


def _first_step(config: RunConfig) -> int:
    """Return the first step of a warm start: as configured, else the checkpoint's own, else 0."""
    start = config.warm_start
    if start.checkpoint is None or start.first_step is not None:
        return start.first_step or 0
    state = read_state(Path(start.checkpoint))
    return state.step if state else 0


def _rows(schedule: Schedule) -> tuple[PlanRow, ...]:
    return tuple(
        PlanRow(
            stage=stage.name,
            source=name,
            weight=weight,
            tokens=weight * stage.steps * schedule.tokens_per_step,
        )
        for stage in schedule.stages
        for name, weight in stage.mixture.items()
    )


def _open_stores(
    config: RunConfig, schedule: Schedule
) -> tuple[dict[str, TokenStore], list[Problem]]:
    """Return the prepared stores of a schedule, and a problem for each one that cannot be used."""
    stores: dict[str, TokenStore] = {}
    problems: list[Problem] = []
    for name in schedule.sources:
        folder = config.store_folder(name)
        if not (folder / "manifest.json").exists():
            continue
        # Imported here because numpy takes a fifth of the time of a plan without prepared sources.
        from ablations.data.store import TokenStore

        try:
            stores[name] = TokenStore.open(folder)
        except DataError as error:
            problems += error.problems
            continue
        # A model after pretraining gets rows for the markers that its tokenizer had not.
        grows = config.method.of_rows
        if not grows and stores[name].manifest.vocab_size > config.model.vocab_size:
            problems.append(
                Problem(
                    "model.vocab_size",
                    f"smaller than the vocabulary of the prepared source {name!r}",
                    found=config.model.vocab_size,
                    allowed=f">= {stores[name].manifest.vocab_size}",
                )
            )
    return stores, problems


def _stated_tokens(config: RunConfig, source: str) -> float:
    return float(config.source[source].tokens_available or 0.0)


def _slices(
    config: RunConfig, schedule: Schedule, stores: Mapping[str, TokenStore]
) -> dict[str, int] | None:
    """Return the windows per source under simulated epoching; None if no larger full budget is given."""
    full = config.schedule.full_tokens
    if full is None or full <= schedule.total_tokens:
        return None
    windows = {name: store.num_windows(schedule.sequence_length) for name, store in stores.items()}
    stated = {name: _stated_tokens(config, name) for name in windows}
    return simulated_slices(schedule, windows, stated, full)


def _full_run_caps(config: RunConfig, schedule: Schedule) -> list[Problem]:
    """Return the epoch caps broken at the full run's budget, over the tokens that the sources state."""
    full = config.schedule.full_tokens
    if full is None:
        return []
    stated: dict[str, Any] = {name: _stated_tokens(config, name) for name in schedule.sources}
    return broken_caps(
        schedule,
        stated,
        epoch_cap=config.mixture.most_epochs,
        full_tokens=full,
        exempt=config.mixture.epoch_cap_exempt,
        law=config.mixture.repeats,
    )
