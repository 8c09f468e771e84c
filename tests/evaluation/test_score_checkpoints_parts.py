"""Check the parts of scoring: what is loaded and made once, the limit of items, places and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ablations.evaluation import scoring
from ablations.evaluation.items import Pool, rank
from ablations.evaluation.model_folder import load_model
from ablations.evaluation.scoring import (
    Scorer,
    ScoringPlace,
    row_kinds,
    score_checkpoints,
    score_folder,
    without_scores,
)
from ablations.evaluation.specs import EvaluationSpec, ScoreRule, ScoreTerm, TaskSpec
from tests.oracles.picture_items import question, random_pictures, write_picture_store

QUIZ = TaskSpec(form="cloze", domain="d", items="quiz", metrics=("acc",), max_items=3)
BLANK = TaskSpec(form="cloze", domain="d", items="blank", metrics=("acc",), max_items=2)
SPEC = EvaluationSpec(tasks={"quiz": QUIZ, "blank": BLANK}, heldout=False)

Calls = list[tuple[Any, ...]]


@pytest.fixture
def place(data_dir: Path) -> ScoringPlace:
    return ScoringPlace(data_dir=data_dir)


def test_checkpoints_are_scored_in_the_order_of_their_steps(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    turned = dict(sorted(exports.items(), reverse=True))
    found = [one.step for one in score_checkpoints(turned, SPEC, details=tmp_path, place=place)]
    assert list(turned) == [20, 10]
    assert found == [10, 20]


def test_a_folder_is_scored_as_step_0_at_its_place_and_watched(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    calls: Calls = []
    scores = score_folder(
        exports[10], SPEC, tmp_path, place=place, watch=lambda *call: calls.append(call)
    )
    assert scores.step == 0
    assert calls == [(0, "quiz", 0, 2), (0, "blank", 1, 2)]
    assert len(pq.read_table(tmp_path / "details/0/quiz.parquet")) == 3
    assert scores.tasks["quiz"].reason is None


def test_items_are_those_of_the_folder_data_unless_told_otherwise(
    exports: dict[int, Path], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(data_dir)
    monkeypatch.chdir(tmp_path)
    assert score_folder(exports[10], SPEC, tmp_path / "out").tasks["quiz"].reason is None


def test_weights_are_loaded_once_for_a_folder_and_tasks_one_by_one(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def counted(folder: Path, *rest: Any) -> Any:
        loaded.append(folder)
        return load_model(folder, *rest)

    monkeypatch.setattr(scoring, "load_model", counted)
    scorer = Scorer(SPEC, details=tmp_path, place=place)
    first = scorer.score(10, exports[10], only=["blank"])
    assert list(first) == ["blank"]
    assert [path.name for path in (tmp_path / "10").iterdir()] == ["blank.parquet"]
    assert list(scorer.score(10, exports[10], only=["quiz"])) == ["quiz"]
    assert loaded == [exports[10]]
    both = scorer.score(20, exports[20])
    assert list(both) == ["quiz", "blank"]
    assert loaded == [exports[10], exports[20]]
    assert both["blank"].metrics["acc"].n == 2
    assert scorer.score(10, exports[10])["blank"] == first["blank"]
    assert loaded == [exports[10], exports[20], exports[10]]


def test_a_language_model_alone_is_not_asked_about_pictures(
    exports: dict[int, Path], data_dir: Path, tmp_path: Path
) -> None:
    items = [question(number, [number], "red") for number in range(2)]
    store = write_picture_store(tmp_path / "shapes", items, random_pictures(2))
    place = ScoringPlace(data_dir=data_dir, stores={"shapes": store})
    spec = EvaluationSpec(tasks={"quiz": QUIZ})
    scores = score_folder(exports[10], spec, tmp_path / "out", place=place)
    assert scores.tasks["quiz"].reason is None
    about = scores.tasks["heldout_shapes"]
    assert "the model has no vision part: it is a language model alone" in str(about.reason)
    assert "gain" in about.metrics


def test_a_checkpoint_without_scores_has_the_direction_of_the_score() -> None:
    rule = ScoreRule(direction="minimize", terms={"a": ScoreTerm(metrics="*/acc")})
    scored = EvaluationSpec(tasks={"quiz": QUIZ}, score=rule)
    lost = without_scores(7, scored, {"talk": "conversations"}, "damaged")
    assert (lost.step, lost.score, lost.direction, lost.reason) == (
        *(7, None, "minimize"),
        "damaged",
    )
    assert list(lost.tasks) == ["quiz", "heldout_talk"]
    assert {task.reason for task in lost.tasks.values()} == {"damaged"}
    assert without_scores(7, SPEC, (), "damaged").direction is None


def test_the_kind_of_rows_is_that_of_the_store(tmp_path: Path) -> None:
    from tests.oracles.stores import write_store

    shapes = write_picture_store(tmp_path / "shapes", [question(0, [0], "red")], random_pictures(1))
    web = write_store(tmp_path / "web", vocab_size=64, tokens=500, seed=0)
    stores = {"shapes": shapes, "web": web, "none": tmp_path / "none"}
    assert row_kinds(stores) == {"shapes": "pictures", "web": None, "none": None}


# ------------------------------------------------------------------------------------------- limit


def pools(*sizes: int) -> list[Pool]:
    made, number = [], 0
    for place, size in enumerate(sizes):
        items = [{"id": f"q{number + one}"} for one in range(size)]
        made.append(Pool(f"p{place}", items, [{"id": f"shot{place}"}]))
        number += size
    return made


def ids(found: Sequence[Pool]) -> list[list[str]]:
    return [[item["id"] for item in pool.items] for pool in found]


@pytest.mark.parametrize("limit", [None, 7, 8, 100])
def test_a_limit_of_all_items_leaves_them_as_they_are(limit: int | None) -> None:
    every = pools(5, 2)
    assert scoring._limited(every, limit) is every


@pytest.mark.parametrize("limit", [1, 3, 6])
def test_a_limit_takes_the_first_items_of_all_pools_by_their_hash(limit: int) -> None:
    every = pools(5, 2)
    first = sorted((item for pool in every for item in pool.items), key=rank)[:limit]
    chosen = {item["id"] for item in first}
    found = scoring._limited(every, limit)
    assert ids(found) == [[one for one in pool if one in chosen] for pool in ids(every)]
    assert [(pool.name, pool.shots) for pool in found] == [
        (pool.name, pool.shots) for pool in every
    ]
    assert sum(map(len, ids(found))) == limit
