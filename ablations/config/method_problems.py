"""Rules that join the method of a training with the other parts of a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablations.config.vision_part import vision_of
from ablations.errors import Problem

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig

__all__ = ["method_problems"]

_TEXT = "plain text"
_ROWS: dict[str, tuple[str, ...]] = {
    "pretrain": (_TEXT,),
    "sft": ("conversations",),
    "dpo": ("preferences",),
    "vlm": ("pictures", "conversations", _TEXT),
}
"""Method → kinds of sources that it trains on."""


def method_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield what the method forbids in the other parts."""
    kind, of_rows = config.method.kind, config.method.of_rows
    right, wrong = ("samples", "tokens") if of_rows else ("tokens", "samples")
    if (found := getattr(config.schedule, f"total_{wrong}")) is not None:
        yield Problem(
            f"schedule.total_{wrong}",
            f"a schedule of method={kind} counts {right}",
            found=found,
            do=f"set schedule.total_{right}, and schedule.total_{wrong}=null",
        )
    for name in config.build_schedule().sources:
        yield from _source_problems(config, name)
    if of_rows:
        yield from _row_problems(config)


def _source_problems(config: RunConfig, name: str) -> Iterator[Problem]:
    rows, kind = config.source[name].rows, config.method.kind
    found = rows.kind if rows else _TEXT
    if found not in _ROWS[kind]:
        wanted = " or ".join(_ROWS[kind])
        yield Problem(f"source.{name}", f"method={kind} trains on {wanted}", found=found)
    elif rows and rows.max_tokens > config.training.sequence_length:
        yield Problem(
            "training.sequence_length",
            f"shorter than the rows of {name!r}",
            found=config.training.sequence_length,
            allowed=f">= {rows.max_tokens}, its rows.max_tokens",
        )


def _row_problems(config: RunConfig) -> Iterator[Problem]:
    kind = config.method.kind
    if config.tokenizer.chat is None:
        yield Problem(
            "tokenizer",
            "has no chat template",
            found=config.tokenizer.name,
            do="take one with kind=chat, such as tokenizer=demo_chat",
        )
    if config.warm_start.checkpoint is None:
        yield Problem(
            "warm_start.checkpoint",
            f"method={kind} begins from a trained model",
            do="name a checkpoint, a transformers folder, or a model of the hub",
        )
    stated = {
        "schedule.full_tokens": config.schedule.full_tokens,
        "warm_start.first_step": config.warm_start.first_step,
        "execution.stop_tokens": config.execution.stop_tokens,
    }
    if kind == "vlm":
        yield from _vision_problems(config)
    else:
        stated["execution.trunk_tokens"] = config.execution.trunk_tokens
    for where, value in stated.items():
        if value is not None:
            yield Problem(where, "is for method=pretrain", found=value, do="leave it null")


def _vision_problems(config: RunConfig) -> Iterator[Problem]:
    if config.tokenizer.chat is not None and config.tokenizer.chat.picture is None:
        yield Problem(
            "tokenizer.chat.picture",
            "no token stands for a picture",
            found=config.tokenizer.name,
            do="take a tokenizer with one, such as tokenizer=demo_vision",
        )
    vision = vision_of(config)
    if vision is None:
        yield Problem(
            "method.vision",
            "no vision part: the run begins from a language model, or from a name on the hub",
            found=config.warm_start.checkpoint,
            do="take method=vlm, which states one, or begin from the folder of a vision-language model",
        )
        return
    for name in config.build_schedule().sources:
        rows = config.source[name].rows
        if rows and rows.picture_size not in (None, vision.image_size):
            yield Problem(
                f"source.{name}.rows.picture_size",
                "differs from method.vision.image_size",
                found=rows.picture_size,
                allowed=vision.image_size,
            )
