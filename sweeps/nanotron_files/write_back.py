"""Write an import back: fill the values of our configs into the imported file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablations.config.schema import validate
from ablations.errors import ConfigError, Problem
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.mixture.specs import MixtureSpec, ScheduleSpec
from ablations.training.specs import ModelSpec, TrainingSpec
from sweeps.nanotron_files.document import parse
from sweeps.nanotron_files.learning_rates import rate_config
from sweeps.nanotron_files.minimal_yaml import text_of
from sweeps.nanotron_files.model_sections import LlamaModel, Model, Qwen2Model, RandomInit
from sweeps.nanotron_files.recorded_schema import Branch
from sweeps.nanotron_files.sections import (
    AdamW,
    LearningRateScheduler,
    NanotronFile,
    StageSection,
    TokenFolders,
)
from sweeps.nanotron_files.semantics import folders_of

__all__ = ["SHARED_MODEL_KEYS", "Specs", "text_back", "write_back"]

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
"""Fields that our model spec and main's have by the same name."""


@dataclass(frozen=True, kw_only=True)
class Specs:
    """Part of a run's config that a file for nanotron contains too."""

    schedule: ScheduleSpec
    mixture: MixtureSpec
    model: ModelSpec
    training: TrainingSpec

    @classmethod
    def of_plain(cls, configs: Mapping[str, Mapping[str, Any]], name: str) -> Specs:
        """Return the specs of imported config files, ``group/name`` → plain values."""
        return cls(
            schedule=validate(ScheduleSpec, configs[f"schedule/{name}"]),
            mixture=validate(MixtureSpec, configs[f"mixture/{name}"]),
            model=validate(ModelSpec, configs[f"model/{name}"]),
            training=validate(TrainingSpec, configs[f"training/{name}"]),
        )

    def built(self) -> tuple[Schedule, LearningRate]:
        """Return the schedule in whole steps, and the learning rate over it."""
        schedule = self.schedule.build(
            self.mixture,
            sequence_length=self.training.sequence_length,
            batch_size=self.training.batch_size,
        )
        rate = self.schedule.lr.build(peak=self.training.peak_lr, schedule=schedule)
        return schedule, rate


def text_back(specs: Specs, sidecar: Mapping[str, Any], heading: str = "") -> str:
    """Return :func:`write_back` as YAML, with the keys of the imported file."""
    branch: Branch = sidecar["nanotron"]
    file = write_back(specs, sidecar)
    return text_of(file, heading, read=sidecar["document"], branch=branch)


def write_back(specs: Specs, sidecar: Mapping[str, Any]) -> NanotronFile:
    """Return the imported file with the values of our configs.

    Args:
        specs: Our configs, changed or not.
        sidecar: See :class:`.import_published.Imported`.

    Raises:
        ConfigError: the configs no longer fit the file's ranks.
    """
    original = _spelled_out(parse(sidecar["document"], sidecar["nanotron"]))
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


def _spelled_out(file: NanotronFile) -> NanotronFile:
    """Return ``file`` with the tokenizer and the vocabulary of its folders.

    Nanotron asserts that a folder's tokenizer is the run's and its vocabulary the model's. A file
    that leaves them to the folder's metadata loads only on machines that have the folder.
    """
    vocabulary = file.model.model_config.vocab_size
    if vocabulary < 1:
        return file
    stages = tuple(
        _with_vocabulary(stage, file.tokenizer_name, vocabulary) for stage in file.data_stages
    )
    return replace(file, data_stages=stages)


def _with_vocabulary(stage: StageSection, tokenizer: str | None, vocabulary: int) -> StageSection:
    dataset = stage.data.dataset
    if not isinstance(dataset, TokenFolders):
        return stage
    if dataset.vocab_size is None:
        dataset = replace(dataset, vocab_size=vocabulary)
    if dataset.tokenizer_name is None and tokenizer is not None:
        # Nanotron compares a named tokenizer and the width of its tokens with the metadata.
        width = dataset.token_size_in_bytes or (4 if vocabulary > 2**16 else 2)
        dataset = replace(dataset, tokenizer_name=tokenizer, token_size_in_bytes=width)
    return replace(stage, data=replace(stage.data, dataset=dataset))


def _scheduler_back(original: NanotronFile, rate: LearningRate) -> LearningRateScheduler:
    scheduler = original.optimizer.learning_rate_scheduler
    read = {key: value for key, value in rate_config(original).items() if key != "kind"}
    as_read = LearningRate(
        peak=scheduler.learning_rate, total_steps=original.tokens.train_steps, **read
    )
    if rate == as_read:
        return scheduler  # unchanged, so that nulls stay null
    flat = scheduler.lr_warmup_style == "constant" and rate.warmup_steps == 0
    scheduler = replace(
        scheduler,
        learning_rate=rate.peak,
        lr_warmup_steps=scheduler.lr_warmup_steps if flat else rate.warmup_steps,
        lr_warmup_style="constant" if flat else "linear",
    )
    if not rate.decay_steps:
        return replace(scheduler, min_decay_lr=rate.peak)
    return replace(
        scheduler,
        lr_decay_steps=rate.decay_steps,
        lr_decay_starting_step=rate.decay_start,
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
    # A changed list has no matching local copies; main then reads the folders themselves.
    unchanged = folders == list(folders_of(kept))
    equal = dataset.dataset_weights is None and len(set(weights.values())) == 1
    dataset = replace(
        dataset,
        dataset_folder=tuple(folders),
        dataset_weights=None if equal else tuple(weights.values()),
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
