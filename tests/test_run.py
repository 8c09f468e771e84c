"""A complete run: trained, audited, scored, recorded; skipped if done, resumed if killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ablations.config.schema import RunConfig
from ablations.errors import AuditError, ConfigError, DataError
from ablations.evaluation import scoring_shares
from ablations.execute import Work, execute, identity, open_work
from ablations.files import read_json, write_json
from ablations.processes.ended import Result
from ablations.record.checksums import damage
from ablations.record.identity import fingerprint
from ablations.record.run_record import RunRecord, list_runs
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.train_job import TrainJob, TrainOutcome
from ablations.training.training_process import Task, run_side_by_side
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.test_plan import composed

RUN = ("run", *TINY, *SHORT_SOURCES)


def only_record(workspace: Path) -> RunRecord:
    (record,) = list_runs(workspace / "runs")
    return record


@pytest.mark.slow
def test_a_run_of_two_ranks_is_scored_by_two_processes(
    workspace: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def noted(tasks: Sequence[Task], poll: Callable[[], None]) -> Result:
        started.append(len(tasks))
        return run_side_by_side(tasks, poll)

    monkeypatch.setattr(scoring_shares, "run_side_by_side", noted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    answer = ablate(*RUN, "execution.dp=2")
    assert answer.code == 0, answer.err
    assert started == [2]
    record = only_record(workspace)
    assert [row["step"] for row in record.scores()] == [4, 8]
    result = record.result()
    assert result is not None
    assert result["score"] == record.scores()[-1]["score"]
    assert result["cost"]["eval_cpu_seconds"] > 0
    for step in (4, 8):
        assert damage(record.path / "details" / str(step)) == []


@pytest.mark.slow
def test_a_run_leaves_a_whole_record_and_is_not_done_twice(workspace: Path, ablate: Ablate) -> None:
    answer = ablate(*RUN)
    assert answer.code == 0, answer.err
    record = only_record(workspace)
    assert record.status == "done"
    assert [row["step"] for row in record.metrics()] == list(range(1, 9))
    assert [row["step"] for row in record.scores()] == [4, 8]
    result = record.result()
    assert result is not None
    assert result["score"] == record.scores()[-1]["score"]
    assert result["audit_ok"] is True
    assert result["tokens"] == 2048
    assert 0.0 <= result["metrics"]["synthetic_facts/acc"] <= 1.0
    assert {"heldout_synthetic_facts/bpb", "heldout_synthetic_junk/bpb"} <= set(result["metrics"])
    assert set(record.details(8)) >= {"synthetic_facts", "heldout_synthetic_facts"}
    audit = record.audit()
    assert audit is not None
    assert sum(row["windows"] for row in audit["stages"]) == 64

    before = {path: path.stat().st_mtime_ns for path in record.path.rglob("*")}
    # As a process left it that was killed between its result and its end.
    write_json(record.path / "holder.json", {"host": socket.gethostname(), "pid": 1, "token": "x"})
    again = ablate(*RUN)
    assert again.code == 0
    assert not (record.path / "holder.json").exists()
    assert {path: path.stat().st_mtime_ns for path in record.path.rglob("*")} == before

    listed = ablate("ls")
    assert "done" in listed.out
    assert record.name in listed.out


@pytest.mark.slow
def test_the_same_config_gives_the_same_result(workspace: Path, ablate: Ablate) -> None:
    assert ablate(*RUN).code == 0
    assert ablate(*RUN, "runs_dir=elsewhere").code == 0
    one, two = only_record(workspace), list_runs(workspace / "elsewhere")[0]
    assert one.manifest.fingerprint == two.manifest.fingerprint
    assert [row["loss"] for row in one.metrics()] == [row["loss"] for row in two.metrics()]
    assert _without_cost(one) == _without_cost(two)


def _without_cost(record: RunRecord) -> dict[str, object]:
    result = record.result()
    assert result is not None
    return {key: value for key, value in result.items() if key != "cost"}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "scoring"])
def test_a_run_killed_anywhere_ends_with_the_same_result(
    workspace: Path, ablate: Ablate, moment: str
) -> None:
    assert ablate(*RUN, "runs_dir=undisturbed").code == 0
    command = [sys.executable, "-m", "ablations.cli", *RUN]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = list_runs(workspace / "runs")
        if found and found[0].status == moment and (moment == "scoring" or found[0].metrics()):
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert only_record(workspace).result() is None
    assert ablate(*RUN).code == 0
    undisturbed, killed = list_runs(workspace / "undisturbed")[0], only_record(workspace)
    assert [r["loss"] for r in undisturbed.metrics()] == [r["loss"] for r in killed.metrics()]
    assert _without_cost(undisturbed) == _without_cost(killed)


@pytest.mark.slow
def test_a_run_that_another_process_has_locked_names_it(workspace: Path, ablate: Ablate) -> None:
    assert ablate(*RUN, "training.checkpoints=1").code == 0
    record = only_record(workspace)
    (record.path / "result.json").unlink()
    with record.hold():
        code = (
            "import sys; from ablations.cli import main; "
            f"sys.exit(main({[*RUN, 'training.checkpoints=1']!r}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr


@pytest.mark.slow
def test_a_diverged_run_is_recorded_as_failed_with_its_step(
    workspace: Path, ablate: Ablate
) -> None:
    answer = ablate(*RUN, "training.peak_lr=1e6", "training.clip_norm=null")
    assert answer.code == 1
    assert "step" in answer.err
    record = only_record(workspace)
    assert record.status == "failed"
    result = record.result()
    assert result is not None
    assert result["score"] is None
    assert result["reason"]


@pytest.mark.slow
def test_a_done_run_without_a_score_is_scored_again_and_not_trained(
    workspace: Path, ablate: Ablate
) -> None:
    assert ablate(*RUN).code == 0
    record = only_record(workspace)
    whole, rows = record.result(), record.scores()
    assert whole is not None
    trained = (record.path / "metrics.jsonl").stat().st_mtime_ns
    # The record of a run whose task could not be scored, because a package or items were missing.
    lost = {**whole, "score": None, "metrics": dict.fromkeys(whole["metrics"])}
    record.write_result(lost)
    record.add_scores(
        {**rows[-1], "score": None, "reason": "facts: synthetic_facts/acc is missing"}
    )
    answer = ablate(*RUN)
    assert answer.code == 0, answer.err
    again = record.result()
    assert again is not None
    assert {**again, "cost": None} == {**whole, "cost": None}
    assert again["cost"]["eval_cpu_seconds"] > whole["cost"]["eval_cpu_seconds"]
    assert [row["score"] for row in record.scores()] == [row["score"] for row in rows]
    assert (record.path / "metrics.jsonl").stat().st_mtime_ns == trained
    before = {path: path.stat().st_mtime_ns for path in record.path.rglob("*")}
    assert ablate(*RUN).code == 0
    assert {path: path.stat().st_mtime_ns for path in record.path.rglob("*")} == before


@pytest.mark.slow
def test_a_checkpoint_is_scored_by_hand(workspace: Path, ablate: Ablate) -> None:
    assert ablate(*RUN).code == 0
    record = only_record(workspace)
    checkpoint = record.checkpoints_dir / "8"
    answer = ablate("score", f"checkpoint={checkpoint}", "out=by_hand", *TINY, *SHORT_SOURCES)
    assert answer.code == 0, answer.err
    scores = json.loads((workspace / "by_hand" / "scores.json").read_text())
    assert scores["score"] == record.scores()[-1]["score"]


@pytest.mark.slow
def test_a_warm_start_goes_on_from_the_checkpoint(workspace: Path, ablate: Ablate) -> None:
    assert ablate(*RUN).code == 0
    first = only_record(workspace)
    arm = (
        *RUN,
        "study=arms",
        f"warm_start.checkpoint={first.checkpoints_dir / '4'}",
        "warm_start.load_optimizer=false",
    )
    answer = ablate(*arm)
    assert answer.code == 0, answer.err
    (record,) = list_runs(workspace / "runs", "arms")
    assert [row["step"] for row in record.metrics()] == [5, 6, 7, 8]
    whole, arm_result = first.result(), record.result()
    assert whole is not None
    assert arm_result is not None
    assert arm_result["cost"]["flops"] == whole["cost"]["flops"] / 2
    assert "steps 1 to 8" in ablate("plan", *arm[1:]).out


def test_a_run_that_the_disk_cannot_hold_is_refused_before_it_trains(
    workspace: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablations.execute.free_bytes", lambda folder: 1_000)
    answer = ablate(*RUN)
    assert answer.code == 2
    assert "too little disk for 2 checkpoints" in answer.err
    assert not (workspace / "runs").exists()


def test_fields_added_after_runs_were_recorded_count_only_if_they_are_used(
    workspace: Path,
) -> None:
    plain = identity(composed())
    assert "tail_steps" not in plain["schedule"]["lr"]
    assert "epoch_cap_exempt" not in plain["mixture"]
    for source in plain["source"].values():
        assert not {"min_tokens", "max_tokens", "score_shares", "leave_out", "rows"} & set(source)
    assert "method" not in plain
    assert "total_samples" not in plain["schedule"]
    assert "guards" not in plain["evaluation"]
    assert not {"base", "chat"} & set(plain["tokenizer"])
    tail = identity(composed("schedule.lr.tail_steps=1"))
    assert tail["schedule"]["lr"]["tail_steps"] == 1
    asked = "+mixture.epoch_cap_exempt.synthetic_facts=a reason"
    exempt = identity(composed(asked))
    assert exempt["mixture"]["epoch_cap_exempt"] == {"synthetic_facts": "a reason"}


# --------------------------------------------------------------- without training: forged outcomes


@pytest.mark.parametrize("honest", [True, False])
def test_a_run_that_did_not_read_its_mixture_has_failed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    config = composed()
    read = _windows_asked(config)
    forged = tuple((sum(row), *[0] * (len(row) - 1)) for row in read)

    def train(self: NanotronTrainer, job: TrainJob, watch: object, **_: bool) -> TrainOutcome:
        return TrainOutcome(
            status="done",
            reason=None,
            last_step=8,
            checkpoints=(),
            windows=read if honest else forged,
        )

    scored: list[str] = []
    monkeypatch.setattr(NanotronTrainer, "train", train)
    monkeypatch.setattr(Work, "score", lambda self: scored.append("scored"))
    if honest:
        assert execute(config).result["audit_ok"] is True
        assert scored == ["scored"]
        return
    with pytest.raises(AuditError, match="of its tokens from"):
        execute(config)
    record = only_record(workspace)
    assert scored == []
    assert record.status == "failed"
    result = record.result()
    assert result is not None
    assert (result["status"], result["audit_ok"], result["score"]) == ("failed", False, None)
    assert "of its tokens from" in result["reason"]


def _windows_asked(config: RunConfig) -> tuple[tuple[int, ...], ...]:
    """Return the windows [stage][source] of a run that reads its mixture, to the nearest window."""
    schedule = config.build_schedule()
    samples = schedule.batch_size
    return tuple(
        tuple(round(s.mixture.get(n, 0.0) * s.steps * samples) for n in schedule.sources)
        for s in schedule.stages
    )


def test_other_items_are_another_run(workspace: Path) -> None:
    """Refuse an item file cut to five rows: it once moved a score from 0.281 to 0.494 without a warning."""
    config = composed()
    first = open_work(config).record
    assert sorted(first.manifest.items) == [
        "synthetic_arithmetic.jsonl",
        "synthetic_facts.jsonl",
    ]
    assert open_work(config).record.path == first.path
    recorded = workspace / "data" / "benchmarks" / "checksums.json"
    file = workspace / "data" / "benchmarks" / "synthetic_facts.jsonl"
    rows = file.read_text().splitlines(keepends=True)
    file.unlink()  # the workspace's files are links to those of other tests
    file.write_text("".join(rows[:5]))
    with pytest.raises(DataError, match="not the items that were prepared"):
        open_work(config)
    recorded.unlink()  # as in a data folder of an older version
    with pytest.raises(ConfigError, match=r"differs in items\.synthetic_facts\.jsonl"):
        open_work(config)
    elsewhere = open_work(composed("runs_dir=elsewhere")).record
    assert elsewhere.manifest.fingerprint != first.manifest.fingerprint


def test_a_record_without_items_is_found_again_under_its_name(workspace: Path) -> None:
    config = composed()
    record = open_work(config).record
    path = record.path / "manifest.json"
    stored = {key: value for key, value in read_json(path).items() if key != "items"}
    plain = fingerprint(record.manifest.config)
    write_json(path, {**stored, "fingerprint": plain})  # as the version before wrote it
    again = open_work(config).record
    assert again.path == record.path
    assert again.manifest.items
    assert len(list_runs(workspace / "runs")) == 1
