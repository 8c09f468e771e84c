"""Oddities of a published file: main loads it, but a reader should know of them.

weights that do not sum to 1      normalised silently: SmolLM3's sum to 1.00005 and 1.00565
a folder renamed between stages   main counts read tokens by folder name, so it starts again
a decay that ends off the end     SmolLM3's ends one step after the last step
several stages in one file        only the last is trained, and it needs its checkpoint
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from ablations.mixture.mixture import SUM_TOLERANCE
from sweeps.nanotron_files.learning_rates import decay_window
from sweeps.nanotron_files.model_sections import LlamaModel, Qwen2Model, RandomInit
from sweeps.nanotron_files.sections import NanotronFile, StageSection, TokenFolders
from sweeps.nanotron_files.semantics import folders_of, source_name

__all__ = ["Oddity", "oddities", "parameters"]


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """Unusual property of a file that loads."""

    kind: str
    """Stable word, e.g. ``weights_sum``."""
    where: str
    """Key in the file."""
    what: str
    """Value found and its effect in main."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def oddities(file: NanotronFile) -> list[Oddity]:
    """Return the oddities of ``file`` in the order of the file."""
    found: list[Oddity] = []
    for index, stage in enumerate(file.data_stages):
        found += _stage_oddities(f"data_stages.{index} ({stage.name})", stage)
    for before, after in pairwise(file.data_stages):
        found += _renames(before, after)
    found += _chain_oddities(file)
    found += _rate_oddities(file)
    found += _model_oddities(file)
    return found


def _stage_oddities(where: str, stage: StageSection) -> Iterator[Oddity]:
    dataset = stage.data.dataset
    if not isinstance(dataset, TokenFolders):
        return
    folders = folders_of(stage)
    total = math.fsum(folders.values())
    if dataset.dataset_weights is None and len(folders) > 1:
        yield Oddity(
            kind="no_weights",
            where=where,
            what=f"{len(folders)} folders without weights: main reads them in equal parts",
        )
    elif abs(total - 1.0) > SUM_TOLERANCE and dataset.dataset_weights is not None:
        yield Oddity(
            kind="weights_sum",
            where=where,
            what=f"weights sum to {total:.8g}; main normalises them silently",
        )
    unused = [folder for folder, weight in folders.items() if weight == 0.0]
    if unused:
        yield Oddity(kind="zero_weight", where=where, what=f"never read: {', '.join(unused)}")
    if dataset.vocab_size is None:
        yield Oddity(
            kind="vocabulary_from_folder",
            where=where,
            what="no vocab_size: the file loads only where the folders' metadata can be read",
        )
    yield from _path_oddities(where, dataset, list(folders))


def _path_oddities(where: str, dataset: TokenFolders, folders: list[str]) -> Iterator[Oddity]:
    paths = dataset.dataset_read_path
    if paths is None:
        return
    local = [paths] if isinstance(paths, str) else list(paths)
    yield Oddity(
        kind="read_path",
        where=where,
        what=f"{len(local)} dataset_read_path: read from a machine's own copies if they exist",
    )
    differ = [
        f"{source_name(folder)} is read from {source_name(path)}"
        for folder, path in zip(folders, local, strict=True)
        if source_name(folder) != source_name(path)
    ]
    if differ:
        yield Oddity(
            kind="read_path_name",
            where=where,
            what=f"{len(differ)} folders and their copies bear other names: {_some(differ)}",
        )


def _some(items: list[str], most: int = 4) -> str:
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown}, … ({len(items)} in all)"


def _renames(before: StageSection, after: StageSection) -> Iterator[Oddity]:
    removed = [folder for folder in folders_of(before) if folder not in folders_of(after)]
    added = [folder for folder in folders_of(after) if folder not in folders_of(before)]
    pairs = []
    for folder in removed:
        new = _renamed(folder, added)
        if new is not None:
            added.remove(new)
            pairs.append(f"{source_name(folder)} → {source_name(new)}")
    if pairs:
        yield Oddity(
            kind="renamed_folder",
            where=f"data_stages ({before.name} → {after.name})",
            what=f"{len(pairs)} folders renamed, so main reads them from the start again: "
            f"{_some(pairs)}",
        )


def _renamed(folder: str, candidates: list[str]) -> str | None:
    """Return the candidate whose name is that of ``folder`` with words added or removed."""
    words = set(source_name(folder).split("_"))
    for candidate in candidates:
        other = set(source_name(candidate).split("_"))
        if words <= other or other <= words:
            return candidate
    return None


