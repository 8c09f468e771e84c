"""Kinds of a source of rows: conversations, pairs of answers, or conversations about pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem

__all__ = ["PICTURE_FIELDS", "RowKind", "RowSpec", "TooLong", "documents_a_row"]

RowKind = Literal["conversations", "preferences", "pictures"]
TooLong = Literal["cut", "drop"]

PICTURE_FIELDS = (
    *("pictures_column", "question_column", "answer_column", "texts_column"),
    *("picture_size", "max_pictures", "frames"),
)
"""Fields of rows with pictures alone; they came after stores of other rows had been made."""

_LEAST_TOKENS = 8
"""A turn's own markers take about five tokens: shorter rows hold no answer."""
_LEAST_SIDE = 8
"""Pixels of a side below which a picture shows nothing, and no patch of a vision tower fits."""


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """Samples of a source that is not plain text."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: RowKind
    """conversations = one column of messages; preferences = a prompt with a chosen and a rejected answer;
    pictures = a conversation whose user shows pictures, some rows none."""
    max_tokens: int
    """Most tokens of a row. Every run that reads the source has at least this training.sequence_length.
    A picture counts as one token here: how many a model makes of it is the model's."""
    too_long: TooLong = "cut"
    """Longer rows are cut at their end, or dropped. A row that has no answer left after the cut is dropped.
    Both are counted in the manifest."""
    messages_column: str = "messages"
    """conversations, pictures: column with a list of {role, content}, or of LLaVA's {from, value}."""
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
    """conversations, pictures: messages kept of each conversation, from its beginning; null = all."""
    pictures_column: str = "images"
    """pictures: column of a picture or a list of them: packed bytes, {bytes, path}, a path (relative to the
    file of the row), or a picture of Pillow. A row without the column, or with null, has none."""
    question_column: str | None = None
    """pictures: column of a question, together with answer_column and in place of messages."""
    answer_column: str | None = None
    """pictures: column of its answer."""
    texts_column: str | None = None
    """pictures: column with a list of {user, assistant}, in place of messages (The Cauldron, Docmatix)."""
    picture_size: int | None = None
    """pictures: pixels of a side of the square that each is fitted into: its longer side is brought to this
    length, and black fills the rest. The method's vision.image_size."""
    max_pictures: int = 8
    """pictures: rows with more are dropped and counted."""
    frames: int | None = None
    """pictures: a row's pictures are the frames of a video, also those of a folder or of an animated picture;
    so many are kept, at even distances. null = pictures."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        for name, least in (
            ("max_tokens", _LEAST_TOKENS),
            ("available", 1),
            ("max_turns", 2),
            ("picture_size", _LEAST_SIDE),
            ("max_pictures", 1),
            ("frames", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                yield Problem(
                    f"source.rows.{name}", "too small", found=value, allowed=f">= {least}"
                )

        yield from self._picture_problems()

    def _picture_problems(self) -> Iterator[Problem]:
        if self.kind != "pictures":
            defaults = {field.name: field.default for field in fields(self)}
            for name in PICTURE_FIELDS:
                if getattr(self, name) != defaults[name]:
                    yield Problem(f"source.rows.{name}", "is for kind=pictures", found=self.kind)
            return
        if self.picture_size is None:
            yield Problem(
                "source.rows.picture_size",
                "missing: the pixels of a side that pictures are brought to",
                do="set it to vision.image_size of the method, such as 64",
            )
        if (self.question_column is None) != (self.answer_column is None):
            yield Problem(
                "source.rows.question_column", "goes with answer_column: give both or neither"
            )
        elif self.question_column is not None and self.texts_column is not None:
            yield Problem(
                "source.rows.texts_column", "there is a question_column too: give one of them"
            )
        if self.frames is not None and self.frames > self.max_pictures:
            yield Problem(
                "source.rows.frames",
                "above max_pictures: every video would be dropped",
                found=f"{self.frames} > {self.max_pictures}",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that a row must have, of texts; a row may have no column of pictures."""
        if self.kind == "pictures" and self.texts_column is not None:
            return (self.texts_column,)
        if self.kind == "pictures" and self.question_column and self.answer_column:
            return (self.question_column, self.answer_column)
        if self.kind != "preferences":
            return (self.messages_column,)
        prompt = (self.prompt_column,) if self.prompt_column else ()
        return (*prompt, self.chosen_column, self.rejected_column)

    @property
    def width(self) -> int:
        """Return the documents of a row on disk: 1, or 2 for a pair."""
        return documents_a_row(self.kind)


def documents_a_row(kind: RowKind) -> int:
    """Return the documents of a row on disk: 1, or 2 for a pair."""
    return 2 if kind == "preferences" else 1
