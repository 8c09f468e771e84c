"""Compare the backward passes that are written out with autograd's, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ablations.training import bfloat16_on_cpu
from ablations.training.nanotron.decoder import RMSNorm
from ablations.training.packing import Positions, rotary_tables

Call = Callable[..., Tensor]


def random(*shape: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw).bfloat16()


def gradients(call: Call, *inputs: Tensor, double: bool = False) -> list[Tensor]:
    """Return the output, and the gradient of each input for one fixed gradient of the output."""
    leaves = [one.double() if double else one.clone() for one in inputs]
    leaves = [one.requires_grad_() for one in leaves]
    out = call(*leaves)
    torch.autograd.backward(out, random(*out.shape, seed=9).to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_rounded(ours: list[Tensor], exact: list[Tensor], spread: float = 2.0**-8) -> None:
    """Check that each number is the exact one, rounded to bfloat16 once (2^-9 of it) or little more."""
    assert len(ours) == len(exact)
    for one, other in zip(ours, exact, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, rtol=spread, atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 5, 16), (3, 8)])
def test_a_norm_and_its_gradients_are_those_of_double_precision(shape: tuple[int, ...]) -> None:
    x, weight = random(*shape, seed=1), random(shape[-1], seed=2)
    exact = gradients(lambda x, w: F.rms_norm(x, w.shape, w, 0.25), x, weight, double=True)
    ours = gradients(lambda x, w: bfloat16_on_cpu.rms_norm(x, w, 0.25), x, weight)
    assert [one.dtype for one in ours] == [torch.bfloat16] * 3
    assert_rounded(ours, exact)


@pytest.mark.parametrize("per_row", [False, True], ids=["one table", "a table for each row"])
def test_a_rotation_and_its_gradient_are_those_of_double_precision(per_row: bool) -> None:
    x = random(2, 3, 7, 8, seed=3)
    cos, sin = rotary_tables(7, 8, 100.0, device="cpu", dtype=torch.float32)
    if per_row:
        places = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 1, 2, 3, 0]])
        cos, sin = cos[places].unsqueeze(1), sin[places].unsqueeze(1)
    exact = gradients(Positions(cos.double(), sin.double()).rotate, x, double=True)
    ours = gradients(lambda x: bfloat16_on_cpu.rotate(x, cos, sin), x)
    assert [one.dtype for one in ours] == [torch.float32, torch.bfloat16]
    assert_rounded(ours, exact)


def test_bfloat16_alone_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("rotate", "rms_norm"):
        own = getattr(bfloat16_on_cpu, name)

        def noted(*arguments: object, name: str = name, own: Call = own) -> Tensor:
            calls.append(name)
            return own(*arguments)

        monkeypatch.setattr(bfloat16_on_cpu, name, noted)
    positions = Positions(*rotary_tables(5, 8, 100.0, device="cpu", dtype=torch.float32))
    norm = RMSNorm(8, 1e-5)
    x = random(1, 2, 5, 8, seed=4)
    wide = norm(positions.rotate(x.float()))
    assert calls == []
    narrow = norm.bfloat16()(positions.rotate(x).bfloat16())
    assert calls == ["rotate", "rms_norm"]
    torch.testing.assert_close(narrow.float(), wide, rtol=2.0**-6, atol=1e-2)
