"""Conversations about pictures: texts and pictures of a row, and the places of its pictures in the text.

Where the texts of the user place the pictures themselves, with ``<image>`` (or ``<video>`` for all frames of
a video), they stay there. Where none is placed, all stand before the first message of the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.data.rows.pictures import find_pictures
from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.samples import PLACEHOLDER, LeftOut, Sample, checked_messages, with_role

__all__ = ["picture_sample"]

_VIDEO = "<video>"


def picture_sample(
    row: Mapping[str, Any], spec: RowSpec, markers: Sequence[str], folder: Path | None
) -> Sample:
    """Return the sample of a row of a source of pictures.

    Args:
        row: Columns of the row; those of ``spec.columns`` exist.
        spec: The source's rows.
        markers: Special tokens of the tokenizer, that of pictures included.
        folder: Folder that paths of pictures are relative to.

    Raises:
        LeftOut: the row is no sample, with the reason.
    """
    turns = _turns(row, spec)
    if not all(isinstance(turn["content"], str) for turn in turns):
        raise LeftOut("not a list of messages")
    pictures = find_pictures(row.get(spec.pictures_column), spec, folder)
    _place(turns, len(pictures), video=spec.frames is not None)
    messages, replaced = checked_messages(turns[: spec.max_turns])
    if not any(message.role == "assistant" for message in messages):
        raise LeftOut("no answer of an assistant")
    shown = 0
    for message in messages:
        text = message.content
        if message.role == "user":
            shown += text.count(PLACEHOLDER)
            text = text.replace(PLACEHOLDER, "")
        if any(marker in text for marker in (PLACEHOLDER, *markers)):
            raise LeftOut("contains a marker of the chat template")
    # Messages beyond max_turns took their pictures with them.
    return Sample(messages, (), replaced, pictures[:shown])


def _turns(row: Mapping[str, Any], spec: RowSpec) -> list[dict[str, Any]]:
    """Return the messages as {role, content}, whose texts are not checked yet."""
    if spec.texts_column is not None:
        pairs = row[spec.texts_column]
        if not _is_list(pairs) or not all(isinstance(pair, Mapping) for pair in pairs):
            raise LeftOut("not a list of messages")
        return [
            {"role": role, "content": pair.get(role)}
            for pair in pairs
            for role in ("user", "assistant")
        ]
    if spec.question_column is not None and spec.answer_column is not None:
        return [
            {"role": "user", "content": row[spec.question_column]},
            {"role": "assistant", "content": row[spec.answer_column]},
        ]
    messages = row[spec.messages_column]
    if not _is_list(messages) or not all(isinstance(one, Mapping) for one in messages):
        raise LeftOut("not a list of messages")
    return [_turn(message) for message in messages]


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    message = with_role(message)
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        content = "".join(_part(part) for part in content)
    return {"role": message.get("role"), "content": content}


def _part(part: Any) -> str:
    """Return a part of a message in transformers' form as text."""
    if isinstance(part, Mapping) and part.get("type") == "image":
        return PLACEHOLDER
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise LeftOut("not a list of messages")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _place(turns: list[dict[str, Any]], count: int, *, video: bool) -> None:
    """Put a placeholder for each picture into the messages of the user."""
    asked = [turn for turn in turns if turn["role"] == "user"]
    if video:
        for turn in asked:
            turn["content"] = turn["content"].replace(_VIDEO, PLACEHOLDER)
    placed = sum(turn["content"].count(PLACEHOLDER) for turn in asked)
    if placed == count:
        return
    if not placed and asked:
        asked[0]["content"] = PLACEHOLDER * count + asked[0]["content"]
    elif placed == 1 and video and count:
        for turn in asked:
            turn["content"] = turn["content"].replace(PLACEHOLDER, PLACEHOLDER * count)
    else:
        raise LeftOut("places another number of pictures than it has")
