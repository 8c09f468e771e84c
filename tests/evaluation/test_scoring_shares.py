"""One run's scoring in several worker processes: the record of one process, whatever a worker does."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ablations.errors import CheckpointError, EvaluationError, HeldError
from ablations.evaluation import scoring_shares
from ablations.evaluation.scoring_process import WORKER, ScoringJob
from ablations.evaluation.scoring_shares import Part, parts_of, score_on_devices, scoring_processes
from ablations.evaluation.specs import EvaluationSpec, ScoreRule, ScoreTerm, TaskSpec
from ablations.processes import warm_server
from ablations.record.checksums import damage
from ablations.record.run_record import RunRecord
from ablations.training.specs import ExecutionSpec

QUIZ = TaskSpec(form="cloze", domain="d", items="quiz", metrics=("acc", "acc_char", "bpb"))
SUMS = TaskSpec(
    form="generative",
    domain="math",
    items="sums",
    match="number",
    metrics=("exact_match", "bpb"),
    max_new_tokens=4,
)
BLANK = TaskSpec(form="cloze", domain="d", items="blank", metrics=("acc", "bpb"))
ABSENT = TaskSpec(form="cloze", domain="d", items="nowhere", metrics=("acc",))
RULE = ScoreRule(direction="minimize", terms={"quiz": ScoreTerm(metrics="quiz/bpb")})
SUITE = EvaluationSpec(tasks={"quiz": QUIZ, "sums": SUMS, "blank": BLANK}, score=RULE)

Make = Callable[..., ScoringJob]


@pytest.fixture
def make(exports: dict[int, Path], data_dir: Path, tmp_path: Path) -> Make:
    """Make a run with copies of the two models as its checkpoints, and the job that scores them."""

    def made(name: str, steps: Sequence[int] = (10, 20), **changes: Any) -> ScoringJob:
        run = tmp_path / name
        for number, step in enumerate(steps):
            folder = run / "checkpoints" / str(step)
            shutil.copytree(exports[(10, 20)[number % 2]], folder)
        values: dict[str, Any] = {
            "directory": run,
            "steps": tuple(steps),
            "last_step": steps[-1],
            "tokens_per_step": 128,
            "evaluation": SUITE,
            "tokenizer": run,
            "data_dir": data_dir,
            "stores": {"wiki": data_dir / "store" / "wiki"},
            "keep": "all",
            "threads": 1,
            "device": "cpu",
        }
        return ScoringJob(**(values | changes))

    return made


def score(job: ScoringJob, workers: int, advance: Callable[[str], None] = lambda _: None) -> float:
    return score_on_devices(job, workers, in_process=False, advance=advance)


def rows(job: ScoringJob) -> list[dict[str, Any]]:
    """The lines of scores.jsonl as they were written, without times and the seals over them."""
    path = job.directory / "scores.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    plain = [json.loads(line) for line in lines]
    times = ("cpu_seconds", "content_sha256")
    return [{key: row[key] for key in row if key not in times} for row in plain]


def details(job: ScoringJob) -> dict[str, bytes]:
    root = job.directory / "details"
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def left_behind(job: ScoringJob) -> list[str]:
    return [path.name for path in job.directory.glob(".*")]


@pytest.mark.parametrize("steps", [(10, 20), (10,), (10, 20, 30)])
def test_two_processes_leave_the_record_of_one(make: Make, steps: tuple[int, ...]) -> None:
    alone, divided = make("alone", steps), make("divided", steps)
    advanced: list[str] = []
    assert score(alone, 1) > 0
    assert score(divided, 2, advanced.append) > 0
    assert rows(divided) == rows(alone)
    assert [row["step"] for row in rows(divided)] == list(steps)
    assert list(rows(divided)[0]["metrics"]) == ["quiz", "sums", "blank", "heldout_wiki"]
    assert details(divided) == details(alone)
    assert len(details(alone)) == 5 * len(steps)
    assert all(row["cpu_seconds"] > 0 for row in RunRecord(divided.directory).scores())
    assert len(advanced) == 4 * len(steps)
    assert left_behind(divided) == []


def test_a_killed_worker_leaves_whole_rows_and_the_same_call_goes_on(make: Make) -> None:
    alone, divided = make("alone"), make("divided")
    score(alone, 1)

    def kill(_: str) -> None:
        server = warm_server.warm_server([WORKER])._process
        assert server is not None
        for child in psutil.Process(server.pid).children():
            os.kill(child.pid, signal.SIGKILL)
            return

    with pytest.raises(EvaluationError, match="SIGKILL"):
        score(divided, 2, kill)
    assert rows(divided) == rows(alone)[: len(rows(divided))]
    for row in rows(divided):
        assert damage(divided.directory / "details" / str(row["step"])) == []
    score(divided, 2)
    assert rows(divided) == rows(alone)
    assert details(divided) == details(alone)
    assert left_behind(divided) == []


@pytest.mark.parametrize("steps", [(10, 20), (10,)])
def test_a_task_that_fails_is_missing_with_its_reason(make: Make, steps: tuple[int, ...]) -> None:
    suite = replace(SUITE, tasks={"quiz": QUIZ, "absent": ABSENT})
    alone = make("alone", steps, evaluation=suite)
    divided = make("divided", steps, evaluation=suite)
    score(alone, 1)
    score(divided, 2)
    assert "nowhere" in rows(divided)[0]["notes"]["absent"]["missing"]
    assert rows(divided) == rows(alone)
    assert details(divided) == details(alone)


@pytest.mark.parametrize("steps", [(10, 20), (10,)])
def test_a_checkpoint_without_a_task_that_can_be_scored_is_refused(
    make: Make, steps: tuple[int, ...]
) -> None:
    tasks = {"absent": ABSENT, "nothing": ABSENT}
    suite = EvaluationSpec(tasks=tasks, heldout=False)
    for workers in (1, 2):
        job = make(f"run{workers}", steps, evaluation=suite)
        with pytest.raises(EvaluationError, match="step 10: no task could be scored"):
            score(job, workers)
        assert rows(job) == []
        assert left_behind(job) == []


def test_the_error_of_one_worker_is_raised_as_it_was(make: Make) -> None:
    job = make("run")
    (job.directory / "checkpoints" / "20" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="not a model that transformers can load"):
        score(job, 2)
    assert left_behind(job) == []


@pytest.mark.parametrize("steps", [(10, 20), (10, 20, 30)])
def test_a_checkpoint_that_cannot_be_exported_has_a_row_with_the_reason(
    make: Make, steps: tuple[int, ...]
) -> None:
    job = make("run", steps)
    (job.directory / "checkpoints" / "10" / "config.json").unlink()
    score(job, 2)
    first, *others = rows(job)
    assert (first["step"], first["score"]) == (10, None)
    assert "incomplete checkpoint" in first["reason"]
    assert [row["step"] for row in others] == list(steps[1:])
    assert None not in [row["score"] for row in others]


def test_a_last_checkpoint_that_cannot_be_exported_is_refused(make: Make) -> None:
    job = make("run", (10, 20, 30))
    (job.directory / "checkpoints" / "30" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="incomplete checkpoint"):
        score(job, 2)


def test_what_is_scored_is_not_scored_again(make: Make) -> None:
    job = make("run")
    RunRecord(job.directory).add_scores({"step": 10, "score": 1.0})
    score(job, 2)
    assert [row["step"] for row in rows(job)] == [10, 20]
    assert rows(job)[0]["score"] == 1.0


def test_a_call_waits_for_the_workers_of_a_killed_one_and_removes_its_folder(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablations.record.lease._LOCK_SECONDS", 0.05)
    job = make("run")
    (job.directory / ".scoring-dead").mkdir()
    with (job.directory / "scoring.lock").open("w") as worker:
        fcntl.flock(worker, fcntl.LOCK_SH)
        with pytest.raises(HeldError, match="another process is scoring"):
            score(job, 2)
    assert left_behind(job) == [".scoring-dead"]
    score(job, 2)
    assert left_behind(job) == []


@pytest.mark.parametrize(
    ("steps", "workers", "expected"),
    [
        ((1, 2), 2, [(1, "abc"), (2, "abc")]),
        ((1,), 2, [(1, "b"), (1, "a"), (1, "c")]),
        ((1, 2, 3), 2, [(1, "abc"), (2, "abc"), (3, "b"), (3, "a"), (3, "c")]),
        ((1,), 8, [(1, "b"), (1, "a"), (1, "c")]),
    ],
)
def test_checkpoints_are_divided_first_and_tasks_of_those_that_are_left(
    steps: tuple[int, ...], workers: int, expected: list[tuple[int, str]]
) -> None:
    suite = EvaluationSpec(tasks={"a": QUIZ, "b": SUMS, "c": BLANK}, heldout=False)
    parts = [Part(step, tuple(tasks)) for step, tasks in expected]
    assert parts_of(steps, suite, (), workers) == parts


@pytest.mark.parametrize(
    ("ranks", "device", "seen", "listed", "expected"),
    [
        (4, "cpu", ["0", "1"], True, 2),  # as many as there are cores
        (1, "cpu", ["0", "1"], True, 1),
        (1, "auto", [], False, 1),
        (2, "auto", [], False, 2),
        (1, "auto", ["0", "1", "2"], False, 1),  # others may use them
        (2, "auto", ["0", "1", "2"], False, 2),
        (4, "cuda", ["0", "1"], False, 2),
        (1, "cuda", ["0", "1", "2"], True, 3),
    ],
)
def test_processes_are_as_many_as_the_run_has_devices(
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
    device: Any,
    seen: list[str],
    listed: bool,
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(scoring_shares, "visible_gpus", lambda: seen)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(seen))
    assert scoring_processes(ExecutionSpec(device=device, dp=ranks)) == expected
