"""Samples as rows: tokens with a mask of the answers, and items of the held-out ones.

    conversation  <|im_start|>user⏎What is 2+2?<|im_end|>⏎<|im_start|>assistant⏎Four.<|im_end|>⏎
    mask                                                                       ▔▔▔▔▔▔▔▔▔▔▔▔▔▔

A pair is two rows of one prompt, whose masks hold the last answer alone. Rows of more than
``max_tokens`` are cut at their end or dropped, here and nowhere later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.rows.chat_template import TEMPLATE_FILE, picture_tokens, render
from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.samples import PLACEHOLDER, LeftOut, Message, Sample
from ablations.errors import DataError, Problem

__all__ = ["NO_PICTURES", "Renderer", "Row"]

NO_PICTURES: npt.NDArray[np.uint8] = np.zeros((0, 3, 0, 0), dtype=np.uint8)
"""Pictures of a row without any."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of a conversation, or of a prompt with one answer."""

    tokens: npt.NDArray[np.uint32]
    mask: npt.NDArray[np.bool_]
    """True for the tokens of answers, their end of turn included."""
    pictures: npt.NDArray[np.uint8] = field(default_factory=lambda: NO_PICTURES)
    """Its pictures in the order of their ``<image>`` tokens, [n, 3, S, S], red, green, blue from 0 to 255."""


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A conversation as text and tokens, whole and as it is kept."""

    text: str
    spans: Sequence[tuple[int, int]]
    """Characters [start, end) of each answer."""
    row: Row
    end: int
    """Characters of the text that the kept tokens stand for."""


class Renderer:
    """Writes samples with a chat tokenizer.

    Args:
        tokenizer: Folder of the tokenizer.
        spec: The source's rows.
        cut: Counts what is cut: ``cut_rows`` and ``cut_tokens``.

    Raises:
        DataError: the tokenizer has no chat template, or the rows have pictures and it no token of them.
    """

    def __init__(self, tokenizer: Path, spec: RowSpec, cut: Counter[str]) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        path = tokenizer / TEMPLATE_FILE
        if not path.is_file():
            raise DataError(
                Problem(
                    f"tokenizer {tokenizer.name}",
                    "has no chat template",
                    do="take a tokenizer with one, such as tokenizer=demo_chat, or set tokenizer.chat",
                )
            )
        self.template = path.read_text(encoding="utf-8")
        config = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.turn_end: str = config["eos_token"]
        self.spec, self._cut = spec, cut
        self._fast = FastTokenizer.from_file(str(tokenizer / "tokenizer.json"))
        added = self._fast.get_added_tokens_decoder().values()
        self.markers = tuple(token.content for token in added if token.special)
        self._picture = picture_tokens(tokenizer) if spec.kind == "pictures" else None
        if spec.kind == "pictures" and self._picture is None:
            raise DataError(
                Problem(
                    f"tokenizer {tokenizer.name}",
                    "has no token of pictures",
                    do="take a tokenizer with one, such as tokenizer=demo_vision, or set "
                    "tokenizer.chat.picture",
                )
            )

    def shown(self, row: Row) -> int:
        """Return the pictures within a row: a row that was cut has lost those behind the cut."""
        if self._picture is None:
            return 0
        return int(np.count_nonzero(row.tokens == self._picture.picture_id))

    def shown_before(self, query: str) -> int:
        """Return the pictures in the text before an answer."""
        return 0 if self._picture is None else query.count(self._picture.picture)

    def rows(self, sample: Sample) -> list[Row]:
        """Return the row of a conversation, or the two rows of a pair, chosen before rejected.

        Raises:
            LeftOut: it is too long, or no answer is left of it.
        """
        rendered = [self._render(messages) for messages in _whole(sample)]
        rows = [one.row for one in rendered]
        if sample.answers:
            rows = [self._last_answer(one) for one in rendered]
        if not all(row.mask.any() for row in rows):
            raise LeftOut(f"no answer within {self.spec.max_tokens} tokens")
        for one, row in zip(rendered, rows, strict=True):
            if one.end < len(one.text) and row.tokens.size == self.spec.max_tokens:
                self._cut["cut_rows"] += 1
                self._cut["cut_tokens"] += self._count(one.text) - self.spec.max_tokens
        return rows

    def items(self, name: str, sample: Sample, group: str) -> list[dict[str, Any]]:
        """Return the items of a held-out sample: one for each answer of a conversation, one for a pair.

        An item's text ends where the training's row would.

        Raises:
            LeftOut: as :meth:`rows` does.
        """
        rendered = [self._render(messages) for messages in _whole(sample)]
        if sample.answers:
            starts = [one.spans[-1][0] for one in rendered]
            choices = [self._answer(one, -1) for one in rendered]
            if not all(choices):
                raise LeftOut(f"no answer within {self.spec.max_tokens} tokens")
            return [_item(name, rendered[0].text[: starts[0]], choices, group)]
        items = []
        for turn, (start, _) in enumerate(rendered[0].spans):
            if answer := self._answer(rendered[0], turn):
                items.append(_item(f"{name}#{turn}", rendered[0].text[:start], [answer], group))
        if not items:
            raise LeftOut(f"no answer within {self.spec.max_tokens} tokens")
        return items

    def _answer(self, one: _Rendered, turn: int) -> str:
        """Return the text of an answer that is kept, without its end of turn."""
        start, end = one.spans[turn]
        return one.text[start : min(end, one.end)].removesuffix(self.turn_end)

    def _last_answer(self, one: _Rendered) -> Row:
        """Return the row of one answer: no other turn counts, and nothing follows the end of its turn."""
        counted = np.flatnonzero(one.row.mask)
        if not counted.size:
            return one.row
        gaps = np.flatnonzero(np.diff(counted) > 1)
        first = int(counted[gaps[-1] + 1]) if gaps.size else int(counted[0])
        if len(gaps) + 1 < len(one.spans):  # the last answer lies behind the cut
            return Row(one.row.tokens, np.zeros_like(one.row.mask))
        mask = one.row.mask.copy()
        mask[:first] = False
        stop = int(counted[-1]) + 1
        return Row(one.row.tokens[:stop], mask[:stop])

    def _render(self, messages: Sequence[Message]) -> _Rendered:
        text, spans = render(
            self.template, [{"role": one.role, "content": self._own(one)} for one in messages]
        )
        encoded = self._fast.encode(text, add_special_tokens=False)
        offsets = np.array(encoded.offsets, dtype=np.int64).reshape(-1, 2)
        mask = np.zeros(len(offsets), dtype=bool)
        for start, end in spans:
            mask |= (offsets[:, 0] >= start) & (offsets[:, 0] < end)
        tokens = np.array(encoded.ids, dtype=np.uint32)
        end = len(text)
        if tokens.size > self.spec.max_tokens:
            if self.spec.too_long == "drop":
                raise LeftOut(f"more than {self.spec.max_tokens} tokens")
            kept = self.spec.max_tokens
            tokens, mask, end = tokens[:kept], mask[:kept], int(offsets[kept - 1, 1])
        return _Rendered(text, spans, Row(tokens, mask), end)

    def _own(self, message: Message) -> str:
        """Return a message with the tokenizer's own token for each picture."""
        if self._picture is None:
            return message.content
        return message.content.replace(PLACEHOLDER, self._picture.picture)

    def _count(self, text: str) -> int:
        return len(self._fast.encode(text, add_special_tokens=False).ids)


def _whole(sample: Sample) -> list[tuple[Message, ...]]:
    """Return the conversations to write: one, or one for each answer of a pair."""
    if not sample.answers:
        return [sample.messages]
    return [(*sample.messages, Message("assistant", answer)) for answer in sample.answers]


def _item(name: str, query: str, choices: list[str], group: str) -> dict[str, Any]:
    """Return an item in the layout of ``docs/benchmark_items.md``; its choices follow its query directly."""
    row: dict[str, Any] = {"id": name, "query": query, "question": query, "choices": choices}
    return {**row, "gold": 0, "joiner": "", "exact": True, "group": group}
