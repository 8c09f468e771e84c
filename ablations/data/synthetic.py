"""Synthetic skills: text from a seed, with task items whose answers the text teaches.

Five skills over a closed vocabulary of some 300 words, for tests of the whole loop: a model of a
tenth of a million parameters learns them in seconds, and learns what its mixture holds.

    facts        people, their town, their food, their pet: a fixed world, repeated in many documents
    arithmetic   additions of two two-digit numbers with the steps spelled out
    dialogue     short exchanges
    code         assignments and their printed results
    junk         words in random order: the one source whose best weight is zero by construction

``task_items`` gives four-way choices for facts and arithmetic; accuracy on them rises with the
weight of their source and falls with the other's, with an optimum inside::

    >>> next(documents("facts", 1, seed=0)).text.split(".")[0]
    'Hugo wears red'
    >>> item = task_items("facts", 3, seed=0)[0]
    >>> item["query"], item["choices"][item["gold"]]
    ('Dora has a', 'mouse')
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    pass

__all__ = ["SKILLS", "Text", "documents", "task_items"]

Skill = Literal["facts", "arithmetic", "dialogue", "code", "junk"]
SKILLS: tuple[Skill, ...] = ("facts", "arithmetic", "dialogue", "code", "junk")

_WORLD_SEED = 20_250
"""The world of facts is one world, whatever the seed of the documents."""
_SENTENCES = 6
_CHOICES = 4


def _words(text: str) -> list[str]:
    return text.split()


_PEOPLE = _words(
    "Anna Ben Carl Dora Emil Fay Gus Hana Igor June Karl Lena Max Nina Olga Paul Quinn Rosa Sam "
    "Tara Uma Vera Walt Xena Yara Zeno Abel Bella Cleo Dino Elsa Fred Gina Hugo Iris Jack Kira Liam "
    "Mona Noah"
)
_TOWNS = _words(
    "Bern Cairo Delhi Genoa Kyiv Lima Minsk Oslo Paris Quito Rome Sofia Tunis Turin Vienna Zurich"
)
_FOODS = _words(
    "apples beans bread cheese eggs figs grapes honey jam lemons melons nuts olives pasta rice soup"
)
_PETS = _words("bear bird cat cow crab deer dog duck fish fox frog goat hen horse mouse owl")
_COLOURS = _words("red blue green black white brown pink grey")
_NAMES = _words("a b c d e f g h k m n p x y z")


class Text(NamedTuple):
    """A document before tokenisation."""

    id: str
    text: str
    group: str
    """Documents of one group are held out together."""
    score: float | None = None
    """Score of the document, where the source has a column of scores."""
    url: str | None = None
    """Address of the document, where the source is cleaned by it."""


class _Fact(NamedTuple):
    subject: str
    relation: str
    value: str
    values: list[str]


def documents(skill: Skill, count: int, *, seed: int) -> Iterator[Text]:
    """``count`` documents of ``skill``; the same ones for the same seed on every machine."""
    write = _WRITERS[skill]
    for position in range(count):
        # One generator a document: a longer run begins with the documents of a shorter one.
        rng = random.Random(f"{skill}/{seed}/{position}")
        name = f"{skill}-{seed}-{position}"
        yield Text(name, write(rng), name)


def task_items(
    skill: Literal["facts", "arithmetic"], count: int, *, seed: int
) -> list[dict[str, Any]]:
    """Four-way choices in the row format of ``docs/benchmark_items.md``."""
    rng = random.Random(f"items/{skill}/{seed}")
    make = _fact_item if skill == "facts" else _sum_item
    return [{"id": f"{skill}-{seed}-{position}", **make(rng)} for position in range(count)]


def _world() -> list[_Fact]:
    rng = random.Random(_WORLD_SEED)
    relations = (("lives in", _TOWNS), ("eats", _FOODS), ("has a", _PETS), ("wears", _COLOURS))
    return [
        _Fact(person, relation, rng.choice(values), values)
        for person in _PEOPLE
        for relation, values in relations
    ]


_FACTS = _world()


def _facts(rng: random.Random) -> str:
    told = rng.sample(_FACTS, _SENTENCES)
    return " ".join(f"{fact.subject} {fact.relation} {fact.value}." for fact in told)


def _arithmetic(rng: random.Random) -> str:
    return " ".join(_steps(rng.randint(10, 99), rng.randint(10, 99)) for _ in range(3))


def _steps(a: int, b: int) -> str:
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    return f"{a} + {b} : ones {ones} , tens {tens} , {a} + {b} = {a + b} ."


def _dialogue(rng: random.Random) -> str:
    one, two = rng.sample(_PEOPLE, 2)
    food, town = rng.choice(_FOODS), rng.choice(_TOWNS)
    return (
        f"{one}: hello {two}, how are you? {two}: fine, and you? {one}: do you want {food}? "
        f"{two}: {rng.choice(('yes please', 'no thanks'))}. {one}: see you in {town}. {two}: bye {one}."
    )


def _code(rng: random.Random) -> str:
    first, second = rng.sample(_NAMES, 2)
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return f"{first} = {a}\n{second} = {first} + {b}\nprint({second})\n# {a + b}"


def _junk(rng: random.Random) -> str:
    words = [*_PEOPLE, *_TOWNS, *_FOODS, *_PETS, *_COLOURS, "ones", "tens", "lives", "eats", "has"]
    return " ".join(rng.choice(words) for _ in range(24))


_WRITERS: dict[Skill, Callable[[random.Random], str]] = {
    "facts": _facts,
    "arithmetic": _arithmetic,
    "dialogue": _dialogue,
    "code": _code,
    "junk": _junk,
}


def _fact_item(rng: random.Random) -> dict[str, Any]:
    fact = rng.choice(_FACTS)
    wrong = rng.sample([value for value in fact.values if value != fact.value], _CHOICES - 1)
    return _item(f"{fact.subject} {fact.relation}", fact.value, wrong, rng)


def _sum_item(rng: random.Random) -> dict[str, Any]:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    # Wrong by one or by ten, so that neither the length nor the size of the answer gives it away.
    wrong = [str(a + b + off) for off in rng.sample((-10, -1, 1, 10), _CHOICES - 1)]
    worked = _steps(a, b)
    query = worked[: worked.rindex(" =") + 2]
    return _item(query, str(a + b), wrong, rng)


def _item(query: str, right: str, wrong: list[str], rng: random.Random) -> dict[str, Any]:
    choices = [right, *wrong]
    rng.shuffle(choices)
    return {
        "query": query,
        "choices": choices,
        "gold": choices.index(right),
        "joiner": " ",
        "question": query,
    }
