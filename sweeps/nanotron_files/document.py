"""Read, check and write one file for nanotron's main branch.

    text ──parse──▶ NanotronFile ──text──▶ the same meaning
                        │
                        └──check──▶ what main would refuse, all of it at once

The checker is built from main's schema (:mod:`.sections`) and the assertions of its ``Config``, so
a promoted file is known to load before a cluster is asked for::

    >>> check({"general": {"project": "demo"}})[0].where
    'parallelism'
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ablations.errors import ConfigError, Problem, nearest
from sweeps.nanotron_files import model_sections, run_sections, sections
from sweeps.nanotron_files.model_sections import LlamaModel, Qwen2Model
from sweeps.nanotron_files.sections import NanotronFile, StageSection, TokenFolders

__all__ = ["check", "load_yaml", "parse", "read", "text_of", "to_document"]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key said twice, which YAML would answer with the last one."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise ConfigError(Problem(f"line {line}", f"the key {key!r} is said twice"))
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(text: str, where: str = "file") -> dict[str, Any]:
    """The mapping that ``text`` holds.

    Raises:
        ConfigError: it is not YAML, not a mapping, or says a key twice.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(Problem(where, "not YAML", found=" ".join(str(error).split()))) from None
    if not isinstance(document, dict):
        raise ConfigError(
            Problem(where, "not a mapping", found=type(document).__name__, allowed="key: value")
        )
    return document


def parse(document: Mapping[str, Any]) -> NanotronFile:
    """The typed file.

    Raises:
        ConfigError: everything main's loader would refuse.
    """
    problems = check(document)
    if problems:
        raise ConfigError(problems)
    return _validate(document)


def read(path: Path) -> NanotronFile:
    """:func:`parse` of the file at ``path``."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ConfigError(Problem(str(path), "cannot be read", found=error.strerror)) from None
    return parse(load_yaml(text, str(path)))


def check(document: Mapping[str, Any]) -> list[Problem]:
    """What main's loader would refuse in ``document``; empty when it would load."""
    try:
        file = _validate(document)
    except ValidationError as error:
        found = [_problem(dict(detail)) for detail in error.errors(include_url=False)]
        return list({str(problem): problem for problem in found}.values())
    return [*_stage_problems(file), *_model_problems(file), *_other_problems(file)]


@cache
def _adapter() -> TypeAdapter[NanotronFile]:
    return TypeAdapter(NanotronFile)


def _validate(document: Mapping[str, Any]) -> NanotronFile:
    # JSON mode is the strict one that still takes a list for a tuple: main's loader, dacite, does
    # not turn text into numbers either ("1e-8" without a dot is text in YAML 1.1).
    text = json.dumps(document, default=str)
    return _adapter().validate_json(text, strict=True)


_CLASSES = {
    name
    for module in (sections, run_sections, model_sections)
    for name, value in vars(module).items()
    if isinstance(value, type)
}


def _problem(detail: Mapping[str, Any]) -> Problem:
    # Members of a union and the types inside appear in pydantic's path; they are not keys.
    steps = [step for step in detail["loc"] if not _is_tag(step)]
    where = ".".join(str(step) for step in steps) or "file"
    if detail["type"] == "unexpected_keyword_argument":
        known = _known_keys(steps[:-1])
        close = nearest(str(steps[-1]), known)
        do = f"did you mean {' or '.join(map(repr, close))}?" if close else None
        return Problem(where, "main has no such key", do=do)
    if detail["type"] == "missing":
        return Problem(where, "missing, and main has no default for it")
    found = detail.get("input")
    if isinstance(found, dict) and str(steps[-1]).startswith("dataset_"):
        return Problem(
            where,
            "the mapping form of an old example is refused by main's loader",
            do="write dataset_folder and dataset_weights as two lists",
        )
    shown = found if isinstance(found, str | int | float | bool | None) else type(found).__name__
    message = str(detail["msg"]).replace("Input should be", "must be")
    return Problem(where, message, found=repr(shown))


def _is_tag(step: object) -> bool:
    if not isinstance(step, str):
        return False
    tags = {"str", "folders", "hub", "llama", "qwen2", "starcoder2"}
    return step in _CLASSES or step in tags or "[" in step


def _known_keys(path: list[Any]) -> list[str]:
    """Every key that the sections under ``path`` have; all of them where the path is a union."""
    last = str(path[-1]) if path else ""
    owners: dict[str, list[type[Any]]] = {
        "": [NanotronFile],
        "dataset": [TokenFolders, sections.HubDataset],
        "model_config": [LlamaModel, Qwen2Model],
        "model": [model_sections.Model],
        "data": [sections.Data],
        "checkpoints": [run_sections.Checkpoints],
        "tokens": [sections.Tokens],
        "optimizer": [sections.Optimizer],
        "learning_rate_scheduler": [sections.LearningRateScheduler],
        "parallelism": [run_sections.Parallelism],
        "general": [run_sections.General],
    }
    names = (
        field.name
        for owner in owners.get(last, [StageSection])
        for field in dataclasses.fields(owner)
    )
    return list(dict.fromkeys(names))


