"""Token ids of prompts and continuations, with the special tokens of a model's training and no others."""

from __future__ import annotations

from typing import Any

__all__ = ["Encoder"]


class Encoder:
    """Tokenizer of a model, used as its training used it.

    Args:
        tokenizer: Tokenizer that transformers loads from the model's folder.
        separator: Id of the only special token that training put into the text, after each document;
            None = training used the tokenizer's own special tokens.
    """

    def __init__(self, tokenizer: Any, separator: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.separator = separator

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the ids that end a generation: after a document, and after a turn of a chat model."""
        return tuple({one for one in (self.end, self.tokenizer.eos_token_id) if one is not None})

    @property
    def end(self) -> int | None:
        """Return the id of the token after a document."""
        eos: int | None = self.tokenizer.eos_token_id
        return eos if self.separator is None else self.separator

    @property
    def prefix(self) -> int:
        """Return the id of the token before a document: in training, the end of the previous one."""
        if self.separator is not None:
            return self.separator
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        prefix: int = bos if bos is not None else eos if eos is not None else 0
        return prefix

    def encode(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        """Return token ids; contexts (``special``) begin as in training and have no end token."""
        if not texts:
            return []
        added = special and self.separator is None
        encoded = self.tokenizer(texts, add_special_tokens=added, return_attention_mask=False)
        rows: list[list[int]] = encoded["input_ids"]
        if not special:
            return rows
        rows = [row[:-1] if row and row[-1] == self.end else row for row in rows]
        return [row or [self.prefix] for row in rows]
