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
from sweeps.nanotron_files.document import to_document
from sweeps.nanotron_files.sections import NanotronFile, StageSection, TokenFolders

__all__ = ["Meaning", "folders_of", "meaning", "source_name", "source_names"]

_GENERIC = {"", "standard", "tokenized", "tokenised", "data", "train", "merged", "shuffled"}
"""Last parts of a folder's path that say nothing of the source."""


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


def meaning(file: NanotronFile) -> Meaning:
    """The meaning of ``file``."""
    optimizer = to_document(file.optimizer)
    optimizer["weight_decay_exclude_named_params"] = list(
        file.optimizer.weight_decay_exclude_named_params or ()
    )
    scheduler = optimizer.pop("learning_rate_scheduler")
    stages = zip(file.data_stages, file.stage_steps(), strict=True)
    checkpoints = file.checkpoints
    return Meaning(
        model=to_document(file.model),
        tokenizer=file.tokenizer.tokenizer_name_or_path if file.tokenizer else None,
        stages=tuple(
            (stage.name, stage.start_training_step, steps, tuple(_normalised(stage)))
            for stage, steps in stages
        ),
        sequence_length=file.tokens.sequence_length,
        batch_size=file.batch_size,
        train_steps=file.tokens.train_steps,
        learning_rate=_filled(scheduler, file.tokens.train_steps),
        optimizer=optimizer,
        seeds=(_seed(file.general.seed), *(_seed(stage.data.seed) for stage in file.data_stages)),
        load_optimizer=checkpoints.load_optimizer is not False,
        load_lr_scheduler=checkpoints.load_lr_scheduler is not False,
    )


def _seed(seed: int | None) -> int:
    return 42 if seed is None else seed


def _filled(scheduler: Mapping[str, Any], train_steps: int) -> dict[str, Any]:
    filled = dict(scheduler)
    warmup = filled.get("lr_warmup_steps", 0)
    for key, default in (
        ("lr_decay_style", "linear"),
        ("lr_decay_steps", train_steps - warmup),
        ("lr_decay_starting_step", warmup),
        ("min_decay_lr", filled["learning_rate"]),
    ):
        if filled.get(key) is None:
            filled[key] = default
    filled["min_decay_lr"] = float(f"{filled['min_decay_lr']:.12g}")
    return filled


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
    return name if name[:1].isalpha() else f"source_{name}"


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
