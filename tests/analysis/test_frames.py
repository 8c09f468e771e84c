from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import ConfigError, DataError
from ablations.record.run_record import RunRecord, list_runs
from analysis.frames import COLUMNS, Frames, describe, empty, finals, task_values, unit, weights
from analysis.frames.columns import markdown, shaped
from analysis.frames.config_columns import _weights
from analysis.frames.lines import _floats
from analysis.frames.views import main_metric
from analysis.records import read_lines, scan
from analysis.synthetic import SyntheticStudy, write_study

DTYPES = {
    "category": "category",
    "text": "str",
    "whole": "Int64",
    "number": "float64",
    "flag": "boolean",
    "time": "datetime64[ns, UTC]",
}


@pytest.fixture(scope="module")
def ratio(runs_dir: Path) -> Frames:
    return Frames.read(runs_dir, "ratio")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_frame_has_exactly_the_documented_columns_and_types(ratio: Frames, name: str) -> None:
    for frame in (ratio.frame(name), empty(name)):
        assert list(frame.columns) == [column.name for column in COLUMNS[name]]
        for column in COLUMNS[name]:
            assert str(frame[column.name].dtype) == DTYPES[column.kind], column.name


@pytest.mark.parametrize("name", COLUMNS)
def test_every_number_has_a_unit_and_every_column_a_line_of_documentation(name: str) -> None:
    table = describe(name)
    assert table["meaning"].str.endswith((".", "…")).all()
    numbers = table[table["type"].isin(["number", "whole"]) & (table["column"] != "seed")]
    assert (numbers["unit"] != "").all()


def test_the_documentation_prints_the_columns_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
    printed = text.split("<!-- columns -->\n")[1].split("<!-- /columns -->")[0]
    assert printed == markdown()


def test_a_unit_is_found_by_frame_and_column() -> None:
    assert unit("metrics", "loss") == "nats per token"


def test_a_builder_cannot_add_a_column_that_is_not_documented() -> None:
    with pytest.raises(KeyError, match="does not document"):
        shaped("runs", {"colour": ["blue"]})


def test_records_are_read_as_the_record_class_reads_them(runs_dir: Path, ratio: Frames) -> None:
    records = list_runs(runs_dir, "ratio")
    assert [record.path.name for record in records] == ratio.runs["run"].tolist()
    for record, row in zip(records, ratio.runs.to_dict("records"), strict=True):
        assert record.manifest.seed == row["seed"]
        assert record.manifest.fingerprint == row["fingerprint"]
        points = ratio.checkpoints[ratio.checkpoints["run"] == record.path.name]
        assert points["step"].tolist() == [scored["step"] for scored in record.scores()]
        steps = ratio.metrics[ratio.metrics["run"] == record.path.name]
        assert steps["loss"].tolist() == [step["loss"] for step in record.metrics()]


def test_scores_hold_every_cell_of_every_checkpoint(runs_dir: Path, ratio: Frames) -> None:
    wanted = {
        (record.path.name, row["step"], task, metric): cell
        for record in list_runs(runs_dir, "ratio")
        for row in record.scores()
        for task, metrics in row["metrics"].items()
        for metric, cell in metrics.items()
    }
    assert len(ratio.scores) == len(wanted)
    for row in ratio.scores.to_dict("records"):
        cell = wanted[row["run"], row["step"], row["task"], row["metric"]]
        assert (row["value"], row["stderr"], row["n"]) == (cell["value"], cell["stderr"], cell["n"])
        assert row["higher_is_better"] is cell["higher_is_better"]
        missing = cell["chance"] is None
        assert np.isnan(row["chance"]) if missing else row["chance"] == cell["chance"]


def test_running_and_failed_runs_have_rows_and_no_score(ratio: Frames) -> None:
    by_status = ratio.runs.set_index("status")
    assert set(by_status.index) == {"done", "failed", "training"}
    assert by_status.loc[["training", "failed"], "score"].isna().all()
    assert by_status.loc["failed", "reason"] == "step 20: loss is not finite"
    assert ratio.trials.set_index("status").loc[["training", "failed"], "score"].isna().all()


def test_a_trial_is_the_mean_of_its_seeds(ratio: Frames) -> None:
    scores = ratio.runs[ratio.runs["trial"] == "trial-0000"]["score"]
    trial = ratio.trials[ratio.trials["trial"] == "trial-0000"].iloc[0]
    assert trial["runs"] == trial["done"] == 3
    assert trial["score"] == pytest.approx(scores.mean())
    assert trial["score_sd"] == pytest.approx(scores.std())


