"""Passes over static buffers: what a CUDA graph replays, without the recording where there is no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.files import read_json_lines
from ablations.training.graphs import StaticPass, why_no_graph
from ablations.training.nanotron.trainer import NanotronTrainer, prepare
from ablations.training.specs import ExecutionSpec, TrainingSpec
from ablations.training.together.trainer import train_together
from ablations.training.trainer import TrainJob
from ablations.training.worker import Task, run_in_worker
from tests.oracles.jobs import losses_of, make_job, with_execution


def test_gradients_add_up_in_buffers_that_stay() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, requires_grad=True)
    batches = torch.randn(3, 5, 4)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x @ weight).square().mean()

    static = StaticPass(loss, [batches[0]], [weight], record=False)
    kept = static.grads[0].data_ptr()
    for _ in range(2):
        losses = [float(static(batch)) for batch in batches]
        assert losses == [float(loss(batch).detach()) for batch in batches]
        (expected,) = torch.autograd.grad(sum(loss(batch) for batch in batches), [weight])  # type: ignore[arg-type]
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected)
        assert weight.grad.data_ptr() == kept
        weight.grad = None
        static.zero_grads()
        assert not weight.grad.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_pass_is_the_pass_itself() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64, device="cuda", requires_grad=True)
    batches = torch.randn(4, 32, 64, device="cuda")

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x @ weight).square().mean()

    recorded = StaticPass(loss, [batches[0]], [weight])
    for batch in batches:
        torch.testing.assert_close(recorded(batch), loss(batch))
    (expected,) = torch.autograd.grad(sum(loss(batch) for batch in batches), [weight])  # type: ignore[arg-type]
    torch.testing.assert_close(recorded.grads[0], expected)


@pytest.mark.parametrize(
    ("execution", "training", "device", "reason"),
    [
        ({}, {}, "cpu", "no CUDA device"),
        ({"dp": 2}, {}, "cuda", "several ranks"),
        ({}, {"intra_document_masking": True}, "cuda", "a mask of its own"),
        ({}, {}, "cuda", None),
    ],
)
def test_what_cannot_be_recorded_says_why(
    execution: dict[str, Any], training: dict[str, Any], device: str, reason: str | None
) -> None:
    spec = TrainingSpec(sequence_length=16, batch_size=8, peak_lr=1e-2, **training)
    said = why_no_graph(ExecutionSpec(**execution), spec, torch.device(device))
    assert said == reason if reason is None else reason in (said or "")


def test_a_cpu_run_goes_without_and_its_events_say_so(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    job = with_execution(make_job(tmp_path, stores, steps=4), cuda_graph=True)
    assert NanotronTrainer().train(job).status == "done"
    first = next(iter(read_json_lines(tmp_path / "events.jsonl")))
    assert first["cuda_graph"] == "not used: there is no CUDA device"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_rank_over_static_buffers_has_the_losses_it_has_without(
    tmp_path: Path, stores: dict[str, Path], dtype: str
) -> None:
    def job(name: str, **execution: Any) -> TrainJob:
        made = make_job(tmp_path / name, stores, steps=6, dtype=dtype)
        return with_execution(made, micro_batch_size=2, **execution)

    plain, static = job("plain"), job("static", cuda_graph=True)
    assert NanotronTrainer().train(plain).status == "done"
    run("train_rank", (static, prepare(static)), tmp_path)
    assert losses_of(static) == pytest.approx(losses_of(plain), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_group_over_static_buffers_has_the_losses_it_has_without(
    tmp_path: Path, stores: dict[str, Path], dtype: str
) -> None:
    def jobs(name: str, **execution: Any) -> list[TrainJob]:
        made = [
            make_job(tmp_path / name / str(seed), stores, steps=6, seed=seed, dtype=dtype)
            for seed in (1, 2)
        ]
        return [with_execution(each, micro_batch_size=2, **execution) for each in made]

    plain, static = jobs("plain"), jobs("static", cuda_graph=True)
    train_together(plain)
    run("train_group", (static, [prepare(job) for job in static]), tmp_path)
    for one, other in zip(static, plain, strict=True):
        assert losses_of(one) == pytest.approx(losses_of(other), rel=1e-6)


def run(function: str, argument: Any, folder: Path) -> None:
    log = folder / "worker.log"
    task = Task(module="tests.oracles.recorded", function=function, argument=argument, log=log)
    result = run_in_worker(task)
    assert result.error is None, log.read_text()[-2000:]
    assert result.died is None, log.read_text()[-2000:]
