"""Kinds of a source of rows: conversations, or pairs of a chosen and a rejected answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem

__all__ = ["RowKind", "RowSpec", "TooLong"]

RowKind = Literal["conversations", "preferences"]
TooLong = Literal["cut", "drop"]

_LEAST_TOKENS = 8
"""A turn's own markers take about five tokens: shorter rows hold no answer."""


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """Samples of a source that is not plain text."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: RowKind
    """conversations = one column of messages; preferences = a prompt with a chosen and a rejected answer."""
    max_tokens: int
    """Most tokens of a row. Every run that reads the source has at least this training.sequence_length."""
    too_long: TooLong = "cut"
    """Longer rows are cut at their end, or dropped. A row that has no answer left after the cut is dropped.
    Both are counted in the manifest."""
    messages_column: str = "messages"
    """conversations: column with a list of {role, content}."""
    prompt_column: str | None = "prompt"
    """preferences: column of the prompt, a text or a list of messages; null = both answers are lists of
    messages that begin with it."""
    chosen_column: str = "chosen"
    """preferences: column of the better answer, a text or a list of messages that ends with it."""
    rejected_column: str = "rejected"
    """preferences: column of the worse answer, in the same form."""
    available: int | None = None
    """Rows that the source can give; null = not stated. A prepared store's own count goes before it."""
    max_turns: int | None = None
    """conversations: messages kept of each conversation, from its beginning; null = all."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        for name, least in (("max_tokens", _LEAST_TOKENS), ("available", 1), ("max_turns", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                yield Problem(
                    f"source.rows.{name}", "too small", found=value, allowed=f">= {least}"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that a row must have."""
        if self.kind == "conversations":
            return (self.messages_column,)
        prompt = (self.prompt_column,) if self.prompt_column else ()
        return (*prompt, self.chosen_column, self.rejected_column)

    @property
    def width(self) -> int:
        """Return the documents of a row on disk: 1, or 2 for a pair."""
        return 1 if self.kind == "conversations" else 2