def test_samples_are_the_items_of_the_last_checkpoint(ratio: Frames) -> None:
    samples = ratio.samples(tasks=["task_00"], metrics=["bpb"])
    assert set(samples["task"]) == {"task_00"}
    assert set(samples["metric"]) == {"bpb"}
    means = samples.groupby("run", observed=True)["value"].mean()
    last = finals(ratio.scores)
    last = last[(last["task"] == "task_00") & (last["metric"] == "bpb")].set_index("run")["value"]
    pd.testing.assert_series_equal(
        means.sort_index(), last.loc[means.index].sort_index(), check_names=False
    )


def test_weights_sum_to_one_and_follow_the_stages(runs_dir: Path) -> None:
    sources = Frames.read(runs_dir, "four").sources
    whole, first, last = (weights(sources, stage=s) for s in (None, "stable", "anneal"))
    for shares in (whole, first, last):
        assert np.allclose(shares.sum(axis=1), 1.0)
    assert np.allclose(whole, (first + last) / 2)
    assert (last["code"] > first["code"]).all()


def test_epochs_add_up_over_the_stages_to_what_the_audit_read(runs_dir: Path) -> None:
    frames = Frames.read(runs_dir, "four")
    asked = frames.sources.groupby(["run", "source"], observed=True)["epochs"].sum()
    read = frames.audits.groupby(["run", "source"], observed=True)["epochs"].first()
    pd.testing.assert_series_equal(asked, read, check_names=False)


def test_the_headline_metric_of_a_task_is_the_first_that_is_preferred(ratio: Frames) -> None:
    assert main_metric(ratio.scores)["task_00"] == "bpb"
    assert main_metric(ratio.scores, prefer=("acc_char",))["task_00"] == "acc_char"
    assert main_metric(ratio.scores, prefer=("acc_char",))["task_01"] == "bpb"
    assert list(task_values(ratio.scores).columns) == [f"task_{n:02d}" for n in range(6)]


def test_an_unknown_study_is_refused_with_the_nearest_name(runs_dir: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'ratio'"):
        Frames.read(runs_dir, "ration")


def test_no_runs_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no study is recorded there"):
        Frames.read(tmp_path / "runs", "ratio")


def test_an_unknown_frame_is_refused(ratio: Frames) -> None:
    with pytest.raises(ConfigError, match="did you mean 'scores'"):
        ratio.frame("score")


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_frames_are_exported_whole(ratio: Frames, tmp_path: Path, form: str) -> None:
    written = ratio.export(tmp_path, form, names=["runs", "scores"])  # type: ignore[arg-type]
    assert [path.name for path in written] == [f"runs.{form}", f"scores.{form}"]
    read = pd.read_parquet(written[1]) if form == "parquet" else pd.read_csv(written[1])
    assert len(read) == len(ratio.scores)
    assert read["value"].tolist() == pytest.approx(ratio.scores["value"].tolist())
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def one_run(tmp_path: Path, runs_dir: Path) -> Path:
    target = tmp_path / "runs" / "ratio" / "trial-0000-0"
    shutil.copytree(runs_dir / "ratio" / "trial-0000-0", target)
    return target


def test_a_torn_last_row_is_left_out(one_run: Path) -> None:
    for name in ("metrics.jsonl", "scores.jsonl"):
        whole = (one_run / name).read_bytes()
        (one_run / name).write_bytes(whole + b'{"step": 999, "tok')
    frames = Frames.read(one_run.parents[1], "ratio")
    assert frames.metrics["step"].max() == 40
    assert frames.checkpoints["step"].tolist() == [10, 20, 30, 40]


def test_of_a_step_that_was_repeated_the_last_row_counts(one_run: Path) -> None:
    with (one_run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 3, "tokens": 1536, "loss": 9.0}) + "\n")
    frames = Frames.read(one_run.parents[1], "ratio")
    assert frames.metrics["step"].is_monotonic_increasing
    assert frames.metrics.set_index("step").loc[3, "loss"] == 9.0
    assert RunRecord(one_run).metrics()[2]["loss"] == 9.0


