"""Prompts: the input of the model for each form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.evaluation.prompts import Checks, Prompt, longest_choice, make_prompt

ITEM: dict[str, Any] = {
    "query": "Question: Why?\nAnswer:",
    "question": "Why?",
    "choices": ["Because.", "No."],
    "gold": 1,
    "joiner": " ",
}


def test_cloze_scores_the_full_answers_with_a_leading_space() -> None:
    prompt = make_prompt(ITEM, "cloze", "Q: {question} A:")
    assert prompt == Prompt("Q: Why? A:", (" Because.", " No."), (1,))


def test_letters_shows_the_options_and_scores_their_letters() -> None:
    prompt = make_prompt(ITEM, "letters", "{question}\n{options}Answer:")
    assert prompt.query == "Why?\nA. Because.\nB. No.\nAnswer:"
    assert prompt.choices == (" A", " B")


def test_ten_options_have_ten_letters() -> None:
    many = {**ITEM, "choices": [str(n) for n in range(10)], "gold": 9}
    assert make_prompt(many, "letters", "{options}").choices[-1] == " J"


def test_winogrande_varies_the_context_and_not_the_continuation() -> None:
    item = {**ITEM, "contexts": ["The cat", "The dog"], "choices": ["ran."] * 2}
    prompt = make_prompt(item, "cloze", "{query}")
    assert prompt.contexts == ("The cat", "The dog")
    assert prompt.choices == (" ran.", " ran.")


def test_every_alias_of_a_generated_answer_is_gold_and_the_reference_comes_first() -> None:
    item = {**ITEM, "choices": ["Sunset Boulevard"], "gold": 0, "answers": ["Sunset Blvd"]}
    prompt = make_prompt(item, "generative", "{query}")
    assert prompt.choices == (" Sunset Boulevard", " Sunset Blvd")
    assert prompt.gold == (0, 1)


def test_a_function_is_completed_and_checked_by_its_name() -> None:
    item = {**ITEM, "query": "def f():\n", "joiner": "", "test": "T", "entry_point": "f"}
    assert make_prompt(item, "code", "{query}").checks == Checks("def f():\n", "\nT\ncheck(f)\n")


def test_a_program_is_checked_by_its_assertions() -> None:
    item = {**ITEM, "tests": ["assert a", "assert b"], "setup": "import m"}
    checks = make_prompt(item, "code", "{query}").checks
    assert checks == Checks("import m\n", "\nassert a\nassert b\n")


def test_subjects_are_words() -> None:
    item = {**ITEM, "subject": "abstract_algebra"}
    assert make_prompt(item, "cloze", "On {subject}.").query == "On abstract algebra."


@given(st.text())
def test_braces_in_an_item_mean_nothing(text: str) -> None:
    prompt = make_prompt({**ITEM, "question": text}, "cloze", "{question}|")
    assert prompt.query == text + "|"


def test_a_template_field_that_the_item_lacks_is_an_error() -> None:
    with pytest.raises(KeyError, match="passage"):
        make_prompt(ITEM, "cloze", "{passage}")


@pytest.mark.parametrize(
    ("choices", "gold", "expected"),
    [((" a", " bbb"), 1, 1.0), ((" a", " bbb"), 0, 0.0), ((" aa", " bb", " c"), 0, 0.5)],
)
def test_the_length_baseline_splits_ties(
    choices: tuple[str, ...], gold: int, expected: float
) -> None:
    assert longest_choice(Prompt("q", choices, (gold,))) == expected
