"""``ablate ls``: filters, order and limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.study.listing import ListedRun, SortKey, sorted_runs
from tests.conftest import Ablate

RECORDED = Path(__file__).parents[2] / "analysis/fixtures/runs"
ROOT = f"runs_dir={RECORDED}"


def names(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()[1:] if "/" in line.split()[0]]


def run(name: str, **values: object) -> ListedRun:
    return ListedRun(run=f"s/{name}", study="s", status="done", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("by", "reverse", "order"),
    [
        ("run", False, "abc"),
        ("run", True, "cba"),
        ("score", False, "cab"),
        ("score", True, "acb"),
        ("tokens", False, "bac"),
    ],
)
def test_the_best_and_the_largest_come_first_and_the_unknown_last(
    by: SortKey, reverse: bool, order: str
) -> None:
    runs = [
        run("a", score=0.5, direction="minimize", tokens=2),
        run("b", tokens=3),
        run("c", score=0.1, direction="minimize", tokens=1),
    ]
    found = sorted_runs(runs, by, reverse=reverse)
    assert "".join(one.run[-1] for one in found) == order


def test_more_is_better_where_the_study_says_so() -> None:
    runs = [run("a", score=0.1, direction="maximize"), run("b", score=0.5, direction="maximize")]
    assert [one.run for one in sorted_runs(runs, "score")] == ["s/b", "s/a"]


def test_the_best_runs_are_listed_with_what_is_hidden(ablate: Ablate) -> None:
    every = ablate("ls", ROOT)
    best = ablate("ls", ROOT, "sort=score", "limit=2")
    assert len(names(best.out)) == 2
    assert "… 13 more; limit=null lists all" in best.out
    scores = {line.split()[0]: float(line.split()[4]) for line in every.out.splitlines()[1:]}
    assert names(best.out) == sorted(scores, key=lambda name: scores[name])[:2]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["match=trial-0003-*"], 3),
        (["match=demo_ratio/trial-0003-?"], 3),
        (["status=done"], 15),
        (["status=[failed,done]"], 15),
        (["status=failed"], 0),
    ],
)
def test_filters_keep_what_they_name(ablate: Ablate, words: list[str], count: int) -> None:
    answer = ablate("ls", ROOT, *words)
    assert answer.code == 0, answer.err
    assert len(names(answer.out)) == count
    if not count:
        assert "no run passes the filters" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sort=best"], "sort: Input should be"),
        (["status=fine"], "status.0: Input should be"),
        (["limit=0"], "limit: Input should be"),
    ],
)
def test_what_cannot_be_listed_is_refused(ablate: Ablate, words: list[str], said: str) -> None:
    answer = ablate("ls", ROOT, *words)
    assert answer.code == 2
    assert said in answer.err
