"""Synthetic text is the same everywhere, and its items can be answered from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ablations.data.prepare import Prepared
from ablations.data.synthetic import SKILLS, Skill, documents, task_items


@pytest.mark.parametrize("skill", SKILLS)
def test_documents_depend_on_the_seed_and_their_place_alone(skill: Skill) -> None:
    few, many = list(documents(skill, 5, seed=1)), list(documents(skill, 9, seed=1))
    assert many[:5] == few
    assert [t.text for t in documents(skill, 5, seed=2)] != [t.text for t in few]
    assert len({text.id for text in many}) == 9


def test_golden_text() -> None:
    assert next(documents("arithmetic", 1, seed=0)).text.startswith(
        "57 + 54 : ones 11 , tens 10 , 57 + 54 = 111 ."
    )


def test_the_vocabulary_is_closed() -> None:
    words: set[str] = set()
    for skill in SKILLS:
        for text in documents(skill, 400, seed=3):
            words.update(re.findall(r"[A-Za-z]+", text.text))
    assert len(words) < 200


def test_facts_are_told_in_the_text() -> None:
    told = " ".join(text.text for text in documents("facts", 600, seed=0))
    for item in task_items("facts", 50, seed=0):
        assert f"{item['query']} {item['choices'][item['gold']]}." in told
        for position, choice in enumerate(item["choices"]):
            assert position == item["gold"] or f"{item['query']} {choice}." not in told


def test_sums_are_right_and_the_choices_differ() -> None:
    for item in task_items("arithmetic", 50, seed=0):
        a, b = map(int, re.match(r"(\d+) \+ (\d+)", item["query"]).groups())  # type: ignore[union-attr]
        assert item["choices"][item["gold"]] == str(a + b)
        assert len(set(item["choices"])) == 4


def test_the_right_answer_has_no_favourite_place() -> None:
    golds = [item["gold"] for item in task_items("facts", 400, seed=0)]
    assert all(70 <= golds.count(place) <= 130 for place in range(4))


def test_preparing_skills_writes_their_items(skills: dict[str, Prepared], data_dir: Path) -> None:
    assert set(skills) == {"synthetic_facts", "synthetic_arithmetic"}
    lines = (data_dir / "benchmarks" / "synthetic_facts.jsonl").read_text().splitlines()
    assert {"id", "query", "choices", "gold", "joiner", "question"} == set(json.loads(lines[0]))
    assert len(lines) == 400
