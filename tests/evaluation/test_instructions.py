"""IFEval: known answers have known scores, by lighteval's own checkers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations.config.schema import conf_dir
from ablations.errors import ConfigError
from ablations.evaluation.dataset_readers import COLUMNS
from ablations.evaluation.items import ItemSources, Pool, item_digests, load_items
from ablations.evaluation.prompts import make_prompt
from ablations.evaluation.results import summarise
from ablations.evaluation.scoring import ScoringPlace, score_folder
from ablations.evaluation.specs import METRICS, EvaluationSpec, TaskSpec
from tests.evaluation.conftest import tiny_model, write_rows
from tests.oracles.chats import CHATML

HAS_LANGDETECT = importlib.util.find_spec("langdetect") is not None

PUBLISHED: list[dict[str, Any]] = [
    {
        "key": 1000,
        "prompt": "Write about a cat without a comma, in at least 5 words.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [
            {"num_words": None, "relation": None},
            {"num_words": 5, "relation": "at least"},
        ],
    },
    {
        "key": 1001,
        "prompt": "Answer as JSON.",
        "instruction_id_list": ["detectable_format:json_format"],
        "kwargs": [{}],
    },
    {
        "key": 1002,
        "prompt": "Name a title in <<>>, say mat twice, and end with home.",
        "instruction_id_list": [
            "detectable_format:title",
            "keywords:frequency",
            "startend:end_checker",
        ],
        "kwargs": [
            {},
            {"keyword": "mat", "frequency": 2, "relation": "at least"},
            {"end_phrase": "home"},
        ],
    },
]
"""Rows as google/IFEval publishes them."""

ANSWERS = {
    "1000": "The cat sat on a mat",  # both
    "1001": 'Here it is:\n{"cat": 1}',  # only without its first line: loose
    "1002": "the mat and the mat went home",  # two of three
}
EXPECTED = {
    "prompt_level_strict_acc": 1 / 3,
    "inst_level_strict_acc": 4 / 6,
    "prompt_level_loose_acc": 2 / 3,
    "inst_level_loose_acc": 5 / 6,
}


def ifeval(**changes: Any) -> TaskSpec:
    """The task as conf/ states it."""
    values = yaml.safe_load((conf_dir() / "evaluation/tasks/ifeval.yaml").read_text())["ifeval"]
    from pydantic import TypeAdapter

    made: TaskSpec = TypeAdapter(TaskSpec).validate_python({**values, **changes})
    return made


def items(rows: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    read = COLUMNS["ifeval"]
    return [made for row in rows or PUBLISHED if (made := read(row)) is not None]


def scored(answers: dict[str, str], rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Value of each metric for given answers, through the adapter and lighteval's functions."""
    from lighteval.models.model_output import ModelResponse

    from ablations.evaluation.lighteval import build_task, sample_metrics

    class Scripted:
        def respond(self, _: Any, docs: list[Any]) -> list[ModelResponse]:
            return [
                ModelResponse(text=[answers[doc.specific["item_id"]]], truncated_tokens_count=0)
                for doc in docs
            ]

    spec = ifeval()
    task = build_task("ifeval", spec, [Pool("", items(rows))])
    found = summarise(spec, sample_metrics(task, Scripted()))  # type: ignore[arg-type]
    assert found.reason is None
    return {name: one.value for name, one in found.metrics.items()}


def test_known_answers_get_known_scores() -> None:
    assert scored(ANSWERS) == pytest.approx(EXPECTED)
    assert scored(dict.fromkeys(ANSWERS, "")) == dict.fromkeys(EXPECTED, 0.0)


def test_the_scores_are_those_of_lighteval_s_own_task() -> None:
    """Its corpus functions on its sample function, without the platform's adapter."""
    scored(ANSWERS)  # imports it without a download
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc
    from lighteval.tasks.tasks.ifeval import main

    if not HAS_LANGDETECT:
        pytest.skip("lighteval's aggregation asks for langdetect")
    rows = [
        main.IFEvalMetrics().compute(
            main.ifeval_prompt(row), ModelResponse(text=[ANSWERS[str(row["key"])]])
        )
        for row in PUBLISHED
    ]
    assert isinstance(main.ifeval_prompt(PUBLISHED[0]), Doc)
    found = scored(ANSWERS)
    for name, aggregate in main.ifeval_metrics.corpus_level_fn.items():
        assert found[name] == pytest.approx(float(aggregate([row[name] for row in rows])))


