"""Compare the scores of a few items with numbers counted by hand: weights, groups, chance and remarks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ablations.errors import DamagedError
from ablations.evaluation.results import (
    CheckpointScores,
    ItemScore,
    MetricScore,
    TaskScores,
    missing,
    read_details,
    read_groups,
    seal_details,
    summarise,
    write_details,
)
from ablations.evaluation.specs import TaskSpec

NAN = math.nan


def item(number: int, metrics: dict[str, float], **changes: Any) -> ItemScore:
    values: dict[str, Any] = {
        "item_id": f"i{number}",
        "gold": 0,
        "choice_logprobs": (),
        "length_baseline": NAN,
        "num_choices": 2,
        "num_bytes": 10,
        "cut_tokens": 0,
        **changes,
    }
    return ItemScore(metrics=metrics, **values)


def task(form: Any, *metrics: str, **changes: Any) -> TaskSpec:
    values: dict[str, Any] = {"domain": "d", "items": "x", "max_new_tokens": 4, **changes}
    return TaskSpec(form=form, metrics=metrics, **values)


def of_source(form: Any, *metrics: str) -> TaskSpec:
    return task(form, *metrics, items=None, source="web")


def summary(spec: TaskSpec, name: str, values: tuple[float, ...], **columns: Any) -> MetricScore:
    """Return the score of a metric from items with these values and the same columns."""
    rows = [
        item(number, {name: value}, **{column: given[number] for column, given in columns.items()})
        for number, value in enumerate(values)
    ]
    return summarise(spec, rows).metrics[name]


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        (of_source("rolling", "bpb"), "bpb", 1.25),
        (task("rolling", "bpb"), "bpb", 1.25),
        (of_source("generative", "bpb"), "bpb", 1.25),
        (of_source("generative", "exact_match"), "exact_match", 1.5),
        (task("generative", "bpb"), "bpb", 1.5),
        (task("cloze", "bpb"), "bpb", 1.5),
        (of_source("preference", "bpb"), "bpb", 1.25),
        (of_source("preference", "margin"), "margin", 1.5),
        (of_source("picture", "bpb"), "bpb", 1.25),
        (of_source("picture", "gain"), "gain", 1.25),
        (of_source("picture", "exact_match"), "exact_match", 1.5),
    ],
)
def test_bits_of_held_out_text_are_weighted_by_bytes_and_nothing_else(
    spec: TaskSpec, name: str, value: float
) -> None:
    found = summary(spec, name, (1.0, 2.0), num_bytes=(300, 100), answer=("a", "b"))
    assert found.value == pytest.approx(value)
    assert found.n == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inst_level_strict_acc", 0.25),
        ("inst_level_loose_acc", 0.25),
        ("prompt_level_strict_acc", 0.5),
    ],
)
def test_followed_instructions_are_counted_one_by_one(name: str, value: float) -> None:
    spec = task("instructions", name)
    assert summary(spec, name, (1.0, 0.0), parts=(1, 3)).value == pytest.approx(value)


def test_the_error_of_a_weighted_mean_is_that_of_a_ratio() -> None:
    # Mean (1 * 1 + 3 * 2) / 4 = 1.75; deviations -0.75 and 0.75; sqrt(2 * 1.125) / 4.
    found = summary(of_source("rolling", "bpb"), "bpb", (1.0, 2.0), num_bytes=(1, 3))
    assert found.value == pytest.approx(1.75)
    assert found.stderr == pytest.approx(0.375)
    assert found.groups is None
    assert "groups" not in found.row()


def test_questions_of_one_picture_are_one_draw() -> None:
    spec = of_source("picture", "exact_match")
    values, groups = (1.0, 1.0, 0.0, 0.0), ("p", "p", None, "i2")
    found = summary(
        spec, "exact_match", values, group=groups, answer=("Red", " red", "blue", "red")
    )
    # The third item has the id "i2" and no group: the group of that name is another one.
    assert found.groups == 3
    # Sums of deviations by group: 1, -0.5, -0.5; sqrt(1.5 * 3 / 2) / 4.
    assert found.stderr == pytest.approx(0.375)
    assert found.chance == pytest.approx(0.75)
    assert found.row()["groups"] == 3


def test_one_group_alone_has_no_standard_error() -> None:
    spec = of_source("picture", "gain")
    found = summary(spec, "gain", (1.0, 3.0), group=("p", "p"), answer=("a", "b"))
    assert (found.value, found.stderr, found.groups, found.n) == (2.0, None, 1, 2)
    two = summary(spec, "gain", (1.0, 3.0), group=("p", "q"), answer=("a", "b"))
    assert two.stderr == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("spec", "name", "chance"),
    [
        (task("cloze", "acc"), "acc", 0.375),
        (task("cloze", "acc_char"), "acc_char", 0.375),
        (task("cloze", "acc", chance=0.1), "acc", 0.1),
        (task("cloze", "acc", chance=0.0), "acc", 0.0),
        (task("cloze", "bpb", chance=0.1), "bpb", None),
        (of_source("preference", "reward_acc"), "reward_acc", 0.5),
        (of_source("preference", "margin"), "margin", None),
        (of_source("preference", "dpo_loss"), "dpo_loss", None),
        (task("generative", "exact_match"), "exact_match", 0.0),
        (task("code", "pass_at_1"), "pass_at_1", 0.0),
        (of_source("picture", "gain"), "gain", None),
        (of_source("picture", "exact_match"), "exact_match", 0.5),
    ],
)
def test_each_metric_has_its_own_chance(spec: TaskSpec, name: str, chance: float | None) -> None:
    found = summary(spec, name, (1.0, 0.0), num_choices=(2, 4), answer=("a", "b"))
    assert found.chance == (None if chance is None else pytest.approx(chance))


@pytest.mark.parametrize(("name", "baseline"), [("acc", 0.25), ("acc_char", 0.25), ("bpb", None)])
def test_the_longest_answer_is_a_baseline_of_accuracies(name: str, baseline: float | None) -> None:
    spec, lengths = task("cloze", name), (0.5, NAN, 0.0)
    found = summary(spec, name, (1.0, 1.0, 0.0), length_baseline=lengths)
    assert found.length_baseline == baseline
    assert summary(spec, name, (1.0,)).length_baseline is None


@pytest.mark.parametrize(
    ("name", "higher"),
    [("acc", True), ("bpb", False)],
)
def test_a_metric_keeps_its_direction_without_a_value(name: str, higher: bool) -> None:
    spec = task("cloze", name)
    for scored in (missing(spec, "no file"), summarise(spec, [item(0, {name: NAN})])):
        one = scored.metrics[name]
        assert one == MetricScore(value=None, higher_is_better=higher)
        assert (one.n, one.stderr, one.chance) == (0, None, None)


@pytest.mark.parametrize(
    ("form", "first", "second", "lost", "reason"),
    [
        ("cloze", {"acc": NAN, "bpb": 1.0}, {"acc": 1.0, "bpb": 1.0}, 1, None),
        ("preference", {"margin": NAN, "bpb": 1.0}, {"margin": NAN, "bpb": 1.0}, 0, None),
        ("picture", {"gain": NAN, "bpb": 1.0}, {"gain": NAN, "bpb": NAN}, 1, None),
        *(
            (form, {a: NAN, "bpb": NAN}, {a: NAN, "bpb": NAN}, 2, "none of its items fits")
            for form, a in (("cloze", "acc"), ("preference", "margin"), ("picture", "gain"))
        ),
    ],
)
def test_items_without_a_score_are_counted_by_the_form(
    form: str, first: dict[str, float], second: dict[str, float], lost: int, reason: str | None
) -> None:
    spec = task(form, *first) if form == "cloze" else of_source(form, *first)
    scored = summarise(spec, [item(0, first, answer="a"), item(1, second, answer="b")])
    assert scored.too_long == lost
    assert (scored.reason or "").startswith(reason or "")
    assert (scored.reason is None) is (reason is None)


def test_a_task_of_no_items_is_not_one_of_long_items() -> None:
    assert summarise(task("cloze", "acc"), []).note() == {}


@pytest.mark.parametrize(("cuts", "count"), [((0, 0), 0), ((0, 1), 1), ((1, 2), 2)])
def test_a_context_that_lost_one_token_is_cut(cuts: tuple[int, int], count: int) -> None:
    rows = [item(number, {"acc": 1.0}, cut_tokens=cut) for number, cut in enumerate(cuts)]
    scored = summarise(task("cloze", "acc"), rows)
    assert (scored.cut, scored.too_long) == (count, 0)


def test_a_row_without_training_tells_its_cost_and_its_reason() -> None:
    fine = TaskScores(metrics={"acc": MetricScore(value=0.5)})
    noted = TaskScores(metrics={"acc": MetricScore(value=0.5)}, too_long=2, cut=3)
    scores = CheckpointScores(
        step=0,
        tasks={"fine": fine, "noted": noted},
        score=None,
        direction="minimize",
        reason="lost",
        seconds=1.23456,
    )
    row = scores.row()
    assert (row["tokens"], row["reason"], row["cpu_seconds"]) == (None, "lost", 1.235)
    assert row["notes"] == {"noted": {"too_long": 2, "cut": 3}}
    assert scores.flat() == {"fine/acc": 0.5, "noted/acc": 0.5}


def test_details_keep_what_an_item_was_and_wrote(tmp_path: Path) -> None:
    path = tmp_path / "quiz.parquet"
    row = item(7, {"bpb": 1.5}, num_bytes=12, cut_tokens=3, text="made", group="g", gold=2)
    write_details(path, [row], ("bpb",))
    (found,) = pq.read_table(path).to_pylist()
    assert math.isnan(found.pop("length_baseline"))
    assert found == {
        "item_id": "i7",
        "bpb": 1.5,
        "gold": 2,
        "choice_logprobs": [],
        "num_bytes": 12,
        "cut_tokens": 3,
        "text": "made",
        "group": "g",
    }


def test_details_that_are_written_again_are_compared_with_the_new_checksums(tmp_path: Path) -> None:
    folder = tmp_path / "10"
    path = folder / "quiz.parquet"
    for group in ("old", "the new one"):
        write_details(path, [item(0, {"acc": 1.0}, group=group)], ("acc",))
        seal_details(folder)
        assert read_groups(path) == {"i0": group}
    write_details(path, [item(0, {"acc": 0.0})], ("acc",))
    with pytest.raises(DamagedError, match="its content is not what was written"):
        read_details(path)


def test_sealing_a_checkpoint_without_details_writes_nothing(tmp_path: Path) -> None:
    seal_details(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
