"""Meaning of a file for nanotron, apart from the way it is written.

Two files mean the same if main would train the same model on the same folders, at the same normalised
weights, over the same steps, at the same learning rate. Numbers are rounded to twelve digits, because
sums in different orders differ in the sixteenth.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from sweeps.nanotron_files.learning_rates import decay_window
from sweeps.nanotron_files.minimal_yaml import OWNERS
from sweeps.nanotron_files.recorded_schema import REQUIRED, Branch, recorded
from sweeps.nanotron_files.sections import NanotronFile
from sweeps.nanotron_files.semantics import folders_of


def meaning(file: NanotronFile, branch: Branch = "main") -> dict[str, Any]:
    """Return the values that decide what ``branch`` trains, with its defaults filled in."""
    optimizer = with_all_defaults(file.optimizer, branch)
    optimizer["weight_decay_exclude_named_params"] = list(
        file.optimizer.weight_decay_exclude_named_params or ()
    )
    rate, checkpoints = file.optimizer.learning_rate_scheduler, file.checkpoints
    start, steps = decay_window(rate, file.tokens.train_steps)
    least = rate.learning_rate if rate.min_decay_lr is None else rate.min_decay_lr
    optimizer["learning_rate_scheduler"] |= {
        "lr_decay_style": rate.lr_decay_style or "linear",
        "lr_decay_steps": steps,
        "lr_decay_starting_step": start,
        "min_decay_lr": float(f"{least:.12g}"),
    }
    stages = []
    for stage, count in zip(file.data_stages, file.stage_steps(), strict=True):
        folders = folders_of(stage)
        total = math.fsum(folders.values())
        weights = [(name, float(f"{weight / total:.12g}")) for name, weight in folders.items()]
        seed = 42 if stage.data.seed is None else stage.data.seed
        stages.append((stage.name, stage.start_training_step, count, seed, weights))
    return {
        "model": with_all_defaults(file.model, branch),
        "tokenizer": file.tokenizer_name,
        "stages": stages,
        "sequence_length": file.tokens.sequence_length,
        "batch_size": file.batch_size,
        "train_steps": file.tokens.train_steps,
        "optimizer": optimizer,
        "seed": 42 if file.general.seed is None else file.general.seed,
        "load_optimizer": checkpoints.load_optimizer is not False,
        "load_lr_scheduler": checkpoints.load_lr_scheduler is not False,
    }


def with_all_defaults(value: Any, branch: Branch) -> Any:
    """Return the plain values of a section, the branch's defaults in place of None."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    record, owner = recorded(branch), OWNERS[type(value)]
    made = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item is None and field.name in record.classes[owner]:
            default = record.default(owner, field.name)
            item = None if default is REQUIRED else default
        made[field.name] = with_all_defaults(item, branch)
    return made
