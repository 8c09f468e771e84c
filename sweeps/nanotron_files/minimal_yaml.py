"""Write one file for nanotron with the fewest keys.

Nanotron's branches load strictly and do not have the same keys, so a superfluous key can keep a file
from loading. :func:`to_document` writes a field if

* the branch has no default for it, or its value differs from that default, or
* the file that is written back contains it, or
* a reader of the file looks for it (``ALWAYS``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from ablations.errors import ConfigError, Problem
from sweeps.nanotron_files import model_sections, run_sections, sections
from sweeps.nanotron_files.recorded_schema import REQUIRED, Branch, Recorded, recorded
from sweeps.nanotron_files.sections import NanotronFile

__all__ = ["ALWAYS", "OWNERS", "text_of", "to_document", "with_defaults"]

OWNERS: Mapping[type[Any], str] = {
    NanotronFile: "Config",
    run_sections.Checkpoints: "CheckpointsArgs",
    run_sections.General: "GeneralArgs",
    run_sections.Logging: "LoggingArgs",
    run_sections.Metrics: "MetricsLoggingArgs",
    run_sections.Profiler: "ProfilerArgs",
    run_sections.Parallelism: "ParallelismArgs",
    run_sections.Upload: "S3UploadArgs",
    sections.TokenFolders: "NanosetDatasetsArgs",
    sections.HubDataset: "PretrainDatasetsArgs",
    sections.ChatDataset: "SFTDatasetsArgs",
    sections.Data: "DataArgs",
    sections.StageSection: "DatasetStageArgs",
    sections.Tokenizer: "TokenizerArgs",
    sections.Tokens: "TokensArgs",
    sections.LearningRateScheduler: "LRSchedulerArgs",
    sections.Sgd: "SGDOptimizerArgs",
    sections.AdamW: "AdamWOptimizerArgs",
    sections.Optimizer: "OptimizerArgs",
    model_sections.Model: "ModelArgs",
    model_sections.RandomInit: "RandomInit",
    model_sections.MupInit: "SpectralMupInit",
    model_sections.ExistingInit: "ExistingCheckpointInit",
    model_sections.LlamaModel: "LlamaConfig",
    model_sections.Qwen2Model: "Qwen2Config",
    model_sections.Starcoder2Model: "Starcoder2Config",
}
"""Class of our section → name of nanotron's class."""

ALWAYS = frozenset(
    {
        "resume_checkpoint_path",  # launch scripts look for the line
        *("is_llama_config", "is_qwen2_config", "is_starcoder2_config"),  # distinguish the models
    }
)
"""Fields that are always written."""


def to_document(value: Any, read: Any = None, branch: Branch = "main") -> Any:
    """Return the plain values of a section.

    Args:
        value: A section, or values inside one.
        read: The plain values that the same section was read from; None for a new file.
        branch: Branch of nanotron that gives the keys and defaults.

    Raises:
        ConfigError: a value other than "not used" for a key that the branch does not have.
    """
    return _plain(value, read, recorded(branch), "")


def _plain(value: Any, read: Any, record: Recorded, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _section(value, read if isinstance(read, Mapping) else {}, record, where)
    if isinstance(value, Mapping):
        return {key: _plain(item, None, record, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        before = list(read) if isinstance(read, list) else []
        before += [None] * (len(value) - len(before))
        return [
            _plain(item, old, record, f"{where}.{index}")
            for index, (item, old) in enumerate(zip(value, before, strict=False))
        ]
    return value


def _section(value: Any, read: Mapping[str, Any], record: Recorded, where: str) -> dict[str, Any]:
    owner = OWNERS[type(value)]
    made: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        name, item = field.name, getattr(value, field.name)
        path = f"{where}.{name}".lstrip(".")
        if name not in record.classes[owner]:
            if item != field.default:
                raise ConfigError(
                    Problem(path, f"nanotron {record.branch} has no such key", found=item)
                )
        elif _is_written(name, item, read, owner, record):
            made[name] = _plain(item, read.get(name), record, path)
    known = {field.name for field in dataclasses.fields(value)}
    return made | {key: item for key, item in read.items() if key not in known}


def _is_written(
    name: str, item: Any, read: Mapping[str, Any], owner: str, record: Recorded
) -> bool:
    default = record.default(owner, name)
    if item is None and not record.nullable(owner, name):
        return False  # unset: nanotron's own default
    if name in ALWAYS or name in read or default is REQUIRED:
        return True
    plain = list(item) if isinstance(item, tuple) else item
    return bool(plain != default)


def with_defaults(section: Any, branch: Branch) -> Any:
    """Return a section with the branch's defaults in its unset fields.

    A field is unset if it is None here and cannot be null in nanotron: its default differs between
    branches.
    """
    record, owner = recorded(branch), OWNERS[type(section)]
    unset = {
        field.name: record.default(owner, field.name)
        for field in dataclasses.fields(section)
        if getattr(section, field.name) is None
        and field.name in record.classes[owner]
        and not record.nullable(owner, field.name)
    }
    return dataclasses.replace(section, **unset) if unset else section


def text_of(
    file: NanotronFile,
    heading: str = "",
    *,
    read: Mapping[str, Any] | None = None,
    branch: Branch = "main",
) -> str:
    """Return the file as YAML, sections in the order of the published ones.

    The comment above it names the commit of nanotron that the keys were checked against.

    Args:
        file: The file.
        heading: First lines of the comment.
        read: See :func:`to_document`.
        branch: See :func:`to_document`.
    """
    order = ("checkpoints", "data_stages", "general", "lighteval", "logging", "metrics_logging")
    document = to_document(file, read, branch)
    ordered = {key: document[key] for key in (*order, *sorted(document)) if key in document}
    body = yaml.safe_dump(ordered, sort_keys=False, default_flow_style=False, width=100)
    lines = [*heading.splitlines(), f"Checked against huggingface/{recorded(branch)}."]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + body
