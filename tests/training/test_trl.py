"""Training on rows with TRL: what is read and saved, and that a killed run ends as if it had not been."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import CheckpointError, ConfigError
from ablations.files import read_json, read_json_lines
from ablations.training.checkpoints import checkpoint_steps, is_whole, prune, read_state
from ablations.training.method import MethodSpec
from ablations.training.rows.row_trainer import execution_problems
from ablations.training.specs import ExecutionSpec
from ablations.training.train_job import TrainJob, TrainOutcome
from ablations.training.trainers import trainer_of
from tests.oracles.chats import TINY_CHAT_MODEL, make_row_job, prepare_two_kinds, write_base_model
from tests.oracles.killing import killed_after

SFT = MethodSpec(kind="sft")
DPO = MethodSpec(kind="dpo")
PAIRS = {"pairs": 1.0}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_two_kinds(tmp_path_factory.mktemp("trl_data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path], base: Path
) -> dict[str, TrainJob]:
    """One finished run of each method, with a checkpoint in its middle; never to be changed."""
    root = tmp_path_factory.mktemp("finished")
    jobs = {
        "sft": make_row_job(root / "sft", stores, base, checkpoint_steps=(4, 8)),
        "dpo": make_row_job(
            root / "dpo", stores, base, weights=PAIRS, method=DPO, checkpoint_steps=(4, 8)
        ),
    }
    for job in jobs.values():
        assert trained(job).status == "done"
    return jobs


def trained(job: TrainJob, watch: Any = None) -> TrainOutcome:
    return trainer_of(job.method).train(job, watch)


def weights_of(job: TrainJob, step: int = 8) -> bytes:
    return (job.checkpoints_dir / str(step) / "model.safetensors").read_bytes()


def rows_of(job: TrainJob) -> dict[int, dict[str, Any]]:
    return {row["step"]: row for row in read_json_lines(job.directory / "metrics.jsonl")}


def copied(job: TrainJob, folder: Path, *, steps: int | None = None) -> TrainJob:
    """The job in another folder, with its first ``steps`` steps as a killed run leaves them."""
    if steps is not None:
        shutil.copytree(job.directory, folder)
        for step in checkpoint_steps(folder / "checkpoints"):
            if step > steps:
                shutil.rmtree(folder / f"checkpoints/{step}")
    else:
        folder.mkdir()
    return replace(job, directory=folder)


# -------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_same_run_twice_gives_the_same_bits(
    finished: dict[str, TrainJob], tmp_path: Path, kind: str
) -> None:
    again = copied(finished[kind], tmp_path / "again")
    assert trained(again).status == "done"
    assert weights_of(again) == weights_of(finished[kind])


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_stopped(
    finished: dict[str, TrainJob], tmp_path: Path, kind: str
) -> None:
    stopped = copied(finished[kind], tmp_path / "stopped", steps=4)
    outcome = trained(stopped)
    assert outcome.status == "done"
    assert weights_of(stopped) == weights_of(finished[kind])
    assert outcome.windows == read_state(finished[kind].checkpoints_dir / "8").windows  # type: ignore[union-attr]
    kinds = [row["kind"] for row in read_json_lines(stopped.directory / "events.jsonl")]
    assert "resume" in kinds


@pytest.mark.parametrize(
    ("dp", "visible", "left"),
    [(1, "3,5", "3"), (1, None, "0"), (1, "", ""), (1, "GPU-7a", "GPU-7a"), (2, "3,5", "3,5")],
)
def test_a_run_of_one_rank_sees_one_gpu(
    finished: dict[str, TrainJob],
    monkeypatch: pytest.MonkeyPatch,
    dp: int,
    visible: str | None,
    left: str,
) -> None:
    from ablations.training.rows.row_rank import show_one_gpu

    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    show_one_gpu(replace(finished["sft"], execution=ExecutionSpec(dp=dp)))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


@pytest.mark.parametrize(
    ("values", "where", "do"),
    [
        ({"compile": True}, "execution.compile", "execution.compile=false"),
        ({"dp": 2, "zero_stage": 1}, "execution.zero_stage", "execution.zero_stage=0"),
        ({"tp": 2}, "execution.tp", "execution.dp"),
    ],
)
def test_an_execution_that_no_training_on_rows_can_do_is_named_with_the_setting_that_helps(
    finished: dict[str, TrainJob], values: dict[str, Any], where: str, do: str
) -> None:
    job = replace(finished["sft"], execution=ExecutionSpec(**values))
    (problem,) = execution_problems(job)
    assert problem.where == where
    assert problem.do is not None
    assert do in problem.do


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_run_that_is_killed_at_ten_moments_ends_with_the_same_bits(
    stores: dict[str, Path], base: Path, tmp_path: Path, kind: str
) -> None:
    # Rows are passed on some time after they are written: a worker has a few steps left at the last moment.
    values: dict[str, Any] = {"steps": 18, "recovery_interval_steps": 3}
    if kind == "dpo":
        values |= {"weights": PAIRS, "method": DPO}
    whole = make_row_job(tmp_path / "whole", stores, base, **values)
    assert trained(whole).status == "done"
    for step in range(1, 11):
        job = make_row_job(tmp_path / f"killed_{step}", stores, base, **values)
        assert killed_after(job, step)
        assert not (job.checkpoints_dir / "18").exists()
        assert trained(job).status == "done"
        assert weights_of(job, 18) == weights_of(whole, 18), step


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    stores: dict[str, Path], base: Path, tmp_path: Path, kind: str
) -> None:
    # An idle machine does eight steps before the row of the first is passed on.
    values: dict[str, Any] = {"steps": 40, "recovery_interval_steps": 1}
    if kind == "dpo":
        values |= {"weights": PAIRS, "method": DPO}
    whole = make_row_job(tmp_path / "whole", stores, base, **values)
    assert trained(whole).status == "done"
    job = make_row_job(tmp_path / "killed", stores, base, **values)
    kills = [killed_after(job, step) for step in range(1, 8)]
    assert sum(kills) >= 6
    assert trained(job).status == "done"
    assert weights_of(job, 40) == weights_of(whole, 40)


def test_another_seed_reads_other_rows(finished: dict[str, TrainJob], tmp_path: Path) -> None:
    other = replace(finished["sft"], directory=tmp_path / "other", seed=2)
    other.directory.mkdir()
    assert trained(other).status == "done"
    assert weights_of(other) != weights_of(finished["sft"])
    assert trained(other).windows == trained(finished["sft"]).windows


# -------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_checkpoint_is_a_transformers_folder_at_each_step_asked_for(
    finished: dict[str, TrainJob], kind: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = finished[kind]
    assert checkpoint_steps(job.checkpoints_dir) == (4, 8)
    folder = job.checkpoints_dir / "8"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.chat_template
    assert not (job.checkpoints_dir / ".partial").exists()
    assert sorted(rows_of(job)) == list(range(1, 9))


@pytest.mark.parametrize("name", ["config.json", "state.json", "model.safetensors"])
def test_a_checkpoint_without_one_of_its_files_is_not_whole(
    finished: dict[str, TrainJob], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "8"
    shutil.copytree(finished["sft"].checkpoints_dir / "8", folder)
    assert is_whole(folder)
    (folder / name).unlink()
    assert not is_whole(folder)


def test_scored_checkpoints_are_pruned(finished: dict[str, TrainJob], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(finished["sft"].checkpoints_dir, folder)
    assert prune(folder, keep="last", scored={4, 8}, final_step=8) == (4,)
    assert checkpoint_steps(folder) == (8,)


def test_recovery_checkpoints_are_replaced(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    job = make_row_job(tmp_path / "run", stores, base, recovery_interval_steps=3)
    assert trained(job).checkpoints == (8,)
    saved = [
        r["step"]
        for r in read_json_lines(job.directory / "events.jsonl")
        if r["kind"] == "checkpoint"
    ]
    assert saved == [3, 6, 8]


# -------------------------------------------------------------------------------------- start


def test_a_model_gets_rows_for_the_markers_and_keeps_the_others(
    finished: dict[str, TrainJob], base: Path
) -> None:
    from safetensors.torch import load_file

    name = "model.embed_tokens.weight"
    before = load_file(base / "model.safetensors")[name]
    after = load_file(finished["sft"].directory / "start/model.safetensors")[name]
    assert after.shape[0] == before.shape[0] + 2
    assert after[:-2].equal(before)
    spread = (after[-2:] - before.mean(dim=0)) / before.std(dim=0)
    assert 0.5 < float(spread.std()) < 1.5
    other = load_file(finished["dpo"].directory / "start/model.safetensors")[name]
    assert after.equal(other)  # the same seed


def test_a_model_with_the_markers_is_taken_as_it_is(
    finished: dict[str, TrainJob], stores: dict[str, Path], tmp_path: Path
) -> None:
    sft = finished["sft"].checkpoints_dir / "8"
    job = make_row_job(tmp_path / "run", stores, sft, weights=PAIRS, method=DPO, steps=4)
    assert trained(job).status == "done"
    assert not (job.directory / "start").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"start_model": None}, "begins from a trained model"),
        ({"start_model": "/nowhere/model"}, "no model there"),
        ({"model": replace(TINY_CHAT_MODEL, hidden_size=64)}, "differs from the model"),
        ({"execution": ExecutionSpec(device="cpu", tp=2)}, "divides the batch alone"),
    ],
)
def test_a_job_that_cannot_begin_is_refused(
    stores: dict[str, Path], base: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    job = replace(make_row_job(tmp_path / "run", stores, base), **change)
    with pytest.raises((ConfigError, CheckpointError), match=problem):
        trained(job)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"weights": PAIRS}, "trains on conversations"),
        ({"method": DPO}, "trains on preferences"),
        ({"sequence_length": 40}, "shorter than the longest row"),
    ],
)
def test_rows_that_do_not_fit_the_method_are_refused(
    stores: dict[str, Path], base: Path, tmp_path: Path, values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        trained(make_row_job(tmp_path / "run", stores, base, **values))


def test_a_model_of_another_tokenizer_is_refused(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "spec.json").write_text(json.dumps({"hash": "0" * 64}))
    with pytest.raises(CheckpointError, match="nor derived from it"):
        trained(make_row_job(tmp_path / "run", stores, other))


def test_a_run_that_diverges_says_so(stores: dict[str, Path], base: Path, tmp_path: Path) -> None:
    job = make_row_job(tmp_path / "run", stores, base, peak_lr=1e30, clip_norm=None)
    outcome = trained(job)
    assert outcome.status == "failed"
    events = {row["kind"]: row for row in read_json_lines(job.directory / "events.jsonl")}
    assert "diverged" in events
    assert outcome.reason == events["diverged"]["reason"]


# ---------------------------------------------------------------------------------------- DPO


def test_a_round_begins_at_its_reference_and_records_its_margins(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    method = MethodSpec(kind="dpo", rounds=2)
    job = make_row_job(tmp_path / "run", stores, base, weights=PAIRS, method=method)
    assert trained(job).checkpoints == (4, 8)
    rows = rows_of(job)
    for first in (1, 5):  # policy and reference are one model there
        assert rows[first]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert rows[first]["reward_margin"] == pytest.approx(0.0, abs=1e-3)
    assert abs(rows[4]["reward_margin"]) > 1e-3
    assert rows[1]["lr"] == pytest.approx(rows[5]["lr"])
    resumed = copied(job, tmp_path / "resumed", steps=4)
    assert trained(resumed).status == "done"
    assert weights_of(resumed) == weights_of(job)


def test_the_reference_is_computed_once(finished: dict[str, TrainJob], tmp_path: Path) -> None:
    stopped = copied(finished["dpo"], tmp_path / "stopped", steps=4)
    made = (stopped.directory / "reference_0.npy").stat().st_mtime_ns
    assert trained(stopped).status == "done"
    assert (stopped.directory / "reference_0.npy").stat().st_mtime_ns == made


def test_a_damaged_reference_is_computed_again(
    finished: dict[str, TrainJob], tmp_path: Path
) -> None:
    stopped = copied(finished["dpo"], tmp_path / "stopped", steps=4)
    file = stopped.directory / "reference_0.npy"
    file.write_bytes(file.read_bytes()[:-4])
    assert trained(stopped).status == "done"
    assert weights_of(stopped) == weights_of(finished["dpo"])
    assert read_json(file.with_suffix(".json"))["identity"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"kind": "sft", "beta": 0.5}, "no meaning for method=sft"),
        ({"kind": "pretrain", "unit": "tokens"}, "no meaning for method=pretrain"),
        ({"kind": "dpo", "loss": "answers"}, "no meaning for method=dpo"),
        ({"kind": "dpo", "beta": 0.0}, "above zero"),
        ({"kind": "dpo", "rounds": 0}, "too few"),
    ],
)
def test_a_method_refuses_what_is_not_its(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        MethodSpec(**values)


def test_rounds_divide_the_steps(stores: dict[str, Path], base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not divide the steps"):
        make_row_job(
            tmp_path / "run", stores, base, weights=PAIRS, method=MethodSpec(kind="dpo", rounds=3)
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_two_ranks_read_what_one_reads(
    finished: dict[str, TrainJob], tmp_path: Path, kind: str
) -> None:
    job = replace(finished[kind], directory=tmp_path / "two")
    job.directory.mkdir()
    job = replace(job, execution=ExecutionSpec(device="cpu", threads=1, dp=2))
    outcome = trained(job)
    assert outcome.status == "done", outcome.reason
    alone = trained(finished[kind])
    assert outcome.windows == alone.windows
    assert outcome.supervised == alone.supervised
    for step, row in rows_of(finished[kind]).items():
        assert rows_of(job)[step]["loss"] == pytest.approx(row["loss"], rel=2e-3)