def _stage_problems(file: NanotronFile) -> Iterator[Problem]:
    stages = file.data_stages
    if not stages:
        yield Problem("data_stages", "no stage", allowed="one or more")
        return
    starts = [stage.start_training_step for stage in stages]
    if starts[0] != 1 and 1 not in starts:
        yield Problem("data_stages", "no stage starts at step 1", found=starts)
    if sorted(set(starts)) != starts:
        yield Problem("data_stages", "start steps must rise from stage to stage", found=starts)
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        yield Problem("data_stages", "stages need unique names", found=names)
    if starts[-1] > file.tokens.train_steps:
        yield Problem(
            "tokens.train_steps",
            "the last stage starts after the last step",
            found=f"{starts[-1]} > {file.tokens.train_steps}",
        )
    for index, stage in enumerate(stages):
        yield from _folder_problems(f"data_stages.{index}", stage, file)


def _folder_problems(where: str, stage: StageSection, file: NanotronFile) -> Iterator[Problem]:
    length = stage.sequence_length
    if length is not None and length != file.tokens.sequence_length:
        yield Problem(
            f"{where}.sequence_length",
            "cannot change between the stages of a run",
            found=length,
            allowed=file.tokens.sequence_length,
            do="make a longer context a new run from a checkpoint",
        )
    dataset = stage.data.dataset
    if not isinstance(dataset, TokenFolders):
        return
    where = f"{where}.data.dataset"
    folders = dataset.dataset_folder
    count = 1 if isinstance(folders, str) else len(folders)
    weights = dataset.dataset_weights
    # A single folder given as text gets the weight 1 whatever the list says.
    if weights is not None and not isinstance(folders, str) and len(weights) != count:
        yield Problem(
            f"{where}.dataset_weights", "one weight a folder", found=len(weights), allowed=count
        )
    if weights is not None and (min(weights, default=0.0) < 0.0 or sum(weights) <= 0.0):
        yield Problem(f"{where}.dataset_weights", "weights are negative or sum to nothing")
    paths = dataset.dataset_read_path
    if paths is not None and not isinstance(paths, str) and len(paths) != count:
        yield Problem(
            f"{where}.dataset_read_path", "one path a folder", found=len(paths), allowed=count
        )
    yield from _vocabulary_problems(where, dataset, file)


def _vocabulary_problems(
    where: str, dataset: TokenFolders, file: NanotronFile
) -> Iterator[Problem]:
    rows = file.model.model_config.vocab_size
    if dataset.vocab_size is not None and rows not in (-1, dataset.vocab_size):
        yield Problem(
            f"{where}.vocab_size", "not the model's", found=dataset.vocab_size, allowed=rows
        )
    named = file.tokenizer.tokenizer_name_or_path if file.tokenizer else None
    if dataset.tokenizer_name is not None and named not in (None, dataset.tokenizer_name):
        yield Problem(
            f"{where}.tokenizer_name",
            "not the run's tokenizer",
            found=dataset.tokenizer_name,
            allowed=named,
        )


def _model_problems(file: NanotronFile) -> Iterator[Problem]:
    config, tp = file.model.model_config, file.parallelism.tp
    if not isinstance(config, LlamaModel | Qwen2Model):
        return
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    where = "model.model_config"
    if heads % tp:
        yield Problem(f"{where}.num_attention_heads", "not divisible by tp", found=f"{heads}, {tp}")
    if kv_heads > heads or heads % kv_heads:
        yield Problem(f"{where}.num_key_value_heads", "must divide the heads", found=kv_heads)
    if kv_heads < tp:
        yield Problem(f"{where}.num_key_value_heads", "fewer than tp", found=f"{kv_heads}, {tp}")
    every = config.no_rope_layer if isinstance(config, Qwen2Model) else None
    if every and config.num_hidden_layers % every:
        yield Problem(f"{where}.no_rope_layer", "must divide the number of layers")


def _other_problems(file: NanotronFile) -> Iterator[Problem]:
    profiler = file.profiler
    if profiler is not None and profiler.profiler_export_path is not None:
        cycle = profiler.wait + profiler.warmup + profiler.active
        needed = profiler.skip_first + profiler.repeat * cycle
        if needed > file.tokens.train_steps:
            yield Problem("profiler", "profiles more steps than are trained", found=needed)
    interval = (file.lighteval or {}).get("eval_interval")
    every = file.checkpoints.checkpoint_interval
    if file.s3_upload and interval and interval % every:
        yield Problem(
            "lighteval.eval_interval", "not a multiple of checkpoint_interval", found=interval
        )


def to_document(value: Any) -> Any:
    """Plain values of a section; keys that are null by default and null are left out.

    The checkpoint to resume from is always written: launch scripts look for its line.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_document(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) is not None
            or field.default is not None
            or field.name == "resume_checkpoint_path"
        }
    if isinstance(value, Mapping):
        return {key: to_document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_document(item) for item in value]
    return value


def text_of(file: NanotronFile, heading: str = "") -> str:
    """The file as YAML, sections in the order of the published ones; loads to the same value."""
    order = ("checkpoints", "data_stages", "general", "lighteval", "logging", "metrics_logging")
    document = to_document(file)
    ordered = {key: document[key] for key in (*order, *sorted(document)) if key in document}
    body = yaml.safe_dump(ordered, sort_keys=False, default_flow_style=False, width=100)
    comment = "".join(f"# {line}".rstrip() + "\n" for line in heading.splitlines())
    return comment + body
