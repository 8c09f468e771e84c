"""Import a published file as configs of this platform.

    published.yaml ─▶ imports/<name>/
        conf/experiment/<name>.yaml      ablate plan --config-dir …/conf experiment=<name>
        conf/{schedule,mixture,model,training,tokenizer}/<name>.yaml
        conf/source/*.yaml                sources that the catalogue does not contain
        nanotron.json                     values of the file that the configs do not contain
        <name>.nanotron.yaml              the file made again from the above
        README.md                         oddities of the file

The configs can be changed, planned and searched. :func:`.write_back.write_back` makes the file again
from the configs and the other values, which checks that the import lost nothing.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ablations.config.literal import literal
from ablations.data.catalogue import load_catalogue, load_source
from ablations.errors import ConfigError, Problem
from ablations.files import write_json, write_text
from ablations.markdown import escaped, in_code, one_line
from ablations.mixture.mixture import SUM_TOLERANCE
from sweeps.nanotron_files.chain import slug
from sweeps.nanotron_files.document import parse
from sweeps.nanotron_files.foreign_yaml import load_yaml, read_text
from sweeps.nanotron_files.import_folder import new_import
from sweeps.nanotron_files.learning_rates import rate_config
from sweeps.nanotron_files.lint import Oddity, oddities
from sweeps.nanotron_files.model_sections import LlamaModel, Qwen2Model, RandomInit
from sweeps.nanotron_files.recorded_schema import Branch, foreign_keys, without
from sweeps.nanotron_files.sections import AdamW, NanotronFile
from sweeps.nanotron_files.semantics import folders_of, plain_word, source_names
from sweeps.nanotron_files.write_back import SHARED_MODEL_KEYS, Specs, text_back

__all__ = ["Imported", "import_file", "write_import"]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Configs made from a published file."""

    name: str
    """Name of the config groups."""
    origin: str
    """Path of the file."""
    file: NanotronFile
    oddities: tuple[Oddity, ...]
    configs: Mapping[str, Mapping[str, Any]]
    """``group/name`` → plain values of one of our config files."""
    sidecar: Mapping[str, Any]
    """Content of ``nanotron.json``: the file's document, and its names of stages and folders."""


def import_file(path: Path, name: str, branch: Branch = "main") -> Imported:
    """Read the published file at ``path`` as configs called ``name``.

    Args:
        path: A YAML file for nanotron.
        name: Name of the config groups.
        branch: Branch of nanotron that gives the defaults, and for which the file is written back.

    Raises:
        ConfigError: the branch would refuse it, or our configs cannot express it.
    """
    document = load_yaml(read_text(path), str(path))
    left_out, document = _of_branch(document, branch)
    file = parse(document, branch)
    folders = list(dict.fromkeys(f for stage in file.data_stages for f in folders_of(stage)))
    sources = _apart(source_names(folders), name)
    stages = _stage_names([stage.name for stage in file.data_stages])
    configs = {
        f"schedule/{name}": _schedule(file, stages, sources),
        f"mixture/{name}": _mixture(file, sources),
        f"model/{name}": _model(file),
        f"training/{name}": _training(file),
        f"tokenizer/{name}": _tokenizer(file, name),
        **{f"source/{source}": spec for source, spec in _unknown_sources(file, sources).items()},
        f"experiment/{name}": _experiment(name),
    }
    sidecar = {
        "origin": Path(path).name,
        "nanotron": branch,
        "document": document,
        "stages": {short: original for original, short in stages.items()},
        "folders": {source: folder for folder, source in sources.items()},
    }
    return Imported(
        name=name,
        origin=str(path),
        file=file,
        oddities=(*left_out, *oddities(file)),
        configs=configs,
        sidecar=sidecar,
    )


