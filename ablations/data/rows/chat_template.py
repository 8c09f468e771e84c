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
from ablations.files import read_json

__all__ = [
    "CHAT_PICTURE_FIELDS",
    "TEMPLATE_FILE",
    "ChatSpec",
    "PictureTokens",
    "add_chat",
    "picture_tokens",
    "render",
]

CHAT_PICTURE_FIELDS = ("picture", "picture_around", "picture_global")
"""Fields of tokenizers for pictures alone; they came after chat tokenizers had been made."""

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
    picture: str | None = None
    """Special token that stands for a picture, such as ``<image>``; null = no pictures."""
    picture_around: str = "<fake_token_around_image>"
    """Special token before and after the tokens of a picture (Idefics3); written in training alone."""
    picture_global: str = "<global-img>"
    """Special token before the tokens of a whole picture (Idefics3); written in training alone."""

    @property
    def special(self) -> tuple[str, ...]:
        """Return every special token of turns and pictures."""
        if self.picture is None:
            return self.markers
        return (*self.markers, self.picture_around, self.picture_global, self.picture)

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
        if len(set(self.special)) < len(self.special):
            yield Problem(
                "tokenizer.chat.picture",
                "markers and tokens of pictures must differ",
                found=", ".join(self.special),
            )


@dataclass(frozen=True, kw_only=True)
class PictureTokens:
    """Tokens of pictures of a tokenizer, as text and as ids."""

    picture: str
    picture_id: int
    around_id: int
    global_id: int


def picture_tokens(folder: Path) -> PictureTokens | None:
    """Return the tokens of pictures of the tokenizer in ``folder``; None if it has none.

    Raises:
        DataError: the folder is not one of ``data/tokenizers``, or it is damaged.
    """
    from tokenizers import Tokenizer as FastTokenizer

    try:
        chat = read_json(folder / "spec.json")["spec"].get("chat") or {}
        if not chat.get("picture"):
            return None
        fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            Problem(str(folder), "not a whole tokenizer folder", found=error)
        ) from error
    found = {key: fast.token_to_id(chat[key]) for key in CHAT_PICTURE_FIELDS}
    ids = {key: number for key, number in found.items() if number is not None}
    if missing := [chat[key] for key in CHAT_PICTURE_FIELDS if key not in ids]:
        raise DataError(Problem(str(folder), "lacks tokens of pictures", found=", ".join(missing)))
    return PictureTokens(
        picture=chat["picture"],
        picture_id=ids["picture"],
        around_id=ids["picture_around"],
        global_id=ids["picture_global"],
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
    added = [marker for marker in chat.special if marker not in known]
    if added:
        tokenizer.add_special_tokens({"extra_special_tokens": added})
    tokenizer.eos_token = chat.turn_end
    tokenizer.pad_token = tokenizer.pad_token or separator
    tokenizer.chat_template = chat.template
    tokenizer.save_pretrained(folder)
    split = [m for m in chat.special if len(tokenizer.encode(m, add_special_tokens=False)) != 1]
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
    # A space before an answer is part of its first token in most vocabularies, so it must be inside too.
    answers = [text[start:end].removeprefix(" ") for start, end in spans]
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
