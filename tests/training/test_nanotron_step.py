"""Compare an optimiser step of one rank with torch's own, and see what several ranks share, on stand-ins."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ablations.training.nanotron import optimizer_step as module
from ablations.training.nanotron.optimizer_step import Stepper


class Network(torch.nn.Module):
    """A layer that is trained, one that no batch reaches, and one that stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used, self.unused = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
        self.frozen = torch.nn.Linear(2, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.frozen(self.used(x)).square().mean()}

    def get_named_params_with_correct_tied(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return self.named_parameters()


class Divided(DistributedDataParallel):
    """Stand in for a network where its class alone is looked at."""

    def __init__(self, log: list[str]) -> None:
        vars(self)["reducer"] = SimpleNamespace(_rebuild_buckets=lambda: log.append("buckets"))


class Engine(SimpleNamespace):
    """A pipeline's engine: takes every batch, and has the losses of the last stage."""

    log: list[str]

    def train_batch_iter(self, *, batch: Any, nb_microbatches: int, **values: Any) -> Any:
        taken = len(list(batch))
        self.log.append(f"pipeline of {nb_microbatches}, {taken} taken, {sorted(values)}")
        return [{"loss": torch.tensor(0.75)}, {"loss": "elsewhere"}, {"loss": torch.tensor(0.5)}]


class Accumulator:
    """Sums gradients in its own buffers, as nanotron's does in float32."""

    def __init__(self, network: Network, log: list[str]) -> None:
        self.log, self.network = log, network
        self.fp32_grad_buffers: dict[str, dict[str, torch.Tensor]] = {}
        self.fp32_grads_allreduce_handle = SimpleNamespace(wait=lambda: log.append("waited"))

    def backward(self, loss: torch.Tensor) -> None:
        self.log.append("accumulated")
        loss.backward()  # type: ignore[no-untyped-call]
        grad = self.network.used.weight.grad
        assert grad is not None
        self.fp32_grad_buffers["used.weight"] = {"fp32_grad": grad}

    def step(self) -> None:
        self.log.append("weights copied")

    def zero_grad(self) -> None:
        self.log.append("buffers emptied")


def group(size: int) -> Any:
    return SimpleNamespace(size=lambda: size)


def trainer_of(
    log: list[str],
    *,
    world: int = 1,
    dp: int = 1,
    pp: int = 1,
    clip: float | None = 1.0,
    passes: int = 2,
    divided: bool = False,
    accumulates: bool = False,
) -> Any:
    network = Network()
    base = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=7.0)
    context = SimpleNamespace(
        world_pg=group(world), dp_pg=group(dp), mp_pg=group(world // dp), pp_pg=group(pp)
    )
    optimizer = SimpleNamespace(
        get_base_optimizer=lambda: base,
        step=lambda: log.append("optimiser stepped"),
        zero_grad=lambda: log.append("gradients dropped"),
    )
    return SimpleNamespace(
        parallel_context=context,
        device="cpu",
        unwrapped_model=network,
        model=Divided(log) if divided else network,
        optimizer=optimizer,
        grad_accumulator=Accumulator(network, log) if accumulates else None,
        lr_scheduler=SimpleNamespace(last_epoch=3),
        job=SimpleNamespace(training=SimpleNamespace(clip_norm=clip)),
        n_micro_batches_per_batch=passes,
        pipeline_engine=Engine(log=log),
        config=SimpleNamespace(parallelism=SimpleNamespace(pp_engine=Engine(log=log))),
    )


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(4, 3, generator=random)} for _ in range(count)]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what is shared over ranks; there are none."""
    found: list[str] = []

    def recorded(name: str) -> Any:
        def call(**values: Any) -> torch.Tensor:
            told = {key: values[key] for key in ("max_norm", "reduce_scatter") if key in values}
            named = [name for name, _ in values.get("named_parameters", [])]
            found.append(" ".join([name, *(f"{key}={one}" for key, one in told.items()), *named]))
            return torch.tensor(2.5)

        return call

    for name in ("sync_gradients_across_dp", "sync_tied_weights_gradients", "clip_grad_norm"):
        monkeypatch.setattr(module._trainer, name, recorded(name))

    def summed(total: torch.Tensor, group: Any) -> None:
        found.append(f"summed over {group.size()}")
        total *= group.size() + 1

    monkeypatch.setattr(torch.distributed, "all_reduce", summed)
    return found


# ------------------------------------------------------------------------------------------- one rank


@pytest.mark.parametrize(
    "clip",
    [None, 100.0, 0.1],
    ids=["not clipped", "below the norm", "clipped"],
)
@pytest.mark.parametrize("passes", [1, 3])
def test_steps_of_one_rank_are_those_of_torch(
    log: list[str], clip: float | None, passes: int
) -> None:
    trainer = trainer_of(log, clip=clip, passes=passes)
    plain = copy.deepcopy(trainer.unwrapped_model)
    trained = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0)
    stepper = Stepper(trainer)
    assert torch.isnan(stepper.grad_norm)
    data = batches(3 * passes)
    coming = iter(data)
    for turn, lr in enumerate((0.1, 0.02, 0.3)):
        found = stepper.step(coming, lr)
        own = data[turn * passes : (turn + 1) * passes]
        loss = torch.stack([plain(**batch)["loss"] for batch in own]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(trained, clip)
            torch.testing.assert_close(stepper.grad_norm, norm)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()
        assert found is not None
        assert not found.requires_grad
        torch.testing.assert_close(found, loss.detach())
        assert all(p.grad is None for p in trainer.unwrapped_model.parameters())
        for one, other in zip(
            trainer.unwrapped_model.parameters(), plain.parameters(), strict=True
        ):
            torch.testing.assert_close(one, other)
    assert trainer.lr_scheduler.last_epoch == 6
    assert torch.isnan(stepper.grad_norm) == (clip is None)
    assert next(coming, None) is None
    assert log == []


class Elsewhere(torch.Tensor):
    """A number on a GPU, which is not to be read."""

    device = SimpleNamespace(type="cuda")  # type: ignore[assignment]

    def __float__(self) -> float:
        raise AssertionError("reading a number of a GPU waits for it")


@pytest.mark.parametrize(
    ("gpu", "limit", "factor", "passes"),
    [
        (False, 2.5, 0.5, 1),
        (False, 3.5, 0.7, 1),
        (False, 5.1, 1.0, 0),
        (False, 20.0, 1.0, 0),
        (True, 2.5, 0.5, 1),
        (True, 20.0, 1.0, 1),
    ],
)
def test_gradients_are_scaled_by_one_pass_or_none(
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    limit: float,
    factor: float,
    passes: int,
) -> None:
    stepper = Stepper(trainer_of(log))
    network = stepper.trainer.unwrapped_model
    network.used.weight.grad = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    network.used.bias.grad = torch.tensor([0.0, -4.0])
    scale, norm_of = torch._foreach_mul_, torch.linalg.vector_norm
    scaled: list[int] = []

    def counted(grads: Any, by: Any) -> None:
        scaled.append(len(grads))
        scale(grads, by.as_subclass(torch.Tensor))

    monkeypatch.setattr(torch, "_foreach_mul_", counted)
    if gpu:
        monkeypatch.setattr(
            torch.linalg, "vector_norm", lambda norms: norm_of(norms).as_subclass(Elsewhere)
        )
    stepper._clip(limit)
    assert stepper.grad_norm.as_subclass(torch.Tensor).item() == pytest.approx(5.0)
    torch.testing.assert_close(network.used.bias.grad, torch.tensor([0.0, -4.0 * factor]))
    assert network.used.weight.grad[0, 0].item() == pytest.approx(3.0 * factor)
    assert scaled == [2] * passes


def test_a_tiny_norm_is_clipped_with_the_constant_of_torch(log: list[str]) -> None:
    stepper = Stepper(trainer_of(log))
    network = stepper.trainer.unwrapped_model
    network.used.bias.grad = torch.tensor([3e-6, -4e-6])
    stepper._clip(3e-6)  # 3 / (5 + 1) of it
    torch.testing.assert_close(
        network.used.bias.grad, torch.tensor([1.5e-6, -2e-6]), rtol=1e-4, atol=0
    )


def test_one_rank_clips_and_steps_what_its_accumulator_holds(log: list[str]) -> None:
    trainer = trainer_of(log, clip=1e-4, accumulates=True)
    before = copy.deepcopy(trainer.unwrapped_model.state_dict())
    stepper = Stepper(trainer)
    stepper._passes(iter(batches(2)))
    (entry,) = trainer.grad_accumulator.fp32_grad_buffers.values()
    norm = entry["fp32_grad"].norm()
    bias = trainer.unwrapped_model.used.bias.grad.clone()
    stepper._clip(1e-4)
    torch.testing.assert_close(stepper.grad_norm, norm)
    assert entry["fp32_grad"].norm().item() == pytest.approx(1e-4, rel=0.05)
    assert torch.equal(trainer.unwrapped_model.used.bias.grad, bias)
    stepper.step(iter(batches(2)), 0.1)
    assert log == ["accumulated"] * 4 + ["weights copied", "buffers emptied"]
    after = trainer.unwrapped_model.state_dict()
    assert not torch.equal(after["used.weight"], before["used.weight"])
    assert all(p.grad is None for p in trainer.unwrapped_model.parameters())


# --------------------------------------------------------------------------------------- several ranks

CLIPPED = "clip_grad_norm max_norm=1.0 used.weight used.bias unused.weight unused.bias"
SYNCED = "sync_gradients_across_dp reduce_scatter=False"
TIED = "sync_tied_weights_gradients"
DONE = ["optimiser stepped", "gradients dropped"]
PASSED = (
    "pipeline of 2, 2 taken, ['grad_accumulator', 'model', 'pg']"  # each rank takes every batch
)


@pytest.mark.parametrize(
    ("layout", "expected", "loss"),
    [
        ({"world": 2, "dp": 2}, [SYNCED, TIED, CLIPPED, "summed over 2", *DONE], 1.5),
        ({"world": 3, "dp": 3}, [SYNCED, TIED, CLIPPED, "summed over 3", *DONE], 4 / 3),
        ({"world": 2}, [TIED, CLIPPED, *DONE], 1.0),
        ({"world": 2, "pp": 2}, [PASSED, TIED, CLIPPED, *DONE], None),
        (
            {"world": 4, "pp": 2, "dp": 2},
            [PASSED, SYNCED, TIED, CLIPPED, "summed over 2", *DONE],
            None,
        ),
        (
            {"world": 2, "dp": 2, "divided": True},
            [PASSED, TIED, CLIPPED, "summed over 2", *DONE],
            None,
        ),
        (
            {"world": 2, "dp": 2, "divided": True, "accumulates": True},
            [PASSED, "waited", TIED, CLIPPED, "summed over 2", *DONE],
            None,
        ),
        ({"world": 2, "dp": 2, "clip": None}, [SYNCED, TIED, "summed over 2", *DONE], 1.5),
    ],
)
def test_several_ranks_share_gradients_norm_and_loss(
    log: list[str], layout: dict[str, Any], expected: list[str], loss: float | None
) -> None:
    """``loss``: as a share of the rank's own; of a pipeline, it is that of the last stage's outputs."""
    trainer = trainer_of(log, **layout)
    own = torch.stack([trainer.unwrapped_model(**batch)["loss"] for batch in batches(2)]).mean()
    stepper = Stepper(trainer)
    found = stepper.step(iter(batches(2)), 0.1)
    assert log == expected
    assert found is not None
    share = 1.5 if layout.get("dp") == 2 else 1.0
    told = 1.25 * share if loss is None else loss * own.item()
    assert found.item() == pytest.approx(told)
    assert trainer.lr_scheduler.last_epoch == 4
    assert stepper._base_optimizer.param_groups[0]["lr"] == 0.1
    assert torch.isnan(stepper.grad_norm) == (CLIPPED not in expected)
    # The stand-in of the optimiser changed nothing, and no other did.
    fresh = Network().state_dict()
    for name, tensor in trainer.unwrapped_model.state_dict().items():
        assert torch.equal(tensor, fresh[name])


def test_a_rank_without_the_last_stage_has_no_loss(log: list[str]) -> None:
    stepper = Stepper(trainer_of(log, world=4, dp=2, pp=2))
    assert stepper._mean([]) is None
    assert log == []


@pytest.mark.parametrize("dp", [2, 3])
@pytest.mark.parametrize("accumulates", [False, True])
def test_buckets_are_settled_by_one_blank_pass(log: list[str], dp: int, accumulates: bool) -> None:
    trainer = trainer_of(log, world=dp, dp=dp, divided=True, accumulates=accumulates)
    Stepper(trainer).settle_buckets(lambda: {"x": torch.zeros(4, 3)})
    blank = "pipeline of 1, 1 taken, ['grad_accumulator', 'model', 'pg']"
    waited = ["waited"] if accumulates else []
    assert log == [blank, *waited, "gradients dropped", "buckets"]
    assert trainer.config.parallelism.pp_engine.nb_microbatches == 1


@pytest.mark.parametrize("layout", [{"world": 2, "divided": True}, {"world": 2, "dp": 2}, {}])
def test_without_buckets_nothing_is_settled(log: list[str], layout: dict[str, Any]) -> None:
    Stepper(trainer_of(log, **layout)).settle_buckets(lambda: {"x": torch.zeros(4, 3)})
    assert log == []
