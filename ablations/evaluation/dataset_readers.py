"""Readers for the row layouts of published data sets: each turns a row into an item.

An item has the fields of ``docs/benchmark_items.md`` (``id``, ``question``, ``choices``, ``gold`` and
those that its task adds), whether it comes from the hub, a mirror or an item file, so that one prompt
template serves all three. A reader returns None for a row without an answer, as in published test
splits without labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["COLUMNS", "Item", "Row"]

Row = Mapping[str, Any]
Item = dict[str, Any]


def _choice_item(
    question: str, choices: list[str], gold: int, *, query: str | None = None, **more: Any
) -> Item:
    return {
        "query": f"Question: {question}\nAnswer:" if query is None else query,
        "question": question,
        "choices": choices,
        "gold": gold,
        "joiner": " ",
        **more,
    }


def _lettered(row: Row, question: str) -> Item | None:
    """Read a row of ARC, OpenBookQA or CommonsenseQA: ``answerKey`` is one of ``choices["label"]``."""
    key = str(row["answerKey"]).strip()
    if key not in row["choices"]["label"]:
        return None
    gold = list(row["choices"]["label"]).index(key)
    return _choice_item(question, list(row["choices"]["text"]), gold)


def _arc(row: Row) -> Item | None:
    return _lettered(row, row["question"])


def _openbookqa(row: Row) -> Item | None:
    return _lettered(row, row["question_stem"])


def _hellaswag(row: Row) -> Item | None:
    if str(row["label"]) == "":
        return None
    text = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    query = _wikihow(text).strip()
    endings = [_wikihow(ending).strip() for ending in row["endings"]]
    # Several items are cut from one article or video.
    return _choice_item(query, endings, int(row["label"]), query=query, group=row.get("source_id"))


def _wikihow(text: str) -> str:
    """Remove WikiHow's markers: ``[title]`` ends a sentence, other brackets are dropped."""
    text = re.sub(r"\[.*?\]", "", text.replace(" [title]", ". "))
    return text.replace("  ", " ")


def _mmlu(row: Row) -> Item | None:
    subject = str(row.get("subject") or "").replace("_", " ")
    return _choice_item(row["question"], list(row["choices"]), int(row["answer"]), subject=subject)


def _mmlu_pro(row: Row) -> Item | None:
    gold = int(row["answer_index"])
    return _choice_item(row["question"], list(row["options"]), gold, subject=row["category"])


def _piqa(row: Row) -> Item | None:
    if int(row["label"]) < 0:
        return None
    return _choice_item(row["goal"], [row["sol1"], row["sol2"]], int(row["label"]))


def _winogrande(row: Row) -> Item | None:
    if str(row["answer"]) == "":
        return None
    before, after = row["sentence"].split("_")
    options = [row["option1"], row["option2"]]
    return _choice_item(
        row["sentence"],
        [after.strip()] * 2,
        int(row["answer"]) - 1,
        query=before.strip(),
        contexts=[before + option for option in options],
    )


def _boolq(row: Row) -> Item | None:
    question = row["question"].rstrip("?")
    query = f"{row['passage']}\nQuestion: {question}?\nAnswer:"
    gold = int(row["answer"])
    return _choice_item(question, ["no", "yes"], gold, query=query, passage=row["passage"])


def _siqa(row: Row) -> Item | None:
    answers = [row["answerA"], row["answerB"], row["answerC"]]
    context = row["context"]
    return _choice_item(
        f"{context} {row['question']}", answers, int(row["label"]) - 1, group=context
    )


def _triviaqa(row: Row) -> Item | None:
    answer = row["answer"]
    answers = list(dict.fromkeys([answer["value"], *answer["aliases"]]))
    return _choice_item(row["question"], answers[:1], 0, answers=answers, id=row.get("question_id"))


def _gsm8k(row: Row) -> Item | None:
    final = row["answer"].split("####")[-1].strip().replace(",", "")
    return _choice_item(row["question"], [row["answer"]], 0, answer=final)


def _math(row: Row) -> Item | None:
    query = f"Problem:\n{row['problem']}\n\nSolution:"
    return _choice_item(row["problem"], [row["solution"]], 0, query=query)


def _humaneval(row: Row) -> Item | None:
    return {
        "id": row["task_id"],
        "query": row["prompt"],
        "question": row["prompt"],
        "choices": [row["canonical_solution"]],
        "gold": 0,
        "joiner": "",
        "test": row["test"],
        "entry_point": row["entry_point"],
    }


def _ifeval(row: Row) -> Item | None:
    return {
        "id": str(row["key"]),
        "query": row["prompt"],
        "question": row["prompt"],
        "choices": [],
        "gold": 0,
        "joiner": "",
        "instruction_id_list": list(row["instruction_id_list"]),
        "kwargs": [dict(one) for one in row["kwargs"]],
    }


def _item(row: Row) -> Item | None:
    return dict(row)


COLUMNS: Mapping[str, Callable[[Row], Item | None]] = {
    "arc": _arc,
    "boolq": _boolq,
    "commonsenseqa": _arc,
    "gsm8k": _gsm8k,
    "hellaswag": _hellaswag,
    "humaneval": _humaneval,
    "ifeval": _ifeval,
    "item": _item,
    "math": _math,
    "mmlu": _mmlu,
    "mmlu_pro": _mmlu_pro,
    "openbookqa": _openbookqa,
    "piqa": _piqa,
    "siqa": _siqa,
    "triviaqa": _triviaqa,
    "winogrande": _winogrande,
}
"""Layout → reader; ``item`` rows already are items."""