def test_rows_whose_types_disagree_are_read_all_the_same(one_run: Path) -> None:
    rows = [json.loads(line) for line in (one_run / "scores.jsonl").read_text().splitlines()]
    rows[0]["metrics"]["task_00"]["bpb"]["value"] = None
    rows[1]["metrics"]["task_01"] = "lost"
    rows[2]["metrics"] = None
    (one_run / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    frames = Frames.read(one_run.parents[1], "ratio")
    first = frames.scores[(frames.scores["step"] == 10) & (frames.scores["metric"] == "bpb")]
    assert first.set_index("task")["value"].isna().sum() == 1
    assert len(frames.checkpoints) == 4


def test_a_folder_without_a_readable_manifest_is_no_run(one_run: Path) -> None:
    (one_run.parent / "notes").mkdir()
    (one_run / "manifest.json").write_text('{"study": "ra')
    assert scan(one_run.parents[1], "ratio") == []


def test_a_record_of_nothing_but_a_manifest_is_pending(tmp_path: Path) -> None:
    record = RunRecord.create(
        tmp_path, study="s", trial="t", seed=3, config={"mixture": {"weights": {"a": 3, "b": 1}}}
    )
    frames = Frames.read(tmp_path, "s")
    assert frames.runs["status"].tolist() == ["pending"]
    assert frames.runs["command"].iloc[0] != ""
    assert weights(frames.sources).loc["t"].to_dict() == {"a": 0.75, "b": 0.25}
    for name in COLUMNS:
        assert len(frames.frame(name)) == {"runs": 1, "trials": 1, "sources": 2, "cost": 1}.get(
            name, 0
        ), name
    assert record.status == "pending"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_rows_belong_to_the_run_that_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("owners")
    for number, rows in enumerate(counts):
        run = folder / "s" / f"t{number}-0"
        run.mkdir(parents=True)
        (run / "manifest.json").write_text("{}")
        (run / "metrics.jsonl").write_text(f'{{"step": {number}}}\n' * rows)
    owned = [
        (step, owner)
        for table, owners in read_lines(scan(folder, "s"), "metrics.jsonl")
        for step, owner in zip(table["step"].to_pylist(), owners.tolist(), strict=True)
    ]
    assert owned == [(n, n) for n, rows in enumerate(counts) for _ in range(rows)]


def test_chunks_do_not_change_what_is_read(
    runs_dir: Path, ratio: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.records.CHUNK_BYTES", 1)
    again = Frames.read(runs_dir, "ratio")
    pd.testing.assert_frame_equal(again.scores, ratio.scores)
    pd.testing.assert_frame_equal(again.metrics, ratio.metrics)


def test_a_table_outlives_the_buffer_that_it_was_read_from(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = scan(runs_dir, "ratio")
    monkeypatch.setattr("analysis.records.CHUNK_BYTES", 1)
    kept = [(table, table.to_pylist()) for table, _ in read_lines(files, "scores.jsonl")]
    assert len(kept) > 2
    for table, as_first_seen in kept:
        assert table.to_pylist() == as_first_seen


@pytest.mark.parametrize("bad", ["", "not JSON at all\n"])
def test_blank_lines_are_no_rows(one_run: Path, bad: str) -> None:
    for name in ("metrics.jsonl", "scores.jsonl"):
        lines = (one_run / name).read_text().replace("\n", "\n\n  \n")
        (one_run / name).write_text("\n" + lines + bad)
    frames = Frames.read(one_run.parents[1], "ratio")
    assert frames.checkpoints["step"].tolist() == [10, 20, 30, 40]
    assert len(frames.metrics) == 40


def test_runs_share_the_sections_of_their_configs_that_are_equal(runs_dir: Path) -> None:
    first, second = (run.manifest["config"] for run in scan(runs_dir, "four")[:2])
    assert first["source"] is second["source"]
    for run in scan(runs_dir, "four"):
        assert run.manifest == json.loads((run.path / "manifest.json").read_bytes())


def test_a_made_up_study_is_the_same_every_time(tmp_path: Path) -> None:
    study = SyntheticStudy(name="s", trials=3, items=0, confirmed=0, seeds=1)
    first, second = (write_study(tmp_path / name, study) for name in ("a", "b"))
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.json*"))
    assert names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    ("values", "found"),
    [(["1", "x"], [np.nan, np.nan]), ([True, None], [1.0, np.nan]), ([2, 3], [2.0, 3.0])],
)
def test_only_numbers_and_flags_become_floats(values: list[object], found: list[float]) -> None:
    np.testing.assert_array_equal(_floats(pa.array(values)), found)


def test_weights_that_are_no_mapping_are_no_weights() -> None:
    assert _weights(None) == _weights("web") == {}
    assert _weights({"web": 3.0, "code": 1.0}) == {"web": 0.75, "code": 0.25}
