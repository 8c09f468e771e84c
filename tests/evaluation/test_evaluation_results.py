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

from ablations.errors import DamagedError
from ablations.evaluation.results import (
    CheckpointScores,
    ItemScore,
    missing,
    read_details,
    read_groups,
    seal_details,
    summarise,
    write_details,
)
from ablations.evaluation.specs import TaskSpec
from ablations.record.run_record import RunRecord

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
    assert scored.reason == "none of its items fits the window"


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


@pytest.mark.parametrize(("stated", "found"), [(0.3, 0.3), (None, 0.5)])
def test_the_chance_that_a_task_states_stands_before_that_of_its_choices(
    stated: float | None, found: float
) -> None:
    task = TaskSpec(form="cloze", domain="d", items="x", metrics=("acc",), chance=stated)
    assert summarise(task, [item(0), item(1)]).metrics["acc"].chance == found


def test_an_item_that_any_metric_lacks_is_too_long() -> None:
    half = item(0, metrics={"acc": 1.0, "bpb": math.nan})
    scored = summarise(CLOZE, [half, item(1)])
    assert scored.too_long == 1
    assert scored.reason is None
    assert (scored.metrics["acc"].n, scored.metrics["bpb"].n) == (2, 1)


def test_a_writer_of_details_that_dies_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "10" / "quiz.parquet"

    def dies(table: pa.Table, where: Path) -> None:
        Path(where).write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", dies)
    with pytest.raises(KeyboardInterrupt):
        write_details(path, [item(0)], ("acc",))
    assert list(path.parent.iterdir()) == []


DAMAGES = ("flip", "cut", "empty", "missing", "folder")


def harm(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        kept = {"flip": content, "cut": content[: len(content) // 2], "empty": b""}
        path.write_bytes(kept[how])


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_details_are_refused_by_their_file(tmp_path: Path, how: str) -> None:
    record = RunRecord(tmp_path)
    folder = tmp_path / "details" / "10"
    for name in ("quiz", "blank"):
        write_details(folder / f"{name}.parquet", [item(0), item(1)], ("acc",))
    seal_details(folder)
    assert list(record.details(10)) == ["blank", "quiz"]
    harm(folder / "quiz.parquet", how)
    assert list(record.details(10)) == ["blank", "quiz"]
    with pytest.raises(DamagedError, match=r"quiz\.parquet"):
        read_details(record.details(10)["quiz"])
    assert read_details(record.details(10)["blank"]).num_rows == 2


def test_details_of_an_older_version_carry_no_checksums_and_are_read(tmp_path: Path) -> None:
    path = tmp_path / "details" / "10" / "quiz.parquet"
    write_details(path, [item(0)], ("acc",))
    assert read_details(path).num_rows == 1
    path.write_bytes(b"no table")
    with pytest.raises(DamagedError, match="not a table of items"):
        read_details(path)
