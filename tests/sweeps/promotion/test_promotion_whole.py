"""Promoted runs, arms and stages with small models trained on the synthetic sources."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablations.record.run_record import RunRecord
from sweeps.promotion.gates import audit_gaps
from sweeps.promotion.promote import promote
from sweeps.verdict.verdict_record import read_verdict
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.sweeps.promotion.conftest import FULL, MadeStudy, composed

FOUR_STAGES = (
    "promotion.full.stages={stable: {share: 0.4}, more: {share: 0.25, add: {synthetic_arithmetic: "
    "0.1}}, code: {share: 0.25, add: {synthetic_facts: 0.2}}, decay: {share: 0.1}}"
)


def promoted_folder(*overrides: str) -> Path:
    values = composed(*FULL, FOUR_STAGES, *overrides, config="promote")
    values.pop("compare")
    return promote(values).folder


def command(folder: Path, *overrides: str) -> list[str]:
    run = ["run", "--config-dir", str(folder / "conf"), "experiment=promoted", "progress=false"]
    return [sys.executable, "-m", "ablations.cli", *run, "execution.threads=1", *overrides]


def train_until(arguments: list[str], record: Path, step: int) -> bool:
    """Kill the command as soon as ``step`` is recorded; return True if it was killed."""
    output = record.parent.parent / "output.txt"
    output.parent.mkdir(exist_ok=True)
    metrics = record / "metrics.jsonl"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            arguments, start_new_session=True, stdout=stream, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        rows = metrics.read_bytes().splitlines() if metrics.exists() else []
        if any(json.loads(row)["step"] >= step for row in rows[-3:] if row.endswith(b"}")):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)
    assert process.wait() == 0, output.read_text()
    return False


@pytest.mark.slow
def test_a_full_run_killed_in_every_stage_and_at_every_boundary_ends_as_an_undisturbed_one(
    study: MadeStudy,
) -> None:
    folder = promoted_folder(
        "promotion.full.total_tokens=40960",  # 80 steps of 512 tokens
        "training.checkpoints=2",
        "training.recovery_interval_steps=4",
        "evaluation.max_items=4",
        "evaluation.heldout_max_items=2",
    )
    whole = command(folder, "runs_dir=undisturbed")
    assert not train_until(whole, Path("undisturbed") / folder.name / "full-0", 10**9)
    undisturbed = RunRecord(Path("undisturbed") / folder.name / "full-0")
    audit = undisturbed.audit()
    assert audit is not None
    steps = [32, 52, 72, 80]  # the last steps of the four stages
    record = RunRecord(Path("runs") / folder.name / "full-0")
    for step in (16, 32, 42, 52, 62, 72, 76):
        train_until(command(folder), record.path, step)
    assert not train_until(command(folder), record.path, 10**9)

    assert record.status == "done"
    ours, theirs = record.metrics(), undisturbed.metrics()
    assert [row["step"] for row in ours] == list(range(1, steps[-1] + 1))
    assert [row["loss"] for row in ours] == [row["loss"] for row in theirs]
    assert [row["lr"] for row in ours] == [row["lr"] for row in theirs]
    assert record.audit() == audit  # the source cursors carried over
    assert audit_gaps(record, 1e-3) == []
    kinds = [event["kind"] for event in record.events()]
    assert kinds.count("resume") >= 4
    assert (folder / "comparison.md").is_file()
    # The run kept the digest of the sealed prediction through every kill.
    assert json.loads((folder / "comparison.json").read_text())["seal"] == "kept"


@pytest.mark.slow
def test_arms_fork_one_checkpoint_and_are_judged(workspace: Path, ablate: Ablate) -> None:
    answer = ablate(
        "run",
        *TINY,
        *SHORT_SOURCES,
        "study=arms",
        "schedule.total_tokens=null",
        "++schedule.stages.before={tokens: 2048, weights: {synthetic_facts: 0.6, "
        "synthetic_arithmetic: 0.3, synthetic_junk: 0.1}}",
        "++schedule.stages.anneal={tokens: 1024, weights: null}",
        "~schedule.stages.main",
        "schedule.lr.warmup_steps=2",
        "++schedule.lr.decay_steps=4",
        "program={kind: annealing, seeds: [0, 1], arms: {facts: {synthetic_facts: "
        "1.0}, arithmetic: {synthetic_arithmetic: 1.0}}}",
    )
    assert answer.code == 0, answer.err
    verdict = read_verdict(Path("runs/arms"))
    assert verdict.baseline == "control"
    assert {row.name for row in verdict.candidates} == {"control", "facts", "arithmetic"}
    found = {}
    for path in sorted(Path("runs/arms").glob("trial-*")):
        record = RunRecord(path)
        config = record.manifest.config
        found[path.name] = config["warm_start"]["checkpoint"]
        assert [row["step"] for row in record.metrics()] == [9, 10, 11, 12]
        assert record.metrics()[-1]["lr"] == 0.0
        assert audit_gaps(record, 1e-3) == []
    assert len(found) == 6
    assert set(found.values()) == {"runs/arms-trunk/trunk-0/checkpoints/8"}


@pytest.mark.slow
def test_stages_are_searched_one_after_the_other(workspace: Path, ablate: Ablate) -> None:
    arguments = (
        "run",
        *TINY,
        *SHORT_SOURCES,
        "study=staged",
        "search=mixture",
        "search.budget.trials=2",
        "search.strategy.baselines=[natural,uniform]",
        "search.confirm.finalists=0",
        "search.seeds=[0,1]",
        "schedule.total_tokens=null",
        "++schedule.stages.one={tokens: 1024, weights: null}",
        "++schedule.stages.two={tokens: 1024, weights: null}",
        "~schedule.stages.main",
        "schedule.lr.warmup_steps=2",
        "++schedule.lr.decay_steps=4",
        "program={kind: stagewise}",
    )
    answer = ablate(*arguments)
    assert answer.code == 0, answer.err
    kept = json.loads(Path("runs/staged/stages.json").read_text())["stages"]
    assert [stage["stage"] for stage in kept] == ["one", "two"]
    second = RunRecord(Path("runs") / kept[1]["run"])
    config = second.manifest.config
    assert config["warm_start"]["checkpoint"] == kept[0]["checkpoint"]
    assert config["schedule"]["stages"]["one"]["weights"] == kept[0]["weights"]
    assert [row["step"] for row in second.metrics()] == [5, 6, 7, 8]
    first = RunRecord(Path("runs") / kept[0]["run"])
    assert first.metrics()[-1]["lr"] > 0.0  # the rate stays up for the next stage
    assert second.metrics()[-1]["lr"] == 0.0
    assert "# After stage two" in Path("runs/staged/weak_spots_2_two.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")}
    again = ablate(*arguments)
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was run twice
