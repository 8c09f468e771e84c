"""One rank on a CPU: the adapter compared with a plain loop, and with interruptions."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.errors import CheckpointError, ConfigError, DataError
from ablations.training.checkpoints import PARTIAL, checkpoint_steps, read_state
from ablations.training.nanotron import nanotron_trainer
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.train_job import StepRow, TrainJob, TrainOutcome, WarmStart
from tests.oracles import dying
from tests.oracles.jobs import (
    TINY,
    kinds_of,
    losses_of,
    make_job,
    rows_of,
    steps_of,
    with_execution,
)
from tests.oracles.plain import plain_losses
from tests.oracles.stores import EOS

torch.set_num_threads(1)


def train(job: TrainJob) -> TrainOutcome:
    return NanotronTrainer().train(job)


def plain(job: TrainJob, eos: int | None = None) -> list[float]:
    return list(plain_losses(job, (torch.from_numpy(tokens) for tokens in steps_of(job)), eos))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> TrainJob:
    """Train a run of 12 steps with checkpoints at 4, 8 and 12."""
    job = make_job(tmp_path_factory.mktemp("finished"), stores, steps=12, checkpoint_steps=(4, 8))
    assert train(job).status == "done"
    return job


# -------------------------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize(
    ("training", "execution", "model"),
    [
        pytest.param({}, {}, {}, id="one pass"),
        pytest.param({}, {"micro_batch_size": 2}, {}, id="four passes"),
        pytest.param({}, {"recompute": True}, {}, id="recomputed"),
        pytest.param({}, {"loss_chunk_tokens": 24}, {}, id="loss in chunks"),
        pytest.param({"clip_norm": None}, {}, {}, id="not clipped"),
        pytest.param({"intra_document_masking": True}, {}, {}, id="masked by documents"),
        pytest.param({}, {}, {"tie_word_embeddings": False}, id="head not tied"),
        pytest.param({}, {}, {"num_key_value_heads": 4, "rope_theta": 500.0}, id="no groups"),
    ],
)
def test_losses_are_those_of_the_plain_loop(
    tmp_path: Path,
    stores: dict[str, Path],
    training: dict[str, Any],
    execution: dict[str, Any],
    model: dict[str, Any],
) -> None:
    job = make_job(
        tmp_path, stores, steps=20, peak_lr=3e-3, model=replace(TINY, **model), **training
    )
    job = with_execution(job, **execution)
    assert train(job).status == "done"
    eos = EOS if training.get("intra_document_masking") else None
    assert losses_of(job) == pytest.approx(plain(job, eos), rel=1e-6)


def test_masking_changes_the_losses(finished: TrainJob) -> None:
    masked = plain(finished, EOS)
    assert max(abs(a - b) for a, b in zip(masked, losses_of(finished), strict=True)) > 1e-3


@pytest.mark.parametrize("in_fp32", [True, False])
def test_bfloat16_stays_near_float32(
    tmp_path: Path, stores: dict[str, Path], in_fp32: bool
) -> None:
    job = make_job(
        tmp_path, stores, steps=30, peak_lr=3e-3, dtype="bfloat16", accumulate_grad_in_fp32=in_fp32
    )
    job = with_execution(job, micro_batch_size=2)
    assert train(job).status == "done"
    assert losses_of(job) == pytest.approx(plain(job), rel=0.01)


def test_rows_contain_tokens_rate_and_norm_of_each_step(finished: TrainJob) -> None:
    rows = rows_of(finished)
    assert sorted(rows) == list(range(1, 13))
    for step, row in rows.items():
        assert row.tokens == step * 8 * 16
        assert row.lr == finished.learning_rate.at(step - 1)
        assert row.grad_norm > 0
        assert row.seconds > 0


def test_a_watcher_sees_every_row_in_order(tmp_path: Path, stores: dict[str, Path]) -> None:
    seen: list[StepRow] = []
    job = make_job(tmp_path, stores)
    NanotronTrainer().train(job, seen.append)
    assert seen == [row for _, row in sorted(rows_of(job).items())]


def test_the_outcome_counts_the_windows_that_were_read(finished: TrainJob) -> None:
    state = read_state(finished.checkpoints_dir / "12")
    assert state is not None
    assert state.windows == ((36, 12), (12, 36))
    assert NanotronTrainer().train(finished).windows == state.windows


# --------------------------------------------------------------------------------- checkpoints


def test_checkpoints_are_at_the_steps_asked_for_and_at_the_end(finished: TrainJob) -> None:
    assert checkpoint_steps(finished.checkpoints_dir) == (4, 8, 12)
    assert kinds_of(finished) == ["start", "checkpoint", "checkpoint", "checkpoint"]


def test_a_finished_job_is_not_trained_again(finished: TrainJob) -> None:
    before = (finished.directory / "metrics.jsonl").read_bytes()
    assert train(finished).status == "done"
    assert (finished.directory / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("last", [4, 8])
def test_a_resumed_run_is_bit_identical(
    tmp_path: Path, stores: dict[str, Path], finished: TrainJob, last: int
) -> None:
    job = make_job(tmp_path, stores, steps=12, checkpoint_steps=(4, 8))
    assert train(job).status == "done"
    for step in (8, 12):
        if step > last:
            (job.checkpoints_dir / str(step) / "model_config.json").unlink()  # torn
    rows = (job.directory / "metrics.jsonl").read_text().splitlines()
    (job.directory / "metrics.jsonl").write_text("\n".join(rows[: last + 2]) + '\n{"step": 9')
    outcome = train(job)
    assert outcome.status == "done"
    assert "resume" in kinds_of(job)
    assert losses_of(job) == losses_of(finished)
    assert outcome.windows == ((36, 12), (12, 36))
    assert _weights(job, 12).keys() == _weights(finished, 12).keys()
    for name, tensor in _weights(job, 12).items():
        assert torch.equal(tensor, _weights(finished, 12)[name]), name


@pytest.mark.parametrize(
    "moments",
    [
        [("row", 1), ("row", 3), ("save", 4), ("row", 6)],
        [("save", 4), ("row", 7), ("save", 8), ("row", 11), ("save", 12)],
    ],
    ids=["early", "late"],
)
def test_kills_at_any_moment_change_nothing(
    tmp_path: Path,
    stores: dict[str, Path],
    finished: TrainJob,
    monkeypatch: pytest.MonkeyPatch,
    moments: list[tuple[str, int]],
) -> None:
    job = make_job(tmp_path, stores, steps=12, checkpoint_steps=(4, 8))
    with monkeypatch.context() as patch:
        patch.setattr(nanotron_trainer, "_WORKER", dying.__name__)
        for moment in moments:
            (job.directory / dying.MOMENT).write_text(json.dumps(moment))
            assert "SIGKILL" in (train(job).reason or "")
    outcome = train(job)
    assert outcome.status == "done"
    assert losses_of(job) == losses_of(finished)
    assert outcome.windows == ((36, 12), (12, 36))
    assert checkpoint_steps(job.checkpoints_dir) == (4, 8, 12)
    assert not (job.checkpoints_dir / PARTIAL).exists()


def test_the_state_of_the_schedule_is_that_of_the_step(finished: TrainJob) -> None:
    for step in (4, 8, 12):
        (file,) = (finished.checkpoints_dir / str(step) / "lr_scheduler").iterdir()
        assert torch.load(file, weights_only=True)["last_epoch"] == step


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_note(
    tmp_path: Path, stores: dict[str, Path], finished: TrainJob
) -> None:
    job = make_job(tmp_path, stores, steps=12, checkpoint_steps=(4, 8))
    shutil.copytree(finished.directory, job.directory, dirs_exist_ok=True)
    (optimizer,) = (job.checkpoints_dir / "12" / "optimizer").glob("*.pt")
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    assert train(job).status == "done"
    assert kinds_of(job)[-3:] == ["damaged", "resume", "checkpoint"]
    assert losses_of(job) == losses_of(finished)
    for name, tensor in _weights(job, 12).items():
        assert torch.equal(tensor, _weights(finished, 12)[name]), name


def test_recovery_checkpoints_are_replaced_by_the_next(
    tmp_path: Path, stores: dict[str, Path], finished: TrainJob
) -> None:
    job = make_job(tmp_path, stores, steps=12, checkpoint_steps=(6,), recovery_interval_steps=4)
    assert train(job).status == "done"
    assert kinds_of(job) == ["start", *["checkpoint"] * 4]  # 4, 6, 8 and 12
    assert checkpoint_steps(job.checkpoints_dir) == (6, 12)
    assert losses_of(job) == losses_of(finished)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"execution": {"tp": 2}}, "execution.tp"),
        ({"execution": {"dp": 2, "zero_stage": 1}}, "execution.zero_stage"),
        ({"model": {"num_hidden_layers": 3}}, "model.num_hidden_layers"),
        ({"training": {"dtype": "bfloat16"}}, "training.dtype"),
    ],
)
def test_a_run_is_not_resumed_as_another(
    finished: TrainJob, change: dict[str, dict[str, Any]], where: str
) -> None:
    values = {name: replace(getattr(finished, name), **new) for name, new in change.items()}
    longer = replace(finished, **values)
    with pytest.raises(CheckpointError) as caught:
        train(longer)
    assert where in [problem.where for problem in caught.value.problems]


def test_a_store_that_was_cut_is_refused_by_name(tmp_path: Path, stores: dict[str, Path]) -> None:
    broken = {name: tmp_path / name for name in stores}
    for name, folder in stores.items():
        shutil.copytree(folder, broken[name])
    file = next((broken["code"] / "train").glob("*.ds"))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(DataError, match=file.name):
        train(make_job(tmp_path / "run", broken))


def test_a_batch_that_does_not_divide_is_refused_before_a_worker_starts(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match="micro_batch_size"):
        train(with_execution(make_job(tmp_path, stores), micro_batch_size=3))
    assert not (tmp_path / "worker.log").exists()


def test_cuda_that_is_not_there_is_refused(tmp_path: Path, stores: dict[str, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(ConfigError, match=r"execution\.device"):
        train(with_execution(make_job(tmp_path, stores), device="cuda"))


# ----------------------------------------------------------------------------------- divergence


def test_a_diverged_run_fails_with_its_step(tmp_path: Path, stores: dict[str, Path]) -> None:
    job = make_job(tmp_path, stores, steps=40, peak_lr=1e3, diverged_patience_steps=3)
    outcome = train(job)
    assert outcome.status == "failed"
    assert outcome.reason
    assert outcome.reason.startswith("loss ")
    assert outcome.last_step == max(rows_of(job))
    assert kinds_of(job)[-1] == "diverged"
    assert outcome.last_step < 40


def test_a_loss_that_is_not_a_number_is_null_in_the_metrics() -> None:
    row = StepRow(
        step=1,
        tokens=1,
        loss=math.nan,
        lr=1.0,
        grad_norm=math.inf,
        tokens_per_second=1.0,
        seconds=1.0,
    )
    stored = json.loads(json.dumps(row.to_json(), allow_nan=False))
    assert stored["loss"] is None
    assert math.isnan(StepRow.from_json(stored).loss)


# ----------------------------------------------------------------------------------- warm starts


def test_a_warm_start_with_optimiser_goes_on_as_the_run_did(
    tmp_path: Path, stores: dict[str, Path], finished: TrainJob
) -> None:
    warm = WarmStart(checkpoint=finished.checkpoints_dir / "8", load_optimizer=True, first_step=8)
    job = replace(make_job(tmp_path, stores, steps=12, checkpoint_steps=(12,)), warm_start=warm)
    outcome = train(job)
    assert outcome.status == "done"
    assert losses_of(job) == losses_of(finished)[8:]
    assert outcome.windows == ((0, 0), (8, 24))
    assert any((warm.checkpoint / "referenced_by").iterdir())


def test_a_warm_start_without_optimiser_takes_the_weights_alone(
    tmp_path: Path, stores: dict[str, Path], finished: TrainJob
) -> None:
    warm = WarmStart(checkpoint=finished.checkpoints_dir / "8", load_optimizer=False, first_step=8)
    job = replace(make_job(tmp_path, stores, steps=12, checkpoint_steps=(12,)), warm_start=warm)
    assert train(job).status == "done"
    expected = losses_of(finished)[8:]
    assert losses_of(job)[0] == expected[0]
    assert losses_of(job)[1:] != expected[1:]
    assert rows_of(job)[9].lr == finished.learning_rate.at(8)


def test_a_warm_start_may_begin_a_new_schedule(
    tmp_path: Path, stores: dict[str, Path], finished: TrainJob
) -> None:
    warm = WarmStart(checkpoint=finished.checkpoints_dir / "12", load_optimizer=True, first_step=0)
    job = replace(make_job(tmp_path, stores, steps=4), warm_start=warm)
    assert train(job).last_step == 4
    assert losses_of(job)[0] < losses_of(finished)[0]


def test_a_warm_start_from_nothing_is_refused(tmp_path: Path, stores: dict[str, Path]) -> None:
    warm = WarmStart(checkpoint=tmp_path / "7", load_optimizer=True, first_step=0)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        train(replace(make_job(tmp_path / "run", stores), warm_start=warm))


def _weights(job: TrainJob, step: int) -> dict[str, torch.Tensor]:
    from ablations.training.export import read_weights

    return read_weights(job.checkpoints_dir / str(step))


@pytest.mark.slow
@pytest.mark.parametrize("masking", [False, True])
def test_a_compiled_layer_trains_to_the_same_losses(
    tmp_path: Path, stores: dict[str, Path], masking: bool
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on CPU")
    job = make_job(tmp_path, stores, steps=6, peak_lr=3e-3, intra_document_masking=masking)
    assert train(with_execution(job, compile=True)).status == "done"
    assert losses_of(job) == pytest.approx(plain(job, EOS if masking else None), rel=1e-6)