def _stage_names(names: list[str]) -> dict[str, str]:
    """Return stage name → unique key of a config.

    A key is an ASCII word that begins with a letter, so that YAML reads it as text and an override
    can name it.
    """
    short: dict[str, str] = {}
    for name in names:
        word = plain_word(
            "".join(c if c.isascii() else "_" for c in slug(name)).strip("_"), "stage"
        )
        count = 2
        unique = word
        while unique in short.values():
            unique, count = f"{word}_{count}", count + 1
        short[name] = unique
    return short


def _of_branch(
    document: dict[str, Any], branch: Branch
) -> tuple[tuple[Oddity, ...], dict[str, Any]]:
    """Leave out the keys of another branch whose values change nothing.

    A key with another value stays, and :func:`parse` refuses it.
    """
    unused = [path for path, default in foreign_keys(document, branch).items() if default]
    oddities = tuple(
        Oddity(
            kind="other_branch",
            where=".".join(map(str, path)),
            what=f"nanotron {branch} has no such key and refuses the file; its value here means "
            "that it is not used, so it is left out",
        )
        for path in unused
    )
    return oddities, without(document, unused) if unused else document


def _apart(sources: Mapping[str, str], name: str) -> dict[str, str]:
    """Return folder → name, changed if the catalogue has another source of that name (demo ``wiki``)."""
    catalogue = load_catalogue()

    def other(source: str) -> bool:
        return source in catalogue and load_source(source).origin.kind != "hub"

    return {
        folder: f"{name}_{source}" if other(source) else source
        for folder, source in sources.items()
    }


def _schedule(
    file: NanotronFile, stages: Mapping[str, str], sources: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "total_tokens": None,
        "stages": {
            stages[stage.name]: {
                "tokens": steps * file.tokens_per_step,
                "weights": {sources[f]: weight for f, weight in folders_of(stage).items()},
            }
            for stage, steps in zip(file.data_stages, file.stage_steps(), strict=True)
        },
        "lr": rate_config(file),
        "full_tokens": None,
    }


def _mixture(file: NanotronFile, sources: Mapping[str, str]) -> dict[str, Any]:
    first = folders_of(file.data_stages[0])
    sums = [math.fsum(folders_of(stage).values()) for stage in file.data_stages]
    return {
        "weights": {sources[folder]: weight for folder, weight in first.items()},
        "normalize": any(abs(total - 1.0) > SUM_TOLERANCE for total in sums),
        "epoch_cap": 4.0,
        "audit_tolerance": 0.001,
    }


def _model(file: NanotronFile) -> dict[str, Any]:
    config, init = file.model.model_config, file.model.init_method
    if not isinstance(config, LlamaModel | Qwen2Model):
        raise ConfigError(
            Problem(
                "model.model_config",
                "no Llama-like decoder",
                found=type(config).__name__,
                allowed="is_llama_config or is_qwen2_config",
            )
        )
    values = {key: getattr(config, key) for key in SHARED_MODEL_KEYS}
    values["num_key_value_heads"] = config.num_key_value_heads or config.num_attention_heads
    std = init.std if isinstance(init, RandomInit) else config.initializer_range
    return {**values, "initializer_range": std}


def _training(file: NanotronFile) -> dict[str, Any]:
    optimizer = file.optimizer
    adam = optimizer.optimizer_factory
    if not isinstance(adam, AdamW):
        raise ConfigError(
            Problem("optimizer.optimizer_factory", "not AdamW", found=adam.name, allowed="adamW")
        )
    return {
        "sequence_length": file.tokens.sequence_length,
        "batch_size": file.batch_size,
        "peak_lr": optimizer.learning_rate_scheduler.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": adam.adam_beta1,
        "adam_beta2": adam.adam_beta2,
        "adam_eps": adam.adam_eps,
        "clip_norm": optimizer.clip_grad,
        "dtype": "float32" if file.model.dtype == "float32" else "bfloat16",
        "accumulate_grad_in_fp32": optimizer.accumulate_grad_in_fp32,
        "intra_document_masking": getattr(file.model.model_config, "_use_doc_masking", False),
        "checkpoints": 1,
        "recovery_interval_steps": file.checkpoints.checkpoint_interval,
    }