def _chain_oddities(file: NanotronFile) -> Iterator[Oddity]:
    checkpoints, last = file.checkpoints, file.data_stages[-1]
    if len(file.data_stages) > 1:
        from_ = checkpoints.resume_checkpoint_path or "nothing"
        yield Oddity(
            kind="last_stage_only",
            where="data_stages",
            what=f"main trains only {last.name!r}, from the checkpoint of step "
            f"{last.start_training_step - 1}; the file resumes from {from_}",
        )
    steps = file.tokens.train_steps
    if not checkpoints.save_final_state and steps % checkpoints.checkpoint_interval:
        yield Oddity(
            kind="final_state",
            where="checkpoints",
            what=f"the last step, {steps}, is not saved: the interval does not divide it",
        )
    if checkpoints.resume_checkpoint_path and checkpoints.load_lr_scheduler is False:
        kept = "kept" if checkpoints.load_optimizer is not False else "dropped"
        yield Oddity(
            kind="new_run",
            where="checkpoints",
            what=f"starts a new run at step 1 from {checkpoints.resume_checkpoint_path}: "
            f"learning rate from its warm-up, Adam's moments {kept}",
        )


def _rate_oddities(file: NanotronFile) -> Iterator[Oddity]:
    rate, total = file.optimizer.learning_rate_scheduler, file.tokens.train_steps
    where = "optimizer.learning_rate_scheduler"
    start, steps = decay_window(rate, total)
    if rate.lr_decay_steps is None:
        loader = total - rate.lr_warmup_steps
        what = (
            f"no lr_decay_steps: main's scheduler takes {steps}, steps {start} to {start + steps}"
        )
        if loader != steps:
            what += f"; its loader fills in {loader} first, steps {start} to {start + loader}"
        yield Oddity(kind="decay_default", where=where, what=what)
    if rate.lr_decay_steps is not None and start + steps != total:
        after = ", then the minimum" if start + steps < total else ""
        yield Oddity(
            kind="decay_end",
            where=where,
            what=f"the decay ends at step {start + steps}{after}, the run at {total}",
        )
    if rate.lr_warmup_style == "constant" and rate.lr_warmup_steps:
        yield Oddity(
            kind="constant_warmup",
            where=where,
            what=f"a warm-up of {rate.lr_warmup_steps} steps at the plateau: none at all",
        )
    if rate.min_decay_lr is None:
        yield Oddity(
            kind="no_decay", where=where, what="no min_decay_lr: main keeps the plateau to the end"
        )


def _model_oddities(file: NanotronFile) -> Iterator[Oddity]:
    config, init = file.model.model_config, file.model.init_method
    where = "model"
    if isinstance(config, LlamaModel | Qwen2Model):
        if isinstance(init, RandomInit) and not math.isclose(
            init.std, config.initializer_range, rel_tol=1e-3
        ):
            yield Oddity(
                kind="init_std",
                where=where,
                what=f"init_method.std {init.std:g} and initializer_range "
                f"{config.initializer_range:g} differ; main uses the first",
            )
        if file.model.dtype == "float32" and "flash" in (config._attn_implementation or ""):
            yield Oddity(
                kind="attention_dtype",
                where=where,
                what=f"{config._attn_implementation} has no kernel for float32: main loads the file "
                "and fails in its first step",
            )
        if config.rope_interleaved:
            yield Oddity(
                kind="rope_interleaved",
                where=where,
                what="rotary pairs are neighbours: an export must permute the query and key rows",
            )
    if not isinstance(config, LlamaModel):
        yield Oddity(
            kind="architecture",
            where=where,
            what=f"not a plain Llama ({type(config).__name__}): the schedule can be planned, "
            "searched and written back; the model is approximated in runs here",
        )
    yield from _name_oddities(file)


def _name_oddities(file: NanotronFile) -> Iterator[Oddity]:
    counted = parameters(file)
    name = re.search(
        r"(?<![A-Za-z0-9])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", file.general.run or ""
    )
    if counted is None or name is None:
        return
    claimed = float(name[1]) * {"M": 1e6, "B": 1e9}[name[2]]
    if not 0.7 < claimed / counted < 1.4:
        yield Oddity(
            kind="run_name",
            where="general.run",
            what=f"{PurePosixPath(file.general.run or '').name!r} says {name[0]}, "
            f"the model has {counted / 1e6:.0f}M parameters",
        )


def parameters(file: NanotronFile) -> int | None:
    """Return the number of parameters, tied embeddings counted once; None if not Llama-like."""
    config = file.model.model_config
    if not isinstance(config, LlamaModel | Qwen2Model):
        return None
    width = config.hidden_size
    kv_share = (
        config.num_key_value_heads or config.num_attention_heads
    ) / config.num_attention_heads
    attention = 2 * width * width + 2 * width * round(width * kv_share)
    layer = attention + 3 * width * config.intermediate_size + 2 * width
    embeddings = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    return embeddings + config.num_hidden_layers * layer + width
