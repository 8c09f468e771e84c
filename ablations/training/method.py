"""Aim of a run: the next token of texts, the answers of conversations, preferences, or pictures.

pretrain   a sample is a window of a source's text
sft        a sample is a conversation; loss on all its tokens, or on the answers alone
dpo        a sample is a pair of answers; Direct Preference Optimization (arXiv 2305.18290)
vlm        a sample is a conversation about pictures, a conversation without any, or a window of text
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem
from ablations.training.vision import VisionSpec

__all__ = ["DpoLoss", "MethodKind", "MethodSpec"]

MethodKind = Literal["pretrain", "sft", "dpo", "vlm"]
DpoLoss = Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down", "sigmoid_norm"]

_FIELDS: dict[MethodKind, tuple[str, ...]] = {
    "pretrain": (),
    "sft": ("unit", "loss"),
    "dpo": ("unit", "beta", "loss_type", "rounds"),
    "vlm": ("unit", "loss", "vision"),
}


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """The training method, with the options that belong to it alone."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: MethodKind = "pretrain"
    """pretrain (nanotron), sft or dpo (TRL), vlm (transformers)."""
    unit: Literal["samples", "tokens"] = "samples"
    """sft, dpo, vlm: what the weights of a mixture are shares of: conversations, pairs or rows, or the tokens
    that the loss counts. Both are audited."""
    loss: Literal["all", "answers"] = "all"
    """sft, vlm: tokens that the loss counts: all, as SmolLM2 did, or those of answers and their ends of turn.
    It never counts the tokens of a picture. Of plain text, which vlm reads too, it counts every token."""
    beta: float = 0.1
    """dpo: weight of the distance from the reference; SmolLM2 took 0.5."""
    loss_type: DpoLoss = "sigmoid"
    """dpo: loss by TRL's name; sigmoid is the original one."""
    rounds: int = 1
    """dpo: equal parts of the schedule. Each starts from the model of the part before, takes it as its
    reference, and has a warm-up, a decay and an optimiser of its own."""
    vision: VisionSpec | None = None
    """vlm: the vision part. A run that begins from a language model gets a fresh one; a vision-language model
    must have this shape. null = that of the folder in warm_start.checkpoint."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        if not (math.isfinite(self.beta) and self.beta > 0):
            yield Problem("method.beta", "must be above zero", found=self.beta)
        if self.rounds < 1:
            yield Problem("method.rounds", "too few", found=self.rounds, allowed=">= 1")
        allowed = ("kind", *_FIELDS[self.kind])
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in allowed and value != field.default:
                yield Problem(
                    f"method.{field.name}",
                    f"has no meaning for method={self.kind}",
                    found=value,
                    do="leave it out, or choose another method",
                )

    @property
    def of_rows(self) -> bool:
        """Return whether samples are rows, counted one by one, and not windows of text of one length."""
        return self.kind != "pretrain"

    @property
    def supervises_answers(self) -> bool:
        """Return whether the loss counts the tokens of answers alone."""
        return self.kind == "dpo" or self.loss == "answers"