def _tokenizer(file: NanotronFile, name: str) -> dict[str, Any]:
    return {"name": name, "kind": "hub", "repo": file.tokenizer_name or "unknown/unknown"}


def _unknown_sources(file: NanotronFile, sources: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return specs of the sources that the catalogue lacks; their size was not published."""
    read_tokens: dict[str, float] = {}
    for stage, steps in zip(file.data_stages, file.stage_steps(), strict=True):
        folders = folders_of(stage)
        total = math.fsum(folders.values())
        for folder, weight in folders.items():
            tokens = steps * file.tokens_per_step * weight / total
            read_tokens[sources[folder]] = read_tokens.get(sources[folder], 0.0) + tokens
    known = load_catalogue()
    return {
        source: {
            "domain": "unknown",
            "tokens_available": max(1, round(read_tokens[source])),
            "origin": {"kind": "files", "paths": [folder]},
            "licence": "unknown",
            "note": "assumed: size not published, set to what the schedule reads (one epoch)",
        }
        for folder, source in sources.items()
        if source not in known
    }


def _experiment(name: str) -> dict[str, Any]:
    groups = ("tokenizer", "mixture", "schedule", "model", "training")
    return {"defaults": [{f"override /{group}": name} for group in groups], "study": name}


def write_import(imported: Imported, out: Path) -> Path:
    """Write the folder ``out`` atomically and return it.

    The YAML file beside the configs is made from the configs, so that a loss would show.

    Raises:
        ConfigError: ``out`` exists already.
    """
    with new_import(out, imported.configs, partial(_config_text, imported)) as building:
        write_json(building / "nanotron.json", imported.sidecar)
        write_text(building / "README.md", _readme(imported, out))
        specs = Specs.of_plain(imported.configs, imported.name)
        heading = f"Written back from the import {imported.name!r}."
        text = text_back(specs, imported.sidecar, heading)
        write_text(building / f"{imported.name}.nanotron.yaml", text)
    return out


def _config_text(imported: Imported, key: str, values: Mapping[str, Any]) -> str:
    head = f"# Imported from {_comment(imported)}; see README.md beside conf/.\n"
    if key.startswith("experiment/"):
        head = f"# @package _global_\n{head}"
    # Sources are read without Hydra; other groups are composed, which would resolve ${…}.
    plain = dict(values) if key.startswith("source/") else literal(values)
    return head + yaml.safe_dump(plain, sort_keys=False, width=100)


def _comment(imported: Imported) -> str:
    """Return the file's name on one line."""
    return " ".join(Path(imported.origin).name.split())


def _readme(imported: Imported, out: Path) -> str:
    file, name = imported.file, imported.name
    lines = [
        f"# {name}",
        "",
        f"Read from {in_code(_comment(imported))}, a config of nanotron's branch "
        f"{imported.sidecar['nanotron']}.",
        "",
        f"    ablate plan --config-dir {shlex.quote(f'{one_line(str(out))}/conf')} experiment={name}",
        "",
        f"{file.tokens.train_steps:,} steps of {file.tokens_per_step:,} tokens, "
        f"{file.tokens.train_steps * file.tokens_per_step / 1e12:.3f}T tokens in all.",
        "",
        "| stage | from step | steps | folders |",
        "|---|---|---|---|",
        *(
            f"| {escaped(s.name)} | {s.start_training_step:,} | {steps:,} | {len(folders_of(s))} |"
            for s, steps in zip(file.data_stages, file.stage_steps(), strict=True)
        ),
        "",
        "## What is odd",
        "",
        *(
            [f"- **{oddity.kind}** {escaped(str(oddity))}" for oddity in imported.oddities]
            or ["Nothing."]
        ),
    ]
    return "\n".join(lines) + "\n"