@pytest.mark.parametrize(
    ("instruction", "values", "follows", "breaks"),
    [
        ("language:response_language", {"language": "de"}, "Die Katze sitzt im Haus", "The cat"),
        ("change_case:english_capital", {}, "THE CAT SAT ON THE MAT", "The cat sat on the mat"),
        ("change_case:english_lowercase", {}, "the cat sat on the mat", "The cat sat on the mat"),
    ],
)
def test_languages_are_recognised_alike_every_time(
    instruction: str, values: dict[str, Any], follows: str, breaks: str
) -> None:
    pytest.importorskip("langdetect")
    rows = [
        {"key": n, "prompt": "p", "instruction_id_list": [instruction], "kwargs": [values]}
        for n in range(2)
    ]
    answers = {"0": follows, "1": breaks}
    for _ in range(3):
        assert set(scored(answers, rows).values()) == {0.5}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "keywords:existence": {"keywords": ["cat"]},
    "keywords:frequency": {"keyword": "cat", "frequency": 1, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["dog"]},
    "keywords:letter_frequency": {"letter": "c", "let_frequency": 1, "let_relation": "at least"},
    "language:response_language": {"language": "en"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 1},
    "length_constraints:number_words": {"num_words": 3, "relation": "at least"},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": 1,
        "nth_paragraph": 1,
        "first_word": "the",
    },
    "detectable_content:number_placeholders": {"num_placeholders": 1},
    "detectable_content:postscript": {"postscript_marker": "P.S."},
    "detectable_format:number_bullet_lists": {"num_bullets": 1},
    "detectable_format:number_highlighted_sections": {"num_highlights": 1},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 1},
    "combination:repeat_prompt": {"prompt_to_repeat": "the cat"},
    "startend:end_checker": {"end_phrase": "house"},
}
"""Arguments of the checkers that take some; the others take none."""

FOLLOWS = {
    "keywords:existence", "keywords:frequency", "keywords:forbidden_words",
    "keywords:letter_frequency", "language:response_language", "punctuation:no_comma",
    "length_constraints:number_words", "length_constraints:number_paragraphs",
    "length_constraints:nth_paragraph_first_word", "combination:repeat_prompt",
    "startend:end_checker", "change_case:english_lowercase",
}  # fmt: skip
"""Instructions that "the cat is now in the house" follows."""


def test_each_checker_that_needs_no_data_runs() -> None:
    pytest.importorskip("langdetect")
    from ablations.evaluation.lighteval import instruction_checks as checks

    names = sorted(set(checks.INSTRUCTION_DICT) - set(checks._SENTENCES))
    assert len(names) == 23
    rows = [
        {
            "key": name,
            "prompt": "p",
            "instruction_id_list": [name],
            "kwargs": [ARGUMENTS.get(name, {})],
        }
        for name in names
    ]
    text = "the cat is now in the house"
    for name, row in zip(names, rows, strict=True):
        found = scored({name: text}, [row])
        assert found["prompt_level_strict_acc"] == float(name in FOLLOWS), name


def test_most_checkers_need_no_network() -> None:
    from ablations.evaluation.lighteval import instruction_checks as checks

    known = set(checks.INSTRUCTION_DICT)
    assert len(known) == 25
    assert set(checks._LANGUAGE) | set(checks._SENTENCES) < known
    offline = known - set(checks._LANGUAGE) - set(checks._SENTENCES)
    checks.require_checkers([{"instruction_id_list": sorted(offline)}])


@pytest.mark.parametrize(
    ("instruction", "missing", "do"),
    [
        ("language:response_language", "langdetect", r"ablations\[ifeval\]"),
        ("length_constraints:number_sentences", "punkt", "nltk.downloader punkt_tab"),
        ("length_constraints:number_word", "", "length_constraints:number_words"),
    ],
)
def test_a_checker_that_cannot_run_makes_the_task_missing_and_says_what_to_install(
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    instruction: str,
    missing: str,
    do: str,
) -> None:
    from ablations.evaluation.lighteval import instruction_checks as checks

    if missing == "langdetect":
        monkeypatch.setitem(sys.modules, "langdetect", None)
    if missing == "punkt":
        monkeypatch.setattr(checks.nltk.data, "find", _no_data)
    row = {"key": 1, "prompt": "p", "instruction_id_list": [instruction], "kwargs": [{}]}
    folder, place = chat_model(tmp_path, tokenizer, [row])
    quiz = TaskSpec(form="cloze", domain="d", items="quiz", metrics=("acc",))
    spec = EvaluationSpec(tasks={"ifeval": ifeval(max_new_tokens=4), "quiz": quiz}, heldout=False)
    rows = [{"id": "1", "query": "q", "choices": ["a", "b"], "gold": 0}]
    write_rows(place.data_dir / "benchmarks/quiz.jsonl", rows)
    found = score_folder(folder, spec, tmp_path / "out", place=place)
    assert found.tasks["quiz"].reason is None
    import re

    assert re.search(do, str(found.tasks["ifeval"].reason))


