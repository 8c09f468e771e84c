"""Check what a run is refused for before it begins, and what its training job is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations import execute as module
from ablations.config.schema import RunConfig
from ablations.errors import ConfigError
from ablations.execute import make_job, open_work
from ablations.plan import make_plan
from ablations.record.run_record import RunRecord
from ablations.run_identity import items_of
from tests.test_run_steps import Shown, config


@pytest.mark.parametrize("changed", ["plan", "sources", "checkpoint"])
def test_a_run_that_cannot_start_writes_nothing(workspace: Path, changed: str) -> None:
    given = {
        "plan": "mixture.epoch_cap=0.01",
        "sources": "data_dir=nowhere",
        "checkpoint": "warm_start.checkpoint=nowhere",
    }
    with pytest.raises(Exception, match=r"epochs|prepare|nowhere"):
        open_work(config(given[changed]))
    assert not (workspace / "runs").exists()


def test_a_job_of_plain_text_has_neither_model_nor_tokenizer(workspace: Path) -> None:
    asked = config()
    plan = make_plan(asked)
    job = make_job(asked, plan, Path("here"))
    assert job.directory == workspace / "here"
    assert (job.start_model, job.tokenizer, job.warm_start) == (None, None, None)
    assert (job.most_pictures, job.method.vision) == (0, None)
    assert job.slices == plan.slices
    assert job.slices is not None
    assert (job.seed, job.checkpoint_steps, job.stop_step) == (asked.seed, (36, 72), None)


def given(checkpoint: str | None, of_rows: bool) -> Any:
    return SimpleNamespace(
        warm_start=SimpleNamespace(checkpoint=checkpoint, load_optimizer=True),
        method=SimpleNamespace(of_rows=of_rows),
    )


@pytest.mark.parametrize(
    ("checkpoint", "of_rows", "model"),
    [
        (None, True, None),
        (None, False, None),
        ("there", False, None),
        ("there", True, "{here}/there"),
        ("owner/name", True, "owner/name"),
    ],
)
def test_methods_on_rows_begin_from_a_folder_or_a_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: str | None,
    of_rows: bool,
    model: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    found = module._start_model(given(checkpoint, of_rows))
    assert found == (model.format(here=tmp_path) if model else None)


@pytest.mark.parametrize("of_rows", [True, False])
def test_a_warm_start_is_a_whole_checkpoint_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_rows: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    looked: list[tuple[Path, str]] = []
    monkeypatch.setattr(module, "require_whole", lambda *which: looked.append(which))
    plan: Any = SimpleNamespace(first_step=7)
    assert module._warm_start(given(None, of_rows), plan) is None
    found = module._warm_start(given("there", of_rows), plan)
    if of_rows:
        assert (found, looked) == (None, [])
        return
    assert found is not None
    assert looked == [(Path("there"), "warm_start.checkpoint")]
    assert found.checkpoint == tmp_path / "there"
    assert (found.load_optimizer, found.first_step) == (True, 7)


# -------------------------------------------------------------------------------------------- disk


@pytest.mark.parametrize(
    ("free", "stop", "scored", "status", "left"),
    [
        (400, None, (), None, None),
        (399, None, (), None, 4),
        (399, None, (10,), None, None),
        (299, None, (10,), "failed", 3),
        (200, 20, (), None, None),
        (199, 20, (), None, 2),
        (100, 19, (), None, None),
        (0, None, (10, 20, 30, 40), None, None),
        (0, None, (), "done", None),
    ],
)
def test_a_run_needs_room_for_the_checkpoints_that_are_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    stop: int | None,
    scored: tuple[int, ...],
    status: str | None,
    left: int | None,
) -> None:
    record = RunRecord(tmp_path)
    for step in scored:
        record.add_scores({"step": step})
    if status:
        record.write_result({"status": status})
    plan: Any = SimpleNamespace(checkpoint_steps=(10, 20, 30, 40), stop_step=stop, disk_bytes=400.0)
    run: Any = SimpleNamespace(runs_dir="runs")
    monkeypatch.setattr(module, "free_bytes", lambda folder: free)
    if left is None:
        module._require_disk_space(run, plan, record)
        return
    with pytest.raises(ConfigError, match=f"too little disk for {left} checkpoints"):
        module._require_disk_space(run, plan, record)


def test_a_run_that_the_disk_cannot_hold_has_no_record(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda folder: 0)
    with pytest.raises(ConfigError, match="too little disk for 2 checkpoints"):
        open_work(config())
    assert not (workspace / "runs").exists()


def test_a_record_is_made_after_the_type_of_its_study_was_held_to(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[RunConfig] = []
    monkeypatch.setattr(module, "hold_to_precision", held.append)
    asked = replace(config(), labels={"arm": "x"})
    shown = Shown()
    work = open_work(asked, in_process=True, progress=shown)
    assert held == [asked]
    made = work.record.manifest
    assert (made.labels, made.study, made.seed) == ({"arm": "x"}, asked.study, asked.seed)
    assert made.items == items_of(asked)
    assert made.items
    assert (work.in_process, work.progress) == (True, shown)
    assert "schedule:" in (work.record.path / "config.yaml").read_text()
    plain = open_work(asked)
    assert plain.in_process is False
    plain.progress.phase("nothing is shown")
