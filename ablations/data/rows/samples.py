"""Conversations and preferences: read from the columns of a data set, and checked.

A row that is not a conversation, or that a chat template could not write without changing its meaning, is
left out with a reason. Reasons are counted in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.data.rows.row_specs import RowSpec
from ablations.data.text import clean

__all__ = [
    "PLACEHOLDER",
    "ROLES",
    "LeftOut",
    "Message",
    "Sample",
    "checked_messages",
    "sample_of",
    "with_role",
]

PLACEHOLDER = "<image>"
"""Stands for a picture in the text of a sample, whatever token the tokenizer has for it."""

ROLES = ("system", "user", "assistant")


_FROM = {"human": "user", "gpt": "assistant"}
"""Roles of LLaVA's and ShareGPT's form, {from, value}."""


class LeftOut(Exception):  # noqa: N818 - it is counted, not raised to the user
    """Reason why a row is not a sample."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation, or a pair of answers to one."""

    messages: tuple[Message, ...]
    """The conversation; of a pair, the prompt."""
    answers: tuple[str, ...] = ()
    """Of a pair: the chosen answer, the rejected answer."""
    replaced_characters: int = 0
    """Characters that UTF-8 has no bytes for; U+FFFD stands in their place."""
    pictures: tuple[Any, ...] = ()
    """Its pictures as they were found (``rows.pictures``), in the order of their placeholders."""

    @property
    def text(self) -> str:
        """Return every turn and answer, one a paragraph: what contamination is looked for in."""
        text = "\n\n".join([*(message.content for message in self.messages), *self.answers])
        return text.replace(PLACEHOLDER, "") if self.pictures else text

    @property
    def opening(self) -> str:
        """Return the first message of the user: rows that share it are held out together."""
        for message in self.messages:
            if message.role == "user":
                return message.content
        return self.messages[0].content


def sample_of(row: Mapping[str, Any], spec: RowSpec, markers: Iterable[str]) -> Sample:
    """Return the sample of a data set's row.

    Args:
        row: Columns of the row; those of ``spec.columns`` exist.
        spec: The source's rows.
        markers: Special tokens of the chat template. A text that contains one would be read as turns.

    Raises:
        LeftOut: the row is no sample, with the reason.
    """
    if spec.kind == "conversations":
        messages, replaced = checked_messages(row[spec.messages_column])
        messages = messages[: spec.max_turns]
        answers: tuple[str, ...] = ()
        if not any(message.role == "assistant" for message in messages):
            raise LeftOut("no answer of an assistant")
    else:
        messages, answers, replaced = _pair(row, spec)
    texts = [*(message.content for message in messages), *answers]
    if any(marker in text for marker in markers for text in texts):
        raise LeftOut("contains a marker of the chat template")
    return Sample(messages, answers, replaced)


def with_role(message: Any) -> Any:
    """Return a message of the form {from, value} as {role, content}; anything else as it is."""
    if not isinstance(message, Mapping) or "role" in message or "from" not in message:
        return message
    name = str(message["from"])
    return {"role": _FROM.get(name, name), "content": message.get("value")}


def checked_messages(value: Any) -> tuple[tuple[Message, ...], int]:
    """Return messages, and the number of characters that were replaced in them.

    Raises:
        LeftOut: the value is no list of messages, or one is empty or of an unknown role.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise LeftOut("not a list of messages")
    messages, replaced = [], 0
    for entry in map(with_role, value):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
            raise LeftOut("not a list of messages")
        role = str(entry.get("role"))
        if role not in ROLES:
            raise LeftOut("a role that the template does not know")
        content, count = clean(entry["content"])
        if not content.strip():
            raise LeftOut("an empty message")
        messages.append(Message(role, content))
        replaced += count
    return tuple(messages), replaced


def _pair(
    row: Mapping[str, Any], spec: RowSpec
) -> tuple[tuple[Message, ...], tuple[str, ...], int]:
    """Return prompt, answers and replaced characters of a pair."""
    if spec.prompt_column is None:
        prompt, replaced = _prompt_before(row[spec.chosen_column])
    else:
        prompt, replaced = _prompt(row[spec.prompt_column])
    answers = []
    for column in (spec.chosen_column, spec.rejected_column):
        answer, count = _answer(row[column], prompt)
        answers.append(answer)
        replaced += count
    if answers[0] == answers[1]:
        raise LeftOut("both answers are equal")
    return prompt, tuple(answers), replaced


def _prompt(value: Any) -> tuple[tuple[Message, ...], int]:
    if not isinstance(value, str):
        return checked_messages(value)
    return checked_messages([{"role": "user", "content": value}])


def _prompt_before(value: Any) -> tuple[tuple[Message, ...], int]:
    """Return the messages before an answer."""
    messages, _ = checked_messages(value)
    if len(messages) < 2:
        raise LeftOut("an answer without a prompt")
    return messages[:-1], 0  # the answer counts what was replaced in them


def _answer(value: Any, prompt: tuple[Message, ...]) -> tuple[str, int]:
    """Return the text of an answer; a list of messages repeats the prompt before it, or holds it alone."""
    if isinstance(value, str):
        value = [{"role": "assistant", "content": value}]
    messages, replaced = checked_messages(value)
    if messages[-1].role != "assistant":
        raise LeftOut("an answer that is not the assistant's")
    before = messages[:-1]
    if before and before != tuple(m for m in prompt if m.role != "system") and before != prompt:
        raise LeftOut("an answer to another prompt")
    return messages[-1].content, replaced
