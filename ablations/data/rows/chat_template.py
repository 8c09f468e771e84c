"""Chat tokenizers: another tokenizer, with markers of turns and a template that writes them.

The markers are reused where the tokenizer has them (SmolLM2's has both among its reserved tokens), else added
after its last token. So token ids of plain text stay those of the tokenizer that it is derived from, and a
model that was trained with that one gets new rows for the markers alone.

A template marks each answer with ``{% generation %}``, the end of the turn inside it: what is outside is no
answer, and a model that is trained on answers alone must learn to end its turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ablations.errors import ConfigError, DataError, Problem

__all__ = ["TEMPLATE_FILE", "ChatSpec", "add_chat", "render"]

TEMPLATE_FILE = "chat_template.jinja"
"""File of a tokenizer's folder that transformers reads the template from."""

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

_PROBE = (
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
)


@dataclass(frozen=True, kw_only=True)
class ChatSpec:
    """Markers and template of a chat tokenizer."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    template: str
    """Jinja template over ``messages`` and ``add_generation_prompt``, as transformers takes it, with
    ``{% generation %}…{% endgeneration %}`` around each answer and the end of its turn."""
    markers: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    """Special tokens that the template writes; those that the tokenizer lacks are added."""
    turn_end: str = "<|im_end|>"
    """The marker that ends a turn; it ends a generation too."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[Problem]:
        if not _GENERATION.search(self.template):
            yield Problem(
                "tokenizer.chat.template",
                "does not mark what the assistant writes",
                do="put {% generation %} and {% endgeneration %} around an answer and its end of turn",
            )
        if self.turn_end not in self.markers:
            yield Problem(
                "tokenizer.chat.turn_end",
                "is not one of tokenizer.chat.markers",
                found=self.turn_end,
                allowed=", ".join(self.markers),
            )
        if missing := [marker for marker in self.markers if marker not in self.template]:
            yield Problem(
                "tokenizer.chat.markers",
                "the template does not write it",
                found=", ".join(missing),
            )


def render(
    template: str, messages: Sequence[Mapping[str, str]]
) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation as text, and the characters [start, end) of each answer in it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        [list(messages)], chat_template=template, return_assistant_tokens_mask=True
    )
    return texts[0], [(int(start), int(end)) for start, end in spans[0]]


def add_chat(base: Path, folder: Path, chat: ChatSpec) -> None:
    """Write the tokenizer of ``base`` with markers and template into ``folder``.

    Raises:
        DataError: the template cannot be used to train.
    """
    from transformers import AutoTokenizer

    _check_template(chat)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    known = tokenizer.get_vocab()
    separator = tokenizer.eos_token
    added = [marker for marker in chat.markers if marker not in known]
    if added:
        tokenizer.add_special_tokens({"extra_special_tokens": added})
    tokenizer.eos_token = chat.turn_end
    tokenizer.pad_token = tokenizer.pad_token or separator
    tokenizer.chat_template = chat.template
    tokenizer.save_pretrained(folder)
    split = [m for m in chat.markers if len(tokenizer.encode(m, add_special_tokens=False)) != 1]
    if split:
        raise DataError(
            Problem("tokenizer.chat.markers", "not single tokens", found=", ".join(split))
        )


def _check_template(chat: ChatSpec) -> None:
    """Refuse a template that cannot be rendered, or whose answers do not hold their end of turn."""
    from jinja2 import TemplateError

    where = "tokenizer.chat.template"
    try:
        text, spans = render(chat.template, _PROBE)
        first = render(chat.template, _PROBE[:2])[0]
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(Problem(where, "cannot be rendered", found=error)) from error
    answers = [text[start:end] for start, end in spans]
    if answers != [f"two{chat.turn_end}", f"four{chat.turn_end}"]:
        raise DataError(
            Problem(
                where,
                "an answer must be its text and the end of the turn, inside {% generation %}",
                found=answers,
                allowed=[f"two{chat.turn_end}", f"four{chat.turn_end}"],
            )
        )
    if not text.startswith(first):
        raise DataError(
            Problem(where, "writes the turns of a conversation otherwise when more turns follow")
        )
