"""Values, standard errors and the details file."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.evaluation.results import (
    CheckpointScores,
    ItemScore,
    missing,
    read_details,
    read_groups,
    summarise,
    write_details,
)
from ablations.evaluation.specs import TaskSpec

CLOZE = TaskSpec(form="cloze", domain="d", items="x", metrics=("acc", "bpb"))
ROLLING = TaskSpec(form="rolling", domain="d", source="wiki", metrics=("bpb",))


def item(number: int, **changes: Any) -> ItemScore:
    values: dict[str, Any] = {
        "item_id": str(number),
        "metrics": {"acc": 1.0, "bpb": 2.0},
        "gold": 0,
        "choice_logprobs": (-1.0, -2.0),
        "length_baseline": 0.5,
        "num_choices": 2,
        "num_bytes": 10,
        "cut_tokens": 0,
        **changes,
    }
    return ItemScore(**values)


@given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=20))
def test_value_and_error_of_equal_items_are_the_textbooks(values: list[float]) -> None:
    scored = summarise(CLOZE, [item(i, metrics={"acc": 0, "bpb": v}) for i, v in enumerate(values)])
    bpb = scored.metrics["bpb"]
    assert bpb.value == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert bpb.stderr == pytest.approx(
        statistics.stdev(values) / math.sqrt(len(values)), rel=1e-6, abs=1e-9
    )
    assert not bpb.higher_is_better


def test_bits_per_byte_of_texts_are_counted_over_all_bytes() -> None:
    scored = summarise(
        ROLLING,
        [
            item(0, metrics={"bpb": 1.0}, num_bytes=300),
            item(1, metrics={"bpb": 2.0}, num_bytes=100),
        ],
    )
    assert scored.metrics["bpb"].value == pytest.approx(1.25)


def test_chance_is_counted_item_by_item() -> None:
    scored = summarise(CLOZE, [item(0, num_choices=2), item(1, num_choices=4)])
    assert scored.metrics["acc"].chance == pytest.approx(0.375)
    assert scored.metrics["bpb"].chance is None
    assert scored.metrics["acc"].length_baseline == 0.5


def test_an_item_that_no_window_holds_is_left_out_and_counted() -> None:
    lost = item(1, metrics={"acc": math.nan, "bpb": math.nan})
    scored = summarise(CLOZE, [item(0), lost, item(2, cut_tokens=3)])
    assert scored.metrics["acc"].n == 2
    assert scored.note() == {"too_long": 1, "cut": 1}


def test_a_task_without_a_scored_item_is_missing_and_not_zero() -> None:
    scored = summarise(CLOZE, [item(0, metrics={"acc": math.nan, "bpb": math.nan})])
    assert scored.metrics["acc"].value is None
    assert scored.reason == "no window holds any of its items"


def test_one_item_has_no_standard_error() -> None:
    assert summarise(CLOZE, [item(0)]).metrics["acc"].stderr is None


def test_a_row_holds_what_the_record_promises() -> None:
    tasks = {"quiz": summarise(CLOZE, [item(0), item(1)]), "lost": missing(CLOZE, "no file")}
    scores = CheckpointScores(step=5, tasks=tasks, score=0.5, direction="maximize")
    row = scores.row(tokens=640)
    assert {name: row[name] for name in ("step", "tokens", "score", "direction")} == {
        "step": 5,
        "tokens": 640,
        "score": 0.5,
        "direction": "maximize",
    }
    acc = row["metrics"]["quiz"]["acc"]
    assert {"value", "stderr", "n", "higher_is_better", "chance"} <= set(acc)
    assert row["metrics"]["lost"]["acc"]["value"] is None
    assert row["notes"] == {"lost": {"missing": "no file"}}
    assert scores.flat()["quiz/acc"] == 1.0
    assert scores.flat()["lost/bpb"] is None


def test_details_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "10" / "quiz.parquet"
    lost = item(1, metrics={"acc": math.nan, "bpb": math.nan}, length_baseline=math.nan)
    write_details(path, [item(0), lost], ("acc", "bpb"))
    table = pq.read_table(path)
    assert table.column_names[:6] == [
        "item_id",
        "acc",
        "bpb",
        "gold",
        "choice_logprobs",
        "length_baseline",
    ]
    assert table.schema.field("item_id").type == pa.string()
    assert table.schema.field("acc").type == pa.float64()
    assert table.schema.field("gold").type == pa.int64()
    assert table.schema.field("choice_logprobs").type == pa.list_(pa.float64())
    rows = table.to_pylist()
    assert rows[0]["choice_logprobs"] == [-1.0, -2.0]
    assert math.isnan(rows[1]["acc"])
    assert [file.name for file in path.parent.iterdir()] == ["quiz.parquet"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [(None, ["acc", "bpb"]), (["bpb", "exact_match"], ["bpb"]), ([], []), (["text"], [])],
)
def test_details_are_read_by_metric(
    tmp_path: Path, asked: list[str] | None, found: list[str]
) -> None:
    path = tmp_path / "quiz.parquet"
    write_details(path, [item(0), item(1)], ("acc", "bpb"))
    table = read_details(path, asked)
    assert table.column_names == ["item_id", *found]
    assert table.equals(pq.read_table(path, columns=table.column_names))


def test_groups_are_kept_and_older_details_have_none(tmp_path: Path) -> None:
    path = tmp_path / "quiz.parquet"
    items = [item(0, group="p1"), item(1, group="p1"), item(2)]
    write_details(path, items, ("acc", "bpb"))
    assert read_groups(path) == {"0": "p1", "1": "p1"}
    assert read_details(path).column_names == ["item_id", "acc", "bpb"]
    old = tmp_path / "old.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["group"]), old)
    assert read_groups(old) == {}
