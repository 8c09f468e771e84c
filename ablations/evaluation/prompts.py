"""Prompts of items: a query, the continuations to score, and the right ones among them.

The cloze form is zero-shot: P(full answer | question), the answer with its leading space. In
WinoGrande the context varies and the continuation does not; ``contexts`` then has one context for each
choice. The letters form shows the options and scores " A", " B", …

    >>> make_prompt({"query": "Q: 2+2?\\nA:", "choices": ["4", "5"], "gold": 0}, "cloze", "{query}")
    Prompt(query='Q: 2+2?\\nA:', choices=(' 4', ' 5'), gold=(0,), contexts=None, checks=None)
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.evaluation.dataset_readers import Item
from ablations.evaluation.specs import Form

__all__ = ["Checks", "Prompt", "longest_choice", "make_prompt"]


@dataclass(frozen=True)
class Checks:
    """Code around a completion that decides if it is right."""

    before: str
    """Code before the completion: the function's head, or imports."""
    after: str
    """Code after the completion: the assertions."""


@dataclass(frozen=True)
class Prompt:
    """Input of the model for one item, and the continuations that it is scored on."""

    query: str
    choices: tuple[str, ...]
    """Continuations with their leading white space; for generated text the accepted answers."""
    gold: tuple[int, ...]
    """Indices of the right choices."""
    contexts: tuple[str, ...] | None = None
    """One context for each choice, if the context varies."""
    checks: Checks | None = None
    """Tests of generated code."""
    exact: bool = False
    """True if a continuation follows the query without white space of its own: a chat template opened the
    turn."""
    chat: bool = False
    """True if the query is a message of the user, which the model's chat template surrounds."""


def make_prompt(item: Item, form: Form, template: str, *, chat: bool = False) -> Prompt:
    """Return the prompt of one item.

    Args:
        item: Fields of ``docs/benchmark_items.md``.
        form: Form of the task.
        template: Its prompt.
        chat: The prompt is a message of the user.

    Raises:
        KeyError: the item lacks a field that the template or the form needs.
    """
    if form == "rolling":
        return Prompt(query=item["query"], choices=(), gold=())
    joiner = "" if chat else item.get("joiner", " ")
    if form == "instructions":
        return Prompt(_fill(template, {"choices": [], **item}), ("",), (0,), chat=chat)
    query = _fill(template, item)
    if form == "letters":
        letters = string.ascii_uppercase[: len(item["choices"])]
        return Prompt(query, tuple(f" {letter}" for letter in letters), (int(item["gold"]),))
    exact = chat or bool(item.get("exact"))
    if form in ("cloze", "preference"):
        contexts = tuple(item["contexts"]) if item.get("contexts") else None
        choices = tuple(joiner + choice for choice in item["choices"])
        return Prompt(query, choices, (int(item["gold"]),), contexts, exact=exact)
    # The first choice is the one whose bits per byte are counted; aliases are accepted as well.
    answers = dict.fromkeys([item["choices"][0], *item.get("answers", ())])
    choices = tuple(joiner + answer for answer in answers)
    checks = _checks(item) if form == "code" else None
    return Prompt(query, choices, tuple(range(len(choices))), None, checks, exact, chat)


def _fill(template: str, item: Item) -> str:
    """Fill the item's own text into ``template``; braces inside that text have no meaning."""
    fields: Mapping[str, Any] = {
        **item,
        "options": _options(item["choices"]),
        "subject": str(item.get("subject") or "").replace("_", " "),
    }
    return string.Formatter().vformat(template, (), fields)


def _options(choices: list[str]) -> str:
    return "".join(
        f"{letter}. {choice}\n"
        for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
    )


def _checks(item: Item) -> Checks:
    """Return the code around a completion of a function (HumanEval) or around a whole program (MBPP)."""
    if "test" in item:
        return Checks(item["query"], f"\n{item['test']}\ncheck({item['entry_point']})\n")
    return Checks(str(item.get("setup") or "") + "\n", "\n" + "\n".join(item["tests"]) + "\n")


def longest_choice(prompt: Prompt) -> float:
    """Return 1 if the longest choice is right, 1/k for a k-fold tie that includes the right one, else 0.

    Choosing the longest answer scores 0.42 on OpenBookQA, where chance is 0.25.
    """
    texts = prompt.contexts or prompt.choices
    longest = max(map(len, texts))
    tied = [index for index, text in enumerate(texts) if len(text) == longest]
    return len(set(tied) & set(prompt.gold)) / len(tied)
