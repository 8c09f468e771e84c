"""An import written back: what our configs say, filled into what the import kept of the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablations.errors import ConfigError, Problem
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.mixture.specs import MixtureSpec, ScheduleSpec
from ablations.schema import RunConfig, validate
from ablations.training.specs import ModelSpec, TrainingSpec
from sweeps.nanotron_files.document import parse
from sweeps.nanotron_files.meaning import folders_of
from sweeps.nanotron_files.model_sections import LlamaModel, Model, Qwen2Model, RandomInit
from sweeps.nanotron_files.sections import (
    AdamW,
    LearningRateScheduler,
    NanotronFile,
    StageSection,
    TokenFolders,
)

__all__ = ["SHARED_MODEL_KEYS", "Specs", "write_back"]

SHARED_MODEL_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
)
"""What our model spec and main's say by the same name."""


@dataclass(frozen=True, kw_only=True)
class Specs:
    """The part of a run's config that a file for main says too."""

    schedule: ScheduleSpec
    mixture: MixtureSpec
    model: ModelSpec
    training: TrainingSpec

    @classmethod
    def of(cls, config: RunConfig) -> Specs:
        """Of a composed config, changed or not."""
        return cls(
            schedule=config.schedule,
            mixture=config.mixture,
            model=config.model,
            training=config.training,
        )

    @classmethod
    def of_plain(cls, configs: Mapping[str, Mapping[str, Any]], name: str) -> Specs:
        """Of config files as they were imported, ``group/name`` → plain values."""
        return cls(
            schedule=validate(ScheduleSpec, configs[f"schedule/{name}"]),
            mixture=validate(MixtureSpec, configs[f"mixture/{name}"]),
            model=validate(ModelSpec, configs[f"model/{name}"]),
            training=validate(TrainingSpec, configs[f"training/{name}"]),
        )

    def built(self) -> tuple[Schedule, LearningRate]:
        """The schedule in whole steps, and the learning rate over it."""
        schedule = self.schedule.build(
            self.mixture,
            sequence_length=self.training.sequence_length,
            batch_size=self.training.batch_size,
        )
        rate = self.schedule.lr.build(peak=self.training.peak_lr, schedule=schedule)
        return schedule, rate


def write_back(specs: Specs, sidecar: Mapping[str, Any]) -> NanotronFile:
    """The file that our configs and what the import kept make together."""
    original = parse(sidecar["document"])
    schedule, rate = specs.built()
    stages = tuple(
        _stage_back(original, specs, schedule, index, sidecar)
        for index in range(len(schedule.stages))
    )
    training = specs.training
    samples = original.tokens.micro_batch_size * original.parallelism.dp
    if training.batch_size % samples:
        raise ConfigError(
            Problem(
                "training.batch_size",
                "does not divide over the file's replicas and micro-batches",
                found=training.batch_size,
                allowed=f"a multiple of {samples}",
            )
        )
    return replace(
        original,
        data_stages=stages,
        model=_model_back(original, specs),
        optimizer=replace(
            original.optimizer,
            learning_rate_scheduler=_scheduler_back(original, rate),
            weight_decay=training.weight_decay,
            clip_grad=training.clip_norm,
            accumulate_grad_in_fp32=training.accumulate_grad_in_fp32,
            optimizer_factory=_adam_back(original, specs),
        ),
        tokens=replace(
            original.tokens,
            train_steps=schedule.total_steps,
            sequence_length=training.sequence_length,
            batch_accumulation_per_replica=training.batch_size // samples,
        ),
    )


def _scheduler_back(original: NanotronFile, rate: LearningRate) -> LearningRateScheduler:
    scheduler = original.optimizer.learning_rate_scheduler
    scheduler = replace(scheduler, learning_rate=rate.peak, lr_warmup_steps=rate.warmup_steps)
    if not rate.decay_steps:
        return scheduler
    # A published decay may start beside where its length says; what it was off by is kept.
    off = 0
    if scheduler.lr_decay_starting_step is not None and scheduler.lr_decay_steps is not None:
        end = scheduler.lr_decay_starting_step + scheduler.lr_decay_steps
        off = end - original.tokens.train_steps
    return replace(
        scheduler,
        lr_decay_steps=rate.decay_steps,
        lr_decay_starting_step=rate.total_steps - rate.decay_steps + off,
        min_decay_lr=rate.peak * rate.min_ratio,
        lr_decay_style=rate.shape,
    )


def _stage_back(
    original: NanotronFile,
    specs: Specs,
    schedule: Schedule,
    index: int,
    sidecar: Mapping[str, Any],
) -> StageSection:
    stage = schedule.stages[index]
    name = sidecar["stages"].get(stage.name, stage.name)
    kept = next((s for s in original.data_stages if s.name == name), original.data_stages[-1])
    dataset = kept.data.dataset
    assert isinstance(dataset, TokenFolders)
    raw = specs.schedule.stages[stage.name].weights
    weights = specs.mixture.weights if raw is None else raw
    folders = [sidecar["folders"].get(source, source) for source in weights]
    # A changed list has no local copies to match: main then reads the folders themselves.
    unchanged = folders == list(folders_of(kept))
    alike = dataset.dataset_weights is None and len(set(weights.values())) == 1
    dataset = replace(
        dataset,
        dataset_folder=tuple(folders),
        dataset_weights=None if alike else tuple(weights.values()),
        dataset_read_path=dataset.dataset_read_path if unchanged else None,
    )
    return replace(
        kept,
        name=name,
        start_training_step=schedule.first_step(index) + 1,
        data=replace(kept.data, dataset=dataset),
    )


def _model_back(original: NanotronFile, specs: Specs) -> Model:
    model = original.model
    shape = model.model_config
    assert isinstance(shape, LlamaModel | Qwen2Model)
    values = {key: getattr(specs.model, key) for key in SHARED_MODEL_KEYS}
    init = model.init_method
    if isinstance(init, RandomInit):
        init = dataclasses.replace(init, std=specs.model.initializer_range)
    if shape.num_key_value_heads is None and values["num_key_value_heads"] == (
        shape.num_attention_heads
    ):
        values["num_key_value_heads"] = None
    return replace(model, model_config=replace(shape, **values), init_method=init)


def _adam_back(original: NanotronFile, specs: Specs) -> AdamW:
    adam, training = original.optimizer.optimizer_factory, specs.training
    assert isinstance(adam, AdamW)
    return replace(
        adam,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_eps=training.adam_eps,
    )
