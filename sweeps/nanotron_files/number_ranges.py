"""Check ranges of numbers that nanotron's loader does not check."""

from __future__ import annotations

from collections.abc import Iterator

from ablations.errors import Problem
from sweeps.nanotron_files.model_sections import Starcoder2Model
from sweeps.nanotron_files.sections import NanotronFile

__all__ = ["MOST_STEPS", "range_problems"]

MOST_STEPS = 10**10
"""Largest number of steps; the longest published run has 5.24 million."""


def range_problems(file: NanotronFile) -> Iterator[Problem]:
    """Yield a problem for each number that no run can be trained with."""
    if not 1 <= file.tokens.train_steps <= MOST_STEPS:
        yield Problem(
            "tokens.train_steps",
            "no number of steps",
            found=file.tokens.train_steps,
            allowed=f"1 to {MOST_STEPS:,}",
        )
    for where, value in _counts(file).items():
        if value < 1:
            yield Problem(where, "must be at least 1", found=value, allowed=">= 1")
    rate = file.optimizer.learning_rate_scheduler
    where = "optimizer.learning_rate_scheduler"
    if not rate.learning_rate > 0:
        yield Problem(f"{where}.learning_rate", "must be above zero", found=rate.learning_rate)
    elif rate.min_decay_lr is not None and not 0 <= rate.min_decay_lr <= rate.learning_rate:
        yield Problem(
            f"{where}.min_decay_lr",
            "outside the range of the rate",
            found=rate.min_decay_lr,
            allowed=f"0 to {rate.learning_rate:g}",
        )
    for name in ("lr_warmup_steps", "lr_decay_steps", "lr_decay_starting_step"):
        value = getattr(rate, name)
        if value is not None and value < 0:
            yield Problem(f"{where}.{name}", "must not be below zero", found=value)


def _counts(file: NanotronFile) -> dict[str, int]:
    """Return path in the file → number that must be at least 1."""
    tokens, ranks, model = file.tokens, file.parallelism, file.model.model_config
    counts = {
        "tokens.sequence_length": tokens.sequence_length,
        "tokens.micro_batch_size": tokens.micro_batch_size,
        "tokens.batch_accumulation_per_replica": tokens.batch_accumulation_per_replica,
        "parallelism.dp": ranks.dp,
        "parallelism.pp": ranks.pp,
        "parallelism.tp": ranks.tp,
        "checkpoints.checkpoint_interval": file.checkpoints.checkpoint_interval,
        "model.model_config.hidden_size": model.hidden_size,
        "model.model_config.num_attention_heads": model.num_attention_heads,
        "model.model_config.num_hidden_layers": model.num_hidden_layers,
    }
    if not isinstance(model, Starcoder2Model) and model.num_key_value_heads is not None:
        counts["model.model_config.num_key_value_heads"] = model.num_key_value_heads
    return counts