def _no_data(name: str) -> None:
    raise LookupError(name)


def chat_model(
    folder: Path, tokenizer: Any, rows: list[dict[str, Any]], template: str | None = CHATML
) -> tuple[Path, ScoringPlace]:
    """A random model whose tokenizer has a chat template, and the place of an item file of its own."""
    import copy

    made = copy.deepcopy(tokenizer)
    made.chat_template = template and template + (
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    tiny_model(tokenizer, 0).save_pretrained(folder / "model")
    made.save_pretrained(folder / "model")
    write_rows(folder / "data/benchmarks/ifeval.jsonl", items(rows))
    return folder / "model", ScoringPlace(data_dir=folder / "data")


def test_a_model_is_scored_on_a_local_file(tmp_path: Path, tokenizer: Any) -> None:
    folder, place = chat_model(tmp_path, tokenizer, PUBLISHED)
    spec = EvaluationSpec(tasks={"ifeval": ifeval(max_new_tokens=6)}, heldout=False)
    found = score_folder(folder, spec, tmp_path / "out", place=place)
    task = found.tasks["ifeval"]
    assert task.reason is None
    assert set(task.metrics) == set(METRICS["instructions"])
    assert all(one.n == 3 and 0.0 <= (one.value or 0.0) <= 1.0 for one in task.metrics.values())
    import pyarrow.parquet as pq

    details = pq.read_table(tmp_path / "out/details/0/ifeval.parquet").to_pydict()
    texts = dict(zip(details["item_id"], details["text"], strict=True))
    assert scored(texts) == {name: one.value for name, one in task.metrics.items()}


def test_the_model_reads_the_prompt_as_a_message_of_the_user(
    tmp_path: Path, tokenizer: Any
) -> None:
    from ablations.evaluation.lighteval import MemoryModel, build_task

    chat_model(tmp_path, tokenizer, PUBLISHED)
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = MemoryModel(own, window=512, batch_tokens=512)
    task = build_task("ifeval", ifeval(), [Pool("", items())])
    texts = {own.decode(ids) for ids in model._contexts(task.docs)}
    asked = {f"<|im_start|>user\n{row['prompt']}<|im_end|>\n" for row in PUBLISHED}
    assert texts == {text + "<|im_start|>assistant\n" for text in asked}


def test_a_model_without_a_template_has_no_score(tmp_path: Path, tokenizer: Any) -> None:
    folder, place = chat_model(tmp_path, tokenizer, PUBLISHED, template=None)
    quiz = TaskSpec(form="cloze", domain="d", items="quiz", metrics=("acc",))
    write_rows(
        place.data_dir / "benchmarks/quiz.jsonl",
        [{"id": "1", "query": "q", "choices": ["a", "b"], "gold": 0}],
    )
    spec = EvaluationSpec(tasks={"ifeval": ifeval(max_new_tokens=4), "quiz": quiz}, heldout=False)
    found = score_folder(folder, spec, tmp_path / "out", place=place)
    assert "has no chat template" in str(found.tasks["ifeval"].reason)


def test_the_published_file_is_read_from_a_mirror(tmp_path: Path) -> None:
    folder = tmp_path / "google/IFEval"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PUBLISHED))
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path, prefer_hub=True)
    (pool,) = load_items(ifeval(), sources)
    assert [item["id"] for item in pool.items] == ["1000", "1001", "1002"]
    assert list(item_digests([ifeval()], sources)) == ["google/IFEval/default/train"]


def test_a_chat_keeps_the_answer_as_it_stands() -> None:
    item = {"query": "q", "choices": ["a"], "gold": 0}
    made = make_prompt(item, "generative", "{query}", chat=True)
    assert (made.choices, made.exact, made.chat) == (("a",), True, True)
    assert make_prompt(item, "generative", "{query}").choices == (" a",)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"form": "cloze", "metrics": ("acc",), "chat": True}, "has no turns"),
        ({"max_new_tokens": None}, "needs a limit"),
        ({"metrics": ("exact_match",)}, "no such metric"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused(values: dict[str, Any], problem: str) -> None:
    base = {
        "form": "instructions",
        "domain": "d",
        "items": "x",
        "metrics": ("prompt_level_strict_acc",),
        "max_new_tokens": 4,
    }
    with pytest.raises(ConfigError, match=problem):
        TaskSpec(**{**base, **values})
