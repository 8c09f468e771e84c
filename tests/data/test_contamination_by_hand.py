"""Check the rule of overlaps at its edges: numbers, shared words, neighbours, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from ablations.data.contamination import (
    Hit,
    OverlapRule,
    TaskIndex,
    TaskReport,
    item_text,
    read_tasks,
    scan,
    store_texts,
)
from ablations.errors import DataError
from ablations.files import write_text
from tests.data.test_store import make_store


def item(question: str, name: str = "q", **more: Any) -> dict[str, Any]:
    row = {"id": name, "query": question, "choices": ["yes", "no"], "gold": 0, "question": question}
    return {**row, **more}


def index(*questions: str, **rule: Any) -> TaskIndex:
    rows = [item(question, str(number)) for number, question in enumerate(questions)]
    return TaskIndex({"t": rows}, OverlapRule(**rule))


def named(first: int, last: int, prefix: str = "w") -> list[str]:
    """Return words of letters alone, each another one."""
    return [f"{prefix}{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(first, last)]


def text(*parts: list[str]) -> str:
    return " ".join(word for part in parts for word in part)


@pytest.mark.parametrize(("numbers", "is_found"), [(5, True), (6, True), (7, False), (13, False)])
def test_a_run_of_mostly_numbers_is_no_quotation(numbers: int, is_found: bool) -> None:
    words = [str(n) for n in range(numbers)] + named(0, 13 - numbers)
    assert bool(index(text(words)).hits(text(words))) is is_found


def test_a_word_that_is_repeated_is_no_number() -> None:
    song = "ho ho ho ho ho ho ho and a bottle of rum now"
    for masked in (True, False):
        assert index(song, mask_numbers=masked).hits(song) == [Hit("t", "0", 1.0)]


def test_an_unknown_word_is_no_number() -> None:
    words = named(0, 12)
    made = index(text(words, ["7"]))
    assert made.hits(text(words, ["23"])) == [Hit("t", "0", 1.0)]
    assert made.hits(text(words, ["unknown"])) == []


@pytest.mark.parametrize("place", range(13))
def test_all_thirteen_words_are_compared(place: int) -> None:
    """Each word in turn is another one that the index knows, and common, so that the filter lets it pass."""
    words, known = named(0, 13), named(0, 13, "v")
    commons = [text([words[place]] * 9, named(k, k + 1, "u"), known) for k in range(20)]
    made = index(text(words), *commons)
    assert [hit.item for hit in made.hits(text(words))] == ["0"]
    changed = [*words[:place], known[place], *words[place + 1 :]]
    assert made.hits(text(changed)) == []


def test_items_of_all_lengths_are_sought_at_once() -> None:
    # Those shorter than nine words are sought with their answer: lengths 9, 4, 8 and 30.
    questions = [named(0, 9), named(20, 23), named(40, 47), named(60, 90)]
    made = index(*map(text, questions), words=9, fewest_words=3)
    for question in questions[1:3]:
        question.append("yes")
    for number, question in enumerate(questions):
        for before in ([], named(100, 107), named(100, 200)):
            assert made.hits(text(before, question, before)) == [Hit("t", str(number), 1.0)]
    assert [hit.item for hit in made.hits(text(*questions))] == ["0", "1", "2", "3"]


def test_words_of_another_document_do_not_complete_an_item() -> None:
    words = named(0, 20)
    made = index(text(words), words=5)
    halves = [text(words[:10]), text(words[10:])]
    assert made.hits_of_many(halves) == [[], []]
    assert made.hits_of_many([*halves, text(words)])[2] == [Hit("t", "0", 1.0)]
    assert made.hits_of_many(["", text(words), ""]) == [[], [Hit("t", "0", 1.0)], []]
    assert made.hits_of_many([]) == []


@pytest.mark.parametrize(("share", "is_found"), [(0.5, True), (0.51, False)])
def test_the_share_is_of_the_items_words_and_reached_exactly(share: float, is_found: bool) -> None:
    words = named(0, 20)
    half = text(named(0, 30, "x"), words[:10], named(30, 90, "x"))
    hits = index(text(words), words=5, common_share=share).hits(half)
    assert hits == ([Hit("t", "0", 0.5)] if is_found else [])


def test_a_place_within_an_items_length_of_the_last_one_is_not_looked_at_again() -> None:
    words, other = named(0, 30), named(0, 60, "x")
    spread = text(words[:5], other[:20], words[5:10], other[20:25], words[10:15])
    assert index(text(words), words=5, common_share=0.5).hits(spread) == []
    (hit,) = index(text(words), words=5, common_share=0.3).hits(spread)
    assert hit.share == pytest.approx(10 / 30)


def test_a_place_an_items_length_later_is_looked_at_again() -> None:
    words, other = named(0, 20), named(0, 99, "x")
    later = text(words[:5], other[:30], words, other[30:])
    (hit,) = index(text(words), words=5).hits(later)
    assert hit.share == 1.0


def test_an_empty_index_finds_nothing() -> None:
    for masked in (True, False):
        made = TaskIndex({"t": []}, OverlapRule(mask_numbers=masked))
        assert made.sizes == {"t": (0, 0)}
        assert made.hits("anything at all") == []


def test_tasks_are_counted_and_found_apart() -> None:
    long, other, short = text(named(0, 20)), text(named(30, 50)), text(named(60, 63))
    tasks = {
        "b": [item(long, "x"), item(short, "s", choices=["yes"])],
        "a": [item(other, "y"), item(long, "z")],
    }
    made = TaskIndex(tasks)
    assert made.sizes == {"b": (2, 1), "a": (2, 2)}
    assert made.hits(long) == [Hit("b", "x", 1.0), Hit("a", "z", 1.0)]
    b, a = scan(made, [("one", long), ("two", f"{long} {other}"), ("three", short)])
    assert (b.task, b.items, b.checked, b.documents, b.share) == ("b", 2, 1, 2, 0.5)
    assert (a.task, a.items, a.checked, a.documents, a.share) == ("a", 2, 2, 2, 1.0)
    assert a.examples == [("z", "one"), ("y", "two")]


# --------------------------------------------------------------------------------------- reports


def test_a_report_shows_five_examples_of_different_items() -> None:
    report = TaskReport(task="t", items=8, checked=8)
    for number in range(7):
        report.add(f"q{number}", "first")
        report.add(f"q{number}", "again")
    assert report.examples == [(f"q{number}", "first") for number in range(5)]
    assert report.contaminated == {f"q{number}" for number in range(7)}
    assert report.share == 7 / 8
    assert (report.documents, TaskReport(task="t", items=0, checked=0).share) == (0, 0.0)


def test_reports_of_two_parts_are_one() -> None:
    one, two = (TaskReport(task="t", items=9, checked=9, documents=n) for n in (2, 3))
    for number in range(4):
        one.add(f"q{number}", "one")
    for number in range(3, 9):
        two.add(f"q{number}", "two")
    one.merge(two)
    assert one.documents == 5
    assert one.contaminated == {f"q{number}" for number in range(9)}
    assert one.examples == [*((f"q{number}", "one") for number in range(4)), ("q4", "two")]


# ----------------------------------------------------------------------------------------- items


@pytest.mark.parametrize(
    ("row", "words", "whole"),
    [
        (item("a b c"), 3, "a b c"),
        (item("a b c"), 4, "a b c yes"),
        (item("a b c", gold=1), 4, "a b c no"),
        (item("c", query="P q\nc", passage="P q"), 3, "P q c"),
        (item("c", query="P q\nc", passage="P q"), 4, "P q c yes"),
        (item("c", query="c", passage="P q"), 1, "c"),
        (item("c", query="c", passage=""), 1, "c"),
    ],
)
def test_the_text_of_an_item_is_as_much_as_a_search_needs(
    row: dict[str, Any], words: int, whole: str
) -> None:
    assert item_text(row, words) == whole


def test_tasks_are_read_in_the_order_asked_and_every_unknown_one_is_named(tmp_path: Path) -> None:
    for name in ("quiz", "sums"):
        write_text(tmp_path / f"{name}.jsonl", f'{{"id": "{name}"}}\n')
    write_text(tmp_path / "quiz.shots.jsonl", '{"id": "shot"}\n')
    found = read_tasks(tmp_path, iter(["sums", "quiz"]))
    assert list(found.items()) == [("sums", [{"id": "sums"}]), ("quiz", [{"id": "quiz"}])]
    with pytest.raises(DataError) as refused:
        read_tasks(tmp_path, ["quiz", "quiz.shots", "none"])
    assert [problem.what for problem in refused.value.problems] == [
        "unknown task 'quiz.shots'",
        "unknown task 'none'",
    ]


def test_the_text_of_a_store_has_its_special_tokens(tmp_path: Path) -> None:
    vocabulary = {"<e>": 0, "red": 1, "cat": 2}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="<e>"))
    fast.add_special_tokens(["<e>"])
    (tmp_path / "tokenizers/t").mkdir(parents=True)
    fast.save(str(tmp_path / "tokenizers/t/tokenizer.json"))
    folder = make_store(tmp_path / "web", [np.array([1, 0, 2, 0]), np.array([2, 2, 0])])
    found = list(store_texts(folder, tmp_path / "tokenizers"))
    assert found == [("0", "red <e> cat"), ("1", "cat cat")]
