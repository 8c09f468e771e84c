"""The demo's raw web: half of the passages, spoiled in four ways, the same on every machine."""

from __future__ import annotations

from collections import Counter

from ablations.data.demo.demo_web import KINDS, planted_score, spoil_half
from ablations.data.synthetic import Text

PASSAGE = "The river rises in the hills and reaches the sea after two hundred miles. " * 8


def crawl(count: int = 2000) -> list[Text]:
    return list(spoil_half(Text(f"p{n}", f"{n} {PASSAGE}", f"g{n}") for n in range(count)))


def test_half_of_the_passages_are_spoiled_evenly_by_kind() -> None:
    made = crawl()
    spoiled = [text for text in made if planted_score(text.id) == 0]
    assert abs(len(spoiled) - 1000) < 80
    kinds = Counter(text.id.split("-")[1] for text in spoiled)
    assert set(kinds) == set(KINDS)
    assert all(abs(count - 250) < 60 for count in kinds.values())
    assert [text.group for text in made] == [f"g{n}" for n in range(2000)]
    assert made == crawl()


def test_a_spoiled_passage_keeps_its_length_and_no_sentence() -> None:
    for text in crawl():
        number = text.group.removeprefix("g")
        if planted_score(text.id):
            assert text.text == f"{number} {PASSAGE}"
        else:
            length = len(f"{number} {PASSAGE}")
            assert length * 0.9 < len(text.text) < length + 120
            assert "The river rises" not in text.text


def test_shuffled_letters_are_those_of_the_passage() -> None:
    shuffled = [text for text in crawl() if text.id.startswith("spoiled-shuffled-")]
    for text in shuffled:
        assert Counter(text.text) == Counter(f"{text.group.removeprefix('g')} {PASSAGE}")
