"""The model that a post-training begins from.

It is a transformers folder, a checkpoint of this platform (exported here), or a model of the hub. A model
whose tokenizer had no markers of turns gets rows for them: drawn with the run's seed, dimension by dimension
as the rows that exist are distributed. The model is then written to ``<run>/start``, which a DPO round's
reference and a resumed run read too.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ablations.data.tokenizer import open_tokenizer
from ablations.errors import CheckpointError, DataError, Problem
from ablations.files import read_json, replace_folder
from ablations.record.checksums import damage, write_checksums
from ablations.training.checkpoints import is_transformers, is_whole
from ablations.training.export import export_checkpoint
from ablations.training.specs import ModelSpec
from ablations.training.started import EXPORTED, STARTED, started_from
from ablations.training.train_job import TrainJob

__all__ = [
    "WHERE",
    "add_rows",
    "config_of",
    "given_model",
    "load",
    "load_model",
    "load_tokenizer",
    "shape_problems",
    "start_folder",
    "tokenizer_problems",
    "write_start",
]

_SPEC = "spec.json"
"""Settings of the tokenizer that a model of this platform was trained with."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

WHERE = "warm_start.checkpoint"
"""Key of the config that names the model."""

_SHAPE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)
"""Fields of the model that the config states: the cost of a run is computed from them."""


def start_folder(job: TrainJob) -> str:
    """Return the folder, or the name on the hub, of the model that the job begins from.

    Raises:
        CheckpointError: there is no such model, or it has another shape or tokenizer than the config.
    """
    assert job.start_model is not None
    assert job.tokenizer is not None
    made = job.directory / STARTED
    if made.exists() and not damage(made):
        return str(made)
    given = given_model(job)
    config = config_of(given)
    if problems := [
        *shape_problems(job.model, config),
        *tokenizer_problems(given, job.tokenizer),
    ]:
        raise CheckpointError(problems)
    vocabulary = open_tokenizer(job.tokenizer).vocab_size
    if config["vocab_size"] < vocabulary:
        network = load_model(given)
        add_rows(network, vocabulary, job.seed)
        write_start(network, job, made)
        return str(made)
    return given


def load_model(folder: str) -> Any:
    """Return the causal model of a folder in float32; its name on the disk is ``folder``."""
    return load(AutoModelForCausalLM, folder)


def load(kind: Any, folder: str) -> Any:
    """Return the model of a folder in float32, by one of transformers' classes ``AutoModelFor…``.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            Problem(WHERE, "not a model that transformers can load", found=error)
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a run."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def given_model(job: TrainJob) -> str:
    """Return the transformers folder of the model that a job names; a checkpoint is exported first.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    named = str(job.start_model)
    folder = Path(named)
    if folder.is_dir():
        if is_transformers(folder):
            if wrong := damage(folder):
                raise CheckpointError(Problem(WHERE, "damaged", found="; ".join(wrong[:3])))
            return named
        if is_whole(folder):
            tokenizer = _pretraining_tokenizer(job)
            return str(export_checkpoint(folder, job.directory / EXPORTED, tokenizer))
    elif not folder.is_absolute() and _HUB_NAME.fullmatch(named):
        return str(_downloaded(job, named))
    raise CheckpointError(
        Problem(
            WHERE,
            "no model there",
            found=named,
            allowed="a checkpoint, a transformers folder, or owner/name of a model of the hub",
            do="see `ablate ls` for finished runs",
        )
    )


def _downloaded(job: TrainJob, named: str) -> Path:
    try:
        return started_from(job.directory, named)
    except (OSError, ValueError) as error:  # the hub's client raises both
        raise CheckpointError(
            Problem(
                WHERE,
                "cannot be downloaded from the hub",
                found=f"{named}: {str(error).splitlines()[0]}",
                do="without a network, name a folder that holds the model",
            )
        ) from error


def _pretraining_tokenizer(job: TrainJob) -> Path:
    """Return the folder of the tokenizer that the chat tokenizer is derived from, if it is."""
    assert job.tokenizer is not None
    base = read_json(job.tokenizer / _SPEC)["spec"].get("base")
    return job.tokenizer.parent / base if base else job.tokenizer


def config_of(model: str) -> Mapping[str, Any]:
    """Return the config of a model's folder, with the defaults of its kind.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(
            model, trust_remote_code=False
        ).to_dict()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            Problem(
                WHERE,
                "its config cannot be read",
                found=str(error).splitlines()[0],
                do="without a network, name a folder that holds the model",
            )
        ) from error
    return config


def shape_problems(model: ModelSpec, stored: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield each field of the model that differs from a stored config."""
    for name in _SHAPE:
        if stored.get(name) != getattr(model, name):
            yield Problem(
                f"model.{name}",
                "differs from the model that the run begins from",
                found=getattr(model, name),
                allowed=stored.get(name),
            )


def tokenizer_problems(model: str, tokenizer: Path) -> Iterator[Problem]:
    """Yield that a model of this platform was trained with another tokenizer."""
    path = Path(model) / _SPEC
    if not path.is_file():
        return
    try:
        trained = json.loads(path.read_bytes()).get("hash")
        own = read_json(tokenizer / _SPEC)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(Problem(str(path), "not the settings of a tokenizer")) from error
    if trained not in (own["hash"], own.get("base_hash")):
        yield Problem(
            "tokenizer",
            "not the one that the model was trained with, nor derived from it",
            found=tokenizer.name,
            do="set tokenizer.base to the tokenizer of the pretraining",
        )


def add_rows(network: Any, vocabulary: int, seed: int) -> None:
    """Give a model rows for the tokens that it has none for, up to ``vocabulary`` tokens."""
    old = network.get_input_embeddings().num_embeddings
    before = network.get_input_embeddings().weight.detach()
    mean, deviation = before.mean(dim=0), before.std(dim=0)
    network.resize_token_embeddings(vocabulary, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(vocabulary - old, mean.numel(), generator=generator)
    with torch.no_grad():
        network.get_input_embeddings().weight[old:] = mean + deviation * drawn
        head = network.get_output_embeddings()
        if head is not None and not network.config.tie_word_embeddings:
            head.weight[old:] = head.weight[:old].mean(dim=0)


def write_start(network: Any, job: TrainJob, folder: Path) -> None:
    """Write the model that a job begins from, with its tokenizer; it appears complete or not at all."""
    assert job.tokenizer is not None
    temporary = folder.with_name(".start.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    network.save_pretrained(temporary)
    load_tokenizer(job.tokenizer).save_pretrained(temporary)
    shutil.copyfile(job.tokenizer / _SPEC, temporary / _SPEC)
    write_checksums(temporary)
    replace_folder(temporary, folder)
