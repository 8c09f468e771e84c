"""Check views of frames, and rows of line files and items, on small tables written out by hand."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.frames import Frames, empty, finals, score_direction, weights
from analysis.frames.columns import shaped
from analysis.frames.lines import _numbers, _texts, _whole
from analysis.frames.views import searched_stage, task_values
from tests.analysis.test_records_edges import DECLARED, write_definition, write_run


def sources_of(rows: Sequence[tuple[str, str, str, float, float | None]]) -> pd.DataFrame:
    """Return a frame of sources of (trial, stage, source, weight, tokens)."""
    return pd.DataFrame(rows, columns=["trial", "stage", "source", "weight", "tokens"])


def test_shares_are_of_tokens_over_a_schedule_and_of_weights_in_a_stage() -> None:
    rows = [
        ("r", "x", "a", 0.5, 10.0),
        ("r", "x", "b", 0.5, 10.0),
        ("r", "y", "a", 1.0, 60.0),
        ("r", "y", "b", 0.0, 0.0),
        ("q", "x", "a", 0.25, 0.0),
        ("q", "x", "b", 0.75, 0.0),
        ("q", "y", "a", 0.5, 5.0),
        ("q", "y", "b", 0.5, 5.0),
    ]
    frame = sources_of(rows)
    assert weights(frame).to_dict("index") == {
        "q": {"a": 0.5, "b": 0.5},
        "r": {"a": 0.875, "b": 0.125},
    }
    assert weights(frame, stage="x").to_dict("index") == {
        "q": {"a": 0.25, "b": 0.75},
        "r": {"a": 0.5, "b": 0.5},
    }
    without = frame.assign(tokens=[None, 0.0] * 4)
    assert weights(without).loc["r"].to_dict() == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    ("first", "second", "stage"),
    [
        ((0.2, 0.3, 0.5), (0.2, 0.3, 0.5), None),
        ((0.2, 0.3, 0.5), (0.2, 0.5, 0.3), "y"),
        ((0.2, 0.3, 0.5), (0.2, 0.3, 0.5 + 1e-12), None),
    ],
)
def test_the_searched_stage_is_the_only_one_in_which_a_share_varies(
    first: tuple[float, ...], second: tuple[float, ...], stage: str | None
) -> None:
    rows = [
        (trial, name, source, share, 1.0)
        for trial, shares in (("q", first), ("r", second))
        for name, own in (("x", (0.5, 0.25, 0.25)), ("y", shares))
        for source, share in zip("abc", own, strict=True)
    ]
    frame = sources_of(rows)
    assert searched_stage(frame) == stage
    assert searched_stage(frame[frame["stage"] == "y"]) is None
    both = pd.concat([frame, frame[frame["stage"] == "y"].assign(stage="z")])
    assert searched_stage(both) is None


def test_the_last_checkpoint_is_that_of_each_run() -> None:
    rows = [("r0", 2, 1.0), ("r0", 10, 2.0), ("r1", 9, 3.0), ("r1", 2, 4.0)]
    frame = pd.DataFrame(rows, columns=["run", "step", "value"])
    frame = frame.assign(study="s", trial="t", task="quiz", metric="acc")
    assert finals(frame)["value"].tolist() == [2.0, 3.0]
    assert task_values(frame).to_dict("index") == {"t": {"quiz": 2.5}}
    assert task_values(frame, per="run").to_dict("index") == {
        "r0": {"quiz": 2.0},
        "r1": {"quiz": 3.0},
    }
    assert finals(empty("scores")).empty


@pytest.mark.parametrize(
    ("runs", "points", "direction"),
    [
        (["maximize", "maximize", "minimize"], None, "maximize"),
        (["maximize", "maximize", "minimize"], ["minimize"] * 2, "minimize"),
        (["minimize", None, "up", "up"], None, "minimize"),
        ([None, "up"], [None], "maximize"),
        ([None], ["minimize"], "minimize"),
        ([], [], "maximize"),
    ],
)
def test_a_direction_is_that_of_most_rows(
    runs: list[str | None], points: list[str | None] | None, direction: str
) -> None:
    frame = shaped("runs", {"direction": runs})
    other = None if points is None else shaped("checkpoints", {"direction": points})
    assert score_direction(frame, other) == direction


def test_a_frame_is_found_by_its_name_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    frames = Frames.read(tmp_path, "s")
    for name in ("runs", "trials", "checkpoints", "scores", "metrics", "samples"):
        pd.testing.assert_frame_equal(frames.frame(name), empty(name))


# ------------------------------------------------------------------------------------------------ lines


def write_lines(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a line file of a run."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_only_numbers_of_a_column_are_numbers_and_only_texts_are_texts() -> None:
    table = pa.table({"i": [1, None], "f": [0.5, 2.0], "s": ["1", "2"], "b": [True, False]})
    for name, values in {"i": [1.0, np.nan], "f": [0.5, 2.0]}.items():
        np.testing.assert_array_equal(_numbers(table, name), values)
    for name in ("s", "b", "absent"):
        np.testing.assert_array_equal(_numbers(table, name), [np.nan, np.nan])
    assert _texts(table, "s").tolist() == ["1", "2"]
    for name in ("i", "b", "absent"):
        assert _texts(table, name).tolist() == [None, None]


@pytest.mark.parametrize("values", [[3.0, np.nan, 2.0**53], [np.nan], [4.0], []])
def test_missing_whole_numbers_are_missing_and_warn_of_nothing(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _whole(np.array(values, dtype=float))
    assert found.tolist() == [pd.NA if np.isnan(value) else int(value) for value in values]


def test_scores_without_metrics_are_checkpoints_without_cells(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "tokens": 8, "score": 2.5, "direction": "minimize"},
        {"step": 2, "tokens": 16, "score": None, "direction": 3},
    ]
    for name, metrics in (("a", {}), ("b", {"metrics": None}), ("c", {"metrics": "lost"})):
        folder = write_run(tmp_path / name, "r", {})
        write_lines(folder, "scores.jsonl", [{**row, **metrics} for row in rows[:1]])
        frames = Frames.read(tmp_path, name)
        pd.testing.assert_frame_equal(frames.scores, empty("scores"))
        row = frames.checkpoints.iloc[0]
        assert (row["step"], row["score"], row["direction"]) == (1, 2.5, "minimize")
    nulls = {"quiz": None, "odd": 3, "more": {"acc": None, "f1": 2}}
    write_lines(folder, "scores.jsonl", [{**rows[1], "metrics": nulls}])
    frames = Frames.read(tmp_path, "c")
    assert frames.scores.empty
    assert frames.checkpoints["direction"].isna().all()
    assert frames.checkpoints["score"].isna().all()


def cell(value: float | None, **more: Any) -> dict[str, Any]:
    """Return a cell of `scores.jsonl`."""
    return {"value": value, **more}


def test_cells_are_those_of_their_run_step_and_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = cell(0.5, stderr=0.25, n=4, higher_is_better=True, chance=0.125)
    rows: dict[str, list[Any]] = {
        "a": [{"z": {"acc": full}, "b": {"bpb": cell(1.0, higher_is_better=False)}}, {}],
        "b": [{"b": {"bpb": cell(None), "acc": cell(3.0, n=None)}}],
    }
    for name, metrics in rows.items():
        folder = write_run(tmp_path / "s", name, {})
        made = [{"step": n + 1, "tokens": 8 * n, "metrics": m} for n, m in enumerate(metrics)]
        write_lines(folder, "scores.jsonl", [{"step": None, "metrics": metrics[0]}, *made])
    for limit in (1 << 20, 1):
        monkeypatch.setattr("analysis.records.CHUNK_BYTES", limit)
        frames = Frames.read(tmp_path, "s")
        assert frames.checkpoints[["run", "step"]].to_numpy().tolist() == [
            ["a", 1],
            ["a", 2],
            ["b", 1],
        ]
        scores = frames.scores.sort_values(["run", "task", "metric"])
        columns = ["run", "task", "metric", "value", "stderr", "n", "higher_is_better", "chance"]
        found = scores[columns].astype(object).where(scores[columns].notna(), None)
        assert found.to_numpy().tolist() == [
            ["a", "b", "bpb", 1.0, None, None, False, None],
            ["a", "z", "acc", 0.5, 0.25, 4, True, 0.125],
            ["b", "b", "acc", 3.0, None, None, None, None],
            ["b", "b", "bpb", None, None, None, None, None],
        ]
        assert scores["step"].tolist() == [1, 1, 1, 1]


def test_a_checkpoint_has_the_objective_that_its_study_declares(tmp_path: Path) -> None:
    metrics: dict[str, Any] = {"quiz": {"acc": cell(0.25), "f1": cell(9.0)}}
    open_direction = {"q": {"metrics": ["quiz/acc"]}}
    for study, objectives in (("d", DECLARED), ("o", open_direction), ("p", {})):
        write_definition(tmp_path / study, objectives=objectives)
        folder = write_run(tmp_path / study, "r", {})
        own = {"score": 7.0, "direction": "maximize" if study == "p" else "minimize"}
        rows = [
            {"step": 1, "tokens": 8, **own, "metrics": metrics},
            {"step": 2, "tokens": 16, **own, "metrics": {"quiz": {"f1": cell(9.0)}}},
            {"step": 3, "tokens": 24, **own, "metrics": {"quiz": {"acc": cell(0.5)}}},
        ]
        write_lines(folder, "scores.jsonl", rows)
    points = Frames.read(tmp_path).checkpoints
    found = {
        str(study): (rows["score"].fillna(-1.0).tolist(), rows["direction"].tolist())
        for study, rows in points.groupby("study", observed=True)
    }
    assert found == {
        "d": ([0.25, -1.0, 0.5], ["maximize"] * 3),
        "o": ([0.25, -1.0, 0.5], ["minimize"] * 3),
        "p": ([7.0] * 3, ["maximize"] * 3),
    }


def test_a_declared_direction_that_no_run_recorded_is_kept(tmp_path: Path) -> None:
    write_definition(tmp_path / "d", objectives=DECLARED)
    folder = write_run(tmp_path / "d", "r", {})
    metrics = {"quiz": {"acc": cell(0.25)}}
    row = {"step": 1, "tokens": 8, "score": 7.0, "direction": "minimize", "metrics": metrics}
    write_lines(folder, "scores.jsonl", [row])
    points = Frames.read(tmp_path).checkpoints
    assert points[["score", "direction"]].to_numpy().tolist() == [[0.25, "maximize"]]


def test_metrics_are_in_the_order_of_runs_and_steps(tmp_path: Path) -> None:
    for name, steps in (("a", [3, 1, 2, 1]), ("b", [2, 1])):
        folder = write_run(tmp_path / "s", name, {})
        rows = [
            {"step": step, "tokens": 10 * step, "loss": float(n)} for n, step in enumerate(steps)
        ]
        write_lines(folder, "metrics.jsonl", [*rows, {"loss": 9.0}])
    frame = Frames.read(tmp_path, "s").metrics
    assert frame[["run", "step", "tokens", "loss"]].to_numpy().tolist() == [
        ["a", 1, 10, 3.0],
        ["a", 2, 20, 2.0],
        ["a", 3, 30, 0.0],
        ["b", 1, 10, 1.0],
        ["b", 2, 20, 0.0],
    ]


@pytest.fixture
def items(tmp_path: Path) -> Frames:
    """Return frames of two runs with items of five steps, and of one without."""
    tasks = ["m", "b", "z", "a", "k", "c", "y"]
    for name, steps in (("r0", (100, 9, 20, 3, 10)), ("r1", (2, 1))):
        folder = write_run(tmp_path / "s", name, {})
        for step in steps:
            made = folder / f"details/{step}"
            made.mkdir(parents=True)
            for task in tasks:
                table = pa.table(
                    {"item_id": ["1", "2"], "acc": [0.0, float(step)], "bpb": [3.0, 4.0]}
                )
                pq.write_table(table, made / f"{task}.parquet")
        (folder / "details/notes").mkdir()
    write_run(tmp_path / "s", "r2", {})
    return Frames.read(tmp_path, "s")


def test_items_are_those_of_the_last_step_by_number(items: Frames) -> None:
    frame = items.samples()
    steps = frame.groupby("run", observed=True)["step"].unique().map(list).to_dict()
    assert steps == {"r0": [100], "r1": [2]}
    assert frame["task"].tolist() == [task for _ in "rr" for task in "abckmyz" for _ in range(4)]
    first = frame[:4]
    assert first["metric"].tolist() == ["acc", "acc", "bpb", "bpb"]
    assert first["item"].tolist() == ["1", "2", "1", "2"]
    assert first["value"].tolist() == [0.0, 100.0, 3.0, 4.0]


def test_items_are_chosen_by_step_task_and_metric(items: Frames) -> None:
    frame = items.samples(step=9, tasks=["z", "b"], metrics=["acc"])
    assert frame[["run", "step", "task", "value"]].to_numpy().tolist() == [
        ["r0", 9, "b", 0.0],
        ["r0", 9, "b", 9.0],
        ["r0", 9, "z", 0.0],
        ["r0", 9, "z", 9.0],
    ]
    assert items.samples(tasks=[]).empty
    assert items.samples(step=4).empty
