"""A run that pauses: its record, going on, kills, cost over its legs, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.errors import DamagedError
from ablations.files import append_json_line
from ablations.record.legs import LegCost, earlier_legs
from ablations.record.paused import PAUSED_FILE, forget_pause, paused_at, write_paused
from ablations.record.run_record import RunRecord, list_runs
from tests.conftest import SHORT_SOURCES, TINY, Ablate

RUN = ("run", *TINY, *SHORT_SOURCES)
PAUSE = "execution.stop_tokens=1024"


def without_cost(record: RunRecord) -> dict[str, object]:
    return {key: value for key, value in (record.result() or {}).items() if key != "cost"}


@pytest.mark.slow
def test_a_paused_run_has_no_result_and_goes_on_as_if_it_had_not_paused(
    workspace: Path, ablate: Ablate
) -> None:
    assert ablate(*RUN, "runs_dir=undisturbed").code == 0
    (whole,) = list_runs(workspace / "undisturbed")
    answer = ablate(*RUN, PAUSE)
    assert answer.code == 0, answer.err
    assert ": paused, score" in answer.out
    (record,) = list_runs(workspace / "runs")
    assert record.status == "paused"
    assert record.result() is None
    paused = paused_at(record)
    assert paused is not None
    assert (paused["step"], paused["tokens"], paused["share"]) == (4, 1024, 0.5)
    assert paused["score"] == whole.scores()[0]["score"]
    assert [row["step"] for row in record.scores()] == [4]
    listed = ablate("ls")
    assert "paused" in listed.out
    first = paused["cost"]

    assert ablate(*RUN).code == 0
    assert record.status == "done"
    assert not (record.path / PAUSED_FILE).exists()
    assert record.manifest.fingerprint == whole.manifest.fingerprint
    assert record.manifest.config["execution"] == whole.manifest.config["execution"]
    assert [row["loss"] for row in record.metrics()] == [row["loss"] for row in whole.metrics()]
    assert without_cost(record) == without_cost(whole)
    result = record.result()
    assert result is not None
    cost = result["cost"]
    assert cost["flops"] == 2 * first["flops"]
    for name in ("wall_seconds", "train_cpu_seconds", "eval_cpu_seconds"):
        assert cost[name] > first[name] > 0.0, "the first leg counts"
    # A pause that is asked of a run that is over changes nothing.
    assert ablate(*RUN, PAUSE).code == 0
    assert record.status == "done"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param([PAUSE, "training.checkpoints=1"], "not at a checkpoint", id="checkpoint"),
        pytest.param(["execution.stop_tokens=2048"], "not on the plateau", id="the end"),
        pytest.param(["execution.stop_tokens=1792"], "not on the plateau", id="decay"),
        pytest.param([PAUSE, "schedule.lr.warmup_share=0.6"], "not on the plateau", id="warm-up"),
        pytest.param(["execution.stop_tokens=0"], "execution.stop_tokens", id="zero"),
    ],
)
def test_a_pause_that_would_lose_something_is_refused(
    workspace: Path, ablate: Ablate, overrides: list[str], message: str
) -> None:
    answer = ablate(*RUN, *overrides)
    assert answer.code == 2, answer.out
    assert message in answer.err
    assert not (workspace / "runs").exists()


def record_in(folder: Path) -> RunRecord:
    return RunRecord.create(folder, study="s", trial="t", seed=0, config={"a": 1})


def test_a_result_outlives_the_record_of_a_pause(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    assert paused_at(record) is None
    write_paused(record, {"step": 3, "score": 1.0, "metrics": {}})
    assert paused_at(record) == {"step": 3, "score": 1.0, "metrics": {}}
    record.write_result({"status": "done", "score": 2.0, "metrics": {}})
    assert paused_at(record) is None, "a process that dies before it removes the pause leaves both"
    forget_pause(record)
    forget_pause(record)
    assert not (record.path / PAUSED_FILE).exists()


@pytest.mark.parametrize("content", ['{"step": 3, "score": "high"}', "{", '{"score": 1.0}'])
def test_a_damaged_pause_is_named(tmp_path: Path, content: str) -> None:
    record = record_in(tmp_path)
    (record.path / PAUSED_FILE).write_text(content)
    with pytest.raises(DamagedError, match=r"paused\.json"):
        paused_at(record)


def test_legs_are_summed_and_a_killed_one_counts_its_steps(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    assert earlier_legs(record) == LegCost()

    def steps(*numbers: int) -> None:
        for step in numbers:
            append_json_line(record.path / "metrics.jsonl", {"step": step, "seconds": 2.0})

    steps(1, 2, 3)  # killed after step 3
    killed = earlier_legs(record)
    assert (killed.wall_seconds, killed.step_seconds) == (6.0, 6.0)
    steps(3, 4)  # goes on from step 2, and pauses after scoring
    leg = LegCost(wall_seconds=9.0, train_cpu_seconds=3.0, eval_cpu_seconds=1.0, step_seconds=4.0)
    record.event("paused", step=4, **vars(leg))
    both = earlier_legs(record)
    assert both.wall_seconds == 15.0
    assert both.eval_cpu_seconds == 1.0
    assert both.step_seconds == 10.0
    steps(5)  # killed again
    assert earlier_legs(record).wall_seconds == 17.0


def test_events_of_older_records_cost_nothing(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.event("failed", step=3, reason="a full disk")
    assert earlier_legs(record) == LegCost()
    assert json.loads((record.path / "events.jsonl").read_text())["kind"] == "failed"
