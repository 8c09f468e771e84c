"""Prompts about pictures as token ids: with their own pictures, without any, with those of another item.

    own        User:<around><global>▢▢▢▢<around>What is this?<end>⏎Assistant:
    without    User:What is this?<end>⏎Assistant:
    shuffled   as own, with the pictures of another item

The shuffled prompt is the control. A model that only learned that some picture precedes an answer loses by
"without", whose form it does not know, and loses nothing by another picture.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ablations.data.rows.chat_template import ChatSpec, PictureTokens, picture_tokens
from ablations.errors import DataError, EvaluationError, Problem
from ablations.evaluation.dataset_readers import Item
from ablations.evaluation.encoding import Encoder
from ablations.evaluation.items import group_of
from ablations.evaluation.prompts import make_prompt

__all__ = ["PicturePrompt", "donors", "expanded", "picture_prompts", "tokens_of_model"]

_SEED = 42
"""Seed of the order in which items take the pictures of the next one: the same for every checkpoint."""


@dataclass(frozen=True)
class PicturePrompt:
    """One item about pictures, in tokens."""

    item_id: str
    group: str | None
    pictures: tuple[int, ...]
    """Numbers of its pictures in the store, in their order in the prompt."""
    others: tuple[int, ...] | None
    """Numbers of another item's pictures, as many; None if every item shows one of its pictures."""
    context: tuple[int, ...]
    """Token ids before the answer, with one token for each picture."""
    blind: tuple[int, ...]
    """Token ids of the prompt without its pictures."""
    answer: tuple[int, ...]
    """Token ids of the reference answer."""
    references: tuple[str, ...]
    """Answers that count as right; the first one is measured."""


def picture_prompts(
    items: Sequence[Item], encoder: Encoder, tokens: PictureTokens, where: str, template: str
) -> list[PicturePrompt]:
    """Return the prompts of the items that show a picture; items of text alone are left out.

    Args:
        items: Held-out items of a store.
        encoder: Tokenizer of the model.
        tokens: Tokens of pictures of the model.
        where: Store of the items, for messages.
        template: Prompt of the task.

    Raises:
        DataError: no item shows a picture, or one does not have a place for each of its pictures.
    """
    shown = [item for item in items if item.get("pictures")]
    if not shown:
        raise DataError(Problem(where, "no held-out item shows a picture"))
    prompts = [make_prompt(item, "picture", template) for item in shown]
    contexts = encoder.encode([prompt.query for prompt in prompts], special=True)
    blind = [prompt.query.replace(tokens.picture, "") for prompt in prompts]
    without = encoder.encode(blind, special=True)
    answers = encoder.encode([prompt.choices[0] for prompt in prompts])
    numbers = [tuple(int(number) for number in item["pictures"]) for item in shown]
    for item, own, ids in zip(shown, numbers, contexts, strict=True):
        if ids.count(tokens.picture_id) != len(own):
            raise DataError(
                Problem(
                    f"{where}, item {item['id']}",
                    f"needs one {tokens.picture} for each picture",
                    found=f"{ids.count(tokens.picture_id)} for {len(own)} pictures",
                    do="prepare the source again, or score a model with the tokenizer of the store",
                )
            )
    return [
        PicturePrompt(
            item_id=str(item["id"]),
            group=group_of(item),
            pictures=own,
            others=other,
            context=tuple(context),
            blind=tuple(text),
            answer=tuple(answer),
            references=prompt.choices,
        )
        for item, prompt, own, other, context, text, answer in zip(
            shown, prompts, numbers, donors(numbers), contexts, without, answers, strict=True
        )
    ]


def donors(shown: Sequence[tuple[int, ...]]) -> list[tuple[int, ...] | None]:
    """Return for each item's pictures as many of another item that shows none of them.

    Different sequences of pictures are put in one random order, and each takes those of the next, the last
    one those of the first: every item gets other pictures, and every picture serves about as often as before.
    A longer item gets the next one's pictures in turn. None where no item shows other pictures alone.
    """
    order = sorted(set(shown))
    random.Random(_SEED).shuffle(order)
    found: dict[tuple[int, ...], tuple[int, ...] | None] = {}
    for place, own in enumerate(order):
        others = (order[(place + step) % len(order)] for step in range(1, len(order)))
        other = next((one for one in others if not set(one) & set(own)), None)
        found[own] = other and tuple(other[index % len(other)] for index in range(len(own)))
    return [found[own] for own in shown]


def expanded(
    context: Sequence[int], tokens: PictureTokens, features: Sequence[Sequence[int]]
) -> list[int]:
    """Return a context with the features of each picture in place of its token, wrapped as in training."""
    rows = iter(features)
    found: list[int] = []
    for token in context:
        if token == tokens.picture_id:
            found += [tokens.around_id, tokens.global_id, *next(rows), tokens.around_id]
        else:
            found.append(token)
    return found


def tokens_of_model(folder: Path, tokenizer: Any, picture_id: int) -> PictureTokens:
    """Return the tokens of pictures of a vision-language model's folder.

    A model of this platform has its tokenizer's settings beside it; a published one has tokens by the names
    of Idefics3.

    Args:
        folder: The model's folder.
        tokenizer: Its tokenizer.
        picture_id: Id of the picture's token in the model's config.

    Raises:
        EvaluationError: the tokenizer lacks one of the tokens, or has another id for it than the model.
    """
    found = picture_tokens(folder) if (folder / "spec.json").is_file() else None
    if found is None:
        names: Mapping[str, Any] = {field.name: field.default for field in fields(ChatSpec)}
        known = tokenizer.get_vocab()
        words = [names["picture_around"], names["picture_global"]]
        if missing := [word for word in words if word not in known]:
            raise EvaluationError(f"the model's tokenizer lacks {', '.join(missing)}")
        around, whole = (known[word] for word in words)
        text = str(tokenizer.convert_ids_to_tokens(picture_id))
        found = PictureTokens(
            picture=text, picture_id=picture_id, around_id=around, global_id=whole
        )
    if found.picture_id != picture_id:
        raise EvaluationError(
            f"the model's config and its tokenizer have two ids for {found.picture}: "
            f"{picture_id} and {found.picture_id}"
        )
    return found
