"""What a file for nanotron's main branch means, apart from how it is written.

Two files mean the same when main would train the same model on the same folders, at the same
normalised weights, over the same steps, at the same learning rate. :func:`meaning` makes that a
value that can be compared; weights are rounded to twelve digits, since a sum in another order
differs in the sixteenth::

    meaning(read(published)) == meaning(write_back(import_(published)))
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.errors import ConfigError, Problem
from sweeps.nanotron_files.learning_rates import decay_window
from sweeps.nanotron_files.minimal_yaml import whole
from sweeps.nanotron_files.recorded_schema import Branch
from sweeps.nanotron_files.sections import (
    LearningRateScheduler,
    NanotronFile,
    StageSection,
    TokenFolders,
)

__all__ = ["Meaning", "folders_of", "meaning", "plain_word", "source_name", "source_names"]

_GENERIC = {"", "standard", "tokenized", "tokenised", "data", "train", "merged", "shuffled"}
"""Last parts of a folder's path that say nothing of the source."""


_MOST_LETTERS = 60

_NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
"""Words that YAML or Hydra read as something else than text."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What main would do with a file."""

    model: Mapping[str, Any]
    """The whole model section."""
    tokenizer: str | None
    stages: tuple[tuple[str, int, int, tuple[tuple[str, float], ...]], ...]
    """Name, first step, steps, and normalised weight by folder, of every stage."""
    sequence_length: int
    batch_size: int
    train_steps: int
    learning_rate: Mapping[str, Any]
    """The scheduler's section with its defaults filled in."""
    optimizer: Mapping[str, Any]
    """The rest of the optimiser's section."""
    seeds: tuple[int, ...]
    """Of the initialisation, then of the order of every stage."""
    load_optimizer: bool
    load_lr_scheduler: bool


def meaning(file: NanotronFile, branch: Branch = "main") -> Meaning:
    """Return the meaning of ``file`` under the defaults of ``branch``."""
    optimizer = whole(file.optimizer, branch)
    optimizer["weight_decay_exclude_named_params"] = list(
        file.optimizer.weight_decay_exclude_named_params or ()
    )
    del optimizer["learning_rate_scheduler"]
    stages = zip(file.data_stages, file.stage_steps(), strict=True)
    checkpoints = file.checkpoints
    return Meaning(
        model=whole(file.model, branch),
        tokenizer=file.tokenizer.tokenizer_name_or_path if file.tokenizer else None,
        stages=tuple(
            (stage.name, stage.start_training_step, steps, tuple(_normalised(stage)))
            for stage, steps in stages
        ),
        sequence_length=file.tokens.sequence_length,
        batch_size=file.batch_size,
        train_steps=file.tokens.train_steps,
        learning_rate=_filled(file.optimizer.learning_rate_scheduler, file.tokens.train_steps),
        optimizer=optimizer,
        seeds=(_seed(file.general.seed), *(_seed(stage.data.seed) for stage in file.data_stages)),
        load_optimizer=checkpoints.load_optimizer is not False,
        load_lr_scheduler=checkpoints.load_lr_scheduler is not False,
    )


def _seed(seed: int | None) -> int:
    return 42 if seed is None else seed


def _filled(rate: LearningRateScheduler, train_steps: int) -> dict[str, Any]:
    start, steps = decay_window(rate, train_steps)
    least = rate.learning_rate if rate.min_decay_lr is None else rate.min_decay_lr
    return {
        "learning_rate": rate.learning_rate,
        "lr_warmup_steps": rate.lr_warmup_steps,
        "lr_warmup_style": rate.lr_warmup_style,
        "lr_decay_style": rate.lr_decay_style or "linear",
        "lr_decay_steps": steps,
        "lr_decay_starting_step": start,
        "min_decay_lr": float(f"{least:.12g}"),
    }


def folders_of(stage: StageSection) -> dict[str, float]:
    """Folder → weight of a stage, as written; equal weights where none are.

    Raises:
        ConfigError: the stage does not read token folders, or names one twice.
    """
    where = f"data_stages.{stage.name}"
    dataset = stage.data.dataset
    if not isinstance(dataset, TokenFolders):
        raise ConfigError(
            Problem(
                where,
                "reads text that is tokenised on the fly, or random tokens",
                allowed="dataset_folder with dataset_weights",
                do="tokenise it first: a mixture needs token counts",
            )
        )
    folders = dataset.dataset_folder
    if isinstance(folders, str):
        return {folders: 1.0}
    if len(set(folders)) != len(folders):
        twice = sorted({folder for folder in folders if folders.count(folder) > 1})
        raise ConfigError(Problem(where, "a folder is listed twice", found=", ".join(twice)))
    weights = dataset.dataset_weights or (1.0,) * len(folders)
    return dict(zip(folders, weights, strict=True))


def _normalised(stage: StageSection) -> list[tuple[str, float]]:
    folders = folders_of(stage)
    total = math.fsum(folders.values())
    return [(folder, float(f"{weight / total:.12g}")) for folder, weight in folders.items()]


def source_name(folder: str) -> str:
    """The name of a source as its folder tells it: the last part of the path that says something.

    >>> source_name("s3://x/llama_tokenized-global-chunks/fineweb-edu/fineweb-edu/")
    'fineweb_edu'
    >>> source_name("s3://x/llama_tokenized_4097/megamath-web-pro/standard/")
    'megamath_web_pro'
    """
    parts = [part for part in re.split(r"[/:]+", folder) if part]
    telling = [part for part in parts if part.lower() not in _GENERIC] or parts or ["source"]
    name = re.sub(r"[^a-z0-9]+", "_", telling[-1].lower().replace("c++", "cpp")).strip("_")
    return plain_word(name, "source")


def plain_word(name: str, before: str) -> str:
    """Return a lower-case name as a key that YAML reads as text, ``before`` put in front if need be.

    It is cut to ``_MOST_LETTERS``: a source is a file and a folder too.
    """
    name = name[:_MOST_LETTERS].rstrip("_")
    word = name[:1].isalpha() and name not in _NOT_TEXT
    return name if word else f"{before}_{name}".rstrip("_")


def source_names(folders: list[str]) -> dict[str, str]:
    """Folder → source name, unique: folders of one name get their parent's name in front."""
    names = {folder: source_name(folder) for folder in dict.fromkeys(folders)}
    taken: dict[str, str] = {}
    for folder, name in names.items():
        parent = source_name("/".join(folder.rstrip("/").split("/")[:-1]) or "source")
        unique, count = name, 2
        while unique in taken:
            unique = f"{parent}_{name}" if count == 2 else f"{parent}_{name}_{count}"
            count += 1
        taken[unique] = folder
        names[folder] = unique
    return names
