"""The filter before the search for items never rejects a text that holds one."""

from __future__ import annotations

import copy
import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.data import word_runs
from ablations.data.contamination import OverlapRule, TaskIndex
from ablations.data.word_runs import _LETTERS, RunFilter

PLAIN = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "seventeen",
    "extraordinarily",
    "incomprehensible",
    "dogs",
    "slept",
]
ODD = [
    "h2o",
    "17",
    "1,000.5",
    "3.14abc",
    "_under_score_",
    "don't",
    "naïve",
    "Straße",
    "ΣΊΣΥΦΟΣ",
    "\u0130stanbul",
    "\u212aelvin",
    "\u0663",
    "日本",
    "x",
    "\ud800",
    "long\ud83dtail",
    "semi\u2014detached",
]
BETWEEN = [" ", "\n", ", ", " — ", "\u00a0", " (", "\0", " 12 ", "—"]
RULES = [
    None,
    OverlapRule(mask_numbers=False),
    OverlapRule(words=3, fewest_words=2, common_share=0.5),
    OverlapRule(words=5, fewest_words=1, common_share=0.9),
]


def row(text: str, name: str) -> dict[str, object]:
    return {"id": name, "question": text, "query": "", "choices": ["so it is"], "gold": 0}


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Draw items, and texts that quote them with other marks, cases, numbers and words."""
    rng = random.Random(draw(st.integers(0, 10**9)))
    words = PLAIN[: draw(st.integers(2, len(PLAIN)))] + draw(st.lists(st.sampled_from(ODD)))

    def joined(some: list[str]) -> str:
        return "".join(word + rng.choice(BETWEEN) for word in some)

    items = [rng.choices(words, k=rng.randint(1, 30)) for _ in range(draw(st.integers(1, 4)))]
    texts = []
    for _ in range(draw(st.integers(0, 6))):
        quoted = list(rng.choice(items))
        for _ in range(rng.randint(0, 3)):
            quoted[rng.randrange(len(quoted))] = rng.choice(words)
        around = [rng.choices(words, k=rng.randint(0, 12)) for _ in range(2)]
        text = joined([*around[0], *quoted, *around[1]])
        texts.append(rng.choice([str.lower, str.upper, str.title, str])(text))
    return [joined(some) for some in items], texts


@settings(deadline=None, max_examples=300)
@given(studies(), st.sampled_from(RULES), st.sampled_from([8, 64, 1 << 19]))
def test_the_filter_changes_no_result(
    study: tuple[list[str], list[str]], rule: OverlapRule | None, chunk: int
) -> None:
    items, texts = study
    index = TaskIndex({"task": [row(text, str(n)) for n, text in enumerate(items)]}, rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_runs, "_CHUNK", chunk)
        assert index.hits_of_many(texts) == index._sought(texts)


def test_other_text_is_rejected_and_a_quotation_is_not() -> None:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in PLAIN for b in PLAIN]
    items = [" ".join(rng.choices(words, k=20)) for _ in range(200)]
    index = TaskIndex({"task": [row(text, str(n)) for n, text in enumerate(items)]})
    others = [" ".join(rng.choices(words, k=200)) for _ in range(300)]
    quoting = [f"{others[n]} {items[n].upper()} {others[n + 1]}" for n in range(100)]
    assert index._filter.may_hold(others).mean() < 0.01
    assert index._filter.may_hold(quoting).all()
    mixed = index._filter.may_hold([text for pair in zip(others, quoting) for text in pair])  # noqa: B905
    assert mixed[1::2].all()
    assert mixed[0::2].mean() < 0.01


def test_only_two_characters_beyond_ascii_become_ascii_letters() -> None:
    found = {
        character
        for character in map(chr, range(128, sys.maxunicode + 1))
        if any(c.isascii() and (c.isalnum() or c == "_") for c in character.lower())
    }
    assert found == set(word_runs._BECOME_ASCII)


def test_letters_are_those_that_words_have() -> None:
    for byte in range(256):
        is_letter = byte < 128 and (chr(byte).isalpha() or chr(byte) == "_")
        assert _LETTERS[byte] == (ord(chr(byte).lower()) if is_letter else 0)


def test_without_items_every_text_is_rejected() -> None:
    index = TaskIndex({"task": []})
    assert index.hits_of_many(["some text", ""]) == [[], []]
    assert not index._filter.may_hold(["some text", ""]).any()


def test_an_n_gram_without_ascii_letters_switches_the_filter_off() -> None:
    find = RunFilter(["日本", "語"], np.array([0, 1, 0]), np.array([0]), np.array([3]))
    assert find.may_hold(["", "anything"]).all()
    assert find.may_hold([]).size == 0


def test_words_that_differ_behind_the_first_bytes_are_other_words() -> None:
    """Sixteen bytes and the length of a run are compared: the words here differ within them."""
    words = ["internationalise", "internationalist", "internation", "internatiom"]
    ids, first, size = np.array([0, 2]), np.array([0]), np.array([2])
    find = RunFilter(words, ids, first, size)
    texts = [f"{a} {b}" for a in words for b in words]
    held = [text for text in texts if find.may_hold([text])[0]]
    assert held == ["internationalise internation"]


def test_an_executor_s_copy_of_an_index_is_the_index() -> None:
    index = TaskIndex({"task": [row("one two three four five six seven eight nine", "q")]})
    assert copy.deepcopy([index])[0] is index
