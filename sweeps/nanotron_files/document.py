"""Read and check one file for nanotron.

    text ──parse──▶ NanotronFile ──text_of──▶ text with the same values
                        │
                        └──check──▶ all problems that the branch would find

The checks use the recorded config classes of the branch (:mod:`.recorded_schema`), our typed sections
(:mod:`.sections`) and the assertions of nanotron's ``Config``, so that a promoted file is known to
load before it is submitted to a cluster::

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

from pydantic import TypeAdapter, ValidationError

from ablations.errors import ConfigError, Problem, nearest
from sweeps.nanotron_files import model_sections, run_sections, sections
from sweeps.nanotron_files.foreign_yaml import load_yaml, read_text, value_problems
from sweeps.nanotron_files.minimal_yaml import text_of, to_document, with_defaults
from sweeps.nanotron_files.model_sections import LlamaModel, Qwen2Model
from sweeps.nanotron_files.number_ranges import range_problems
from sweeps.nanotron_files.recorded_schema import Branch, schema_problems, used
from sweeps.nanotron_files.sections import NanotronFile, StageSection, TokenFolders

__all__ = ["check", "load_yaml", "parse", "read", "text_of", "to_document"]


def parse(document: Mapping[str, Any], branch: Branch = "main") -> NanotronFile:
    """Return the typed file.

    Raises:
        ConfigError: all problems that the branch's loader would find.
    """
    problems = check(document, branch)
    if problems:
        raise ConfigError(problems)
    file = _validate(document)
    config = with_defaults(file.model.model_config, branch)
    return dataclasses.replace(file, model=dataclasses.replace(file.model, model_config=config))


def read(path: Path, branch: Branch = "main") -> NanotronFile:
    """Return the typed file at ``path``, without unused keys that only another branch has.

    Raises:
        ConfigError: it cannot be read, or all problems that the branch's loader would find.
    """
    return parse(used(load_yaml(read_text(path), str(path)), branch), branch)


def check(document: Mapping[str, Any], branch: Branch = "main") -> list[Problem]:
    """Return the problems that the branch's loader would find; empty if ``document`` would load."""
    unusable = list(value_problems(document))
    if unusable:
        return unusable
    strict = list(schema_problems(document, branch))
    try:
        file = _validate(document)
    except ValidationError as error:
        better = {problem.where: problem for problem in strict if problem.do is not None}
        typed = [_problem(dict(detail)) for detail in error.errors(include_url=False)]
        found = [better.get(problem.where, problem) for problem in typed]
        found += [p for p in strict if p.where not in {problem.where for problem in typed}]
        return list({str(problem): problem for problem in found}.values())
    outside = list(range_problems(file))
    if outside:  # the checks below divide by numbers that must be 1 or more
        return [*strict, *outside]
    return [
        *strict,
        *_stage_problems(file),
        *_model_problems(file),
        *_other_problems(file),
    ]


@cache
def _adapter() -> TypeAdapter[NanotronFile]:
    return TypeAdapter(NanotronFile)


def _validate(document: Mapping[str, Any]) -> NanotronFile:
    # Strict JSON mode accepts a list for a tuple, but no text for a number. Main's loader, dacite,
    # does the same ("1e-8" without a dot is text in YAML 1.1).
    text = json.dumps(document)
    return _adapter().validate_json(text, strict=True)


_CLASSES = {
    name
    for module in (sections, run_sections, model_sections)
    for name, value in vars(module).items()
    if isinstance(value, type)
}


def _problem(detail: Mapping[str, Any]) -> Problem:
    # Pydantic's path contains members of a union and types, which are not keys.
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
    tags = {"str", "folders", "hub", "chat", "llama", "qwen2", "starcoder2"}
    return step in _CLASSES or step in tags or "[" in step


def _known_keys(path: list[Any]) -> list[str]:
    """Return the keys that the section at ``path`` may have; of a union, those of all members."""
    last = str(path[-1]) if path else ""
    owners: dict[str, list[type[Any]]] = {
        "": [NanotronFile],
        "dataset": [TokenFolders, sections.HubDataset, sections.ChatDataset],
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
    # A single folder given as text has weight 1, whatever the list contains.
    if weights is not None and not isinstance(folders, str) and len(weights) != count:
        yield Problem(
            f"{where}.dataset_weights", "one weight per folder", found=len(weights), allowed=count
        )
    if weights is not None and (min(weights, default=0.0) < 0.0 or sum(weights) <= 0.0):
        yield Problem(f"{where}.dataset_weights", "weights are negative or sum to nothing")
    paths = dataset.dataset_read_path
    if paths is not None and not isinstance(paths, str) and len(paths) != count:
        yield Problem(
            f"{where}.dataset_read_path", "one path per folder", found=len(paths), allowed=count
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
    named = file.tokenizer_name
    if dataset.tokenizer_name is not None and named not in (None, dataset.tokenizer_name):
        yield Problem(
            f"{where}.tokenizer_name",
            "not the run's tokenizer",
            found=dataset.tokenizer_name,
            allowed=named,
        )


_KERNELS = (
    *("flash_attention_2", "flex_attention", "sdpa", "ring_flash_triton", "ring"),
    "llama3_ring_attention",
)
"""Keys of ``ALL_ATTENTION_FUNCTIONS`` (``src/nanotron/nn/attention.py``, main and smollm3)."""


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
    kernel = config._attn_implementation
    if kernel is not None and kernel not in _KERNELS:
        yield Problem(
            f"{where}._attn_implementation", "no kernel of main", found=kernel, allowed=_KERNELS
        )
    if isinstance(config, Qwen2Model):
        yield from _qwen_problems(where, config)


def _qwen_problems(where: str, config: Qwen2Model) -> Iterator[Problem]:
    every, kernel = config.no_rope_layer, config._attn_implementation
    if every and config.num_hidden_layers % every:
        yield Problem(f"{where}.no_rope_layer", "must divide the number of layers")
    ring = kernel == "llama3_ring_attention"
    if ring != (config.ring_attn_heads_k_stride is not None):
        yield Problem(
            f"{where}.ring_attn_heads_k_stride",
            "goes with llama3_ring_attention: give both or neither",
            found=f"{config.ring_attn_heads_k_stride}, {kernel}",
        )
    windowed = ("flex_attention", "flash_attention_2", "llama3_ring_attention")
    if config.sliding_window_size is not None and kernel not in windowed:
        yield Problem(f"{where}.sliding_window_size", "needs a kernel with windows", found=kernel)
    if config.flex_attention_mask is not None and kernel != "flex_attention":
        yield Problem(f"{where}.flex_attention_mask", "needs flex_attention", found=kernel)


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
