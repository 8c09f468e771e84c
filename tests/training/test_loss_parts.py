"""Compare the parts of the chunked loss with the plain one, and see which part is taken where."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ablations.training import loss as module
from ablations.training.loss import mean_cross_entropy

Results = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def results(chunk: int | None, *, compiled: bool = False, dtype: Any = torch.float32) -> Results:
    """Return the loss of 2 × 10 tokens, and its gradients of hidden and weight, each times 3."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 10, 6, generator=random).to(dtype).requires_grad_()
    weight = torch.randn(37, 6, generator=random).to(dtype).requires_grad_()
    labels = torch.randint(0, 37, (2, 10), generator=random)
    loss = mean_cross_entropy(hidden, weight, labels, chunk, compiled=compiled)
    gradients = torch.autograd.grad(3.0 * loss, [hidden, weight])
    return loss.detach(), gradients[0], gradients[1]


def require_close(found: Results, expected: Results, rtol: float, atol: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record whose parts a loss takes; what would be compiled is run as it is."""
    found: list[str] = []

    def recorded(name: str, function: Any) -> Any:
        def call(logits: torch.Tensor, picked: torch.Tensor, count: int) -> Any:
            found.append(f"{name} {len(logits)} of {count}")
            return function(logits, picked, count)

        return call

    in_place = recorded("in place", module._softmax_parts_in_place)
    compiled = recorded("compiled", module._softmax_parts)
    monkeypatch.setattr(module, "_softmax_parts_in_place", in_place)
    monkeypatch.setattr(module, "_compiled_parts", lambda: compiled)
    return found


@pytest.mark.parametrize("chunk", [1, 7, 19])
@pytest.mark.parametrize("compiled", [False, True])
def test_both_forms_of_the_parts_give_the_loss_and_gradients_of_the_whole(
    asked: list[str], chunk: int, compiled: bool
) -> None:
    whole = results(None)
    assert asked == []
    require_close(results(chunk, compiled=compiled), whole, rtol=1e-5, atol=1e-6)
    name = "compiled" if compiled else "in place"
    sizes = [min(chunk, 20 - start) for start in range(0, 20, chunk)]
    assert asked == [f"{name} {size} of 20" for size in sizes]


@pytest.mark.parametrize("chunk", [20, 21, 500])
def test_a_batch_of_one_chunk_is_cut_only_to_be_compiled(asked: list[str], chunk: int) -> None:
    whole = results(None, compiled=True)
    require_close(results(chunk), whole, rtol=0.0, atol=0.0)
    assert asked == []
    require_close(results(chunk, compiled=True), whole, rtol=1e-5, atol=1e-6)
    assert asked == ["compiled 20 of 20"]


def test_nothing_is_compiled_unless_it_is_asked_for(asked: list[str]) -> None:
    hidden, weight, labels = torch.zeros(4, 2), torch.zeros(8, 2), torch.arange(4)
    found = mean_cross_entropy(hidden, weight, labels, 3)
    assert float(found) == pytest.approx(2.0794415417)  # ln 8
    assert asked == ["in place 3 of 4", "in place 1 of 4"]


@pytest.mark.parametrize("compiled", [False, True])
def test_chunks_in_bfloat16_are_near_the_whole_in_float32(asked: list[str], compiled: bool) -> None:
    whole = results(None, dtype=torch.bfloat16)
    found = results(6, compiled=compiled, dtype=torch.bfloat16)
    assert [part.dtype for part in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    require_close(found, whole, rtol=3e-2, atol=3e-3)
    assert len(asked) == 4


@pytest.mark.parametrize("form", [module._softmax_parts, module._softmax_parts_in_place])
def test_the_parts_of_two_tokens_are_those_worked_out_by_hand(form: Any) -> None:
    """Odds of 1 : 1 : 2, of which the second is the label; then 1 : 3 : 4, and the third."""
    logits = torch.tensor([[1.0, 1.0, 2.0], [1.0, 3.0, 4.0]]).log()
    loss, gradient = form(logits, torch.tensor([[1], [2]]), 10)
    assert float(loss) == pytest.approx(1.3862943611 + 0.6931471806)  # ln 4 + ln 2
    expected = [[0.025, -0.075, 0.05], [0.0125, 0.0375, -0.05]]
    torch.testing.assert_close(gradient, torch.tensor(expected))


@pytest.mark.parametrize(
    ("device", "dtype", "total", "taken"),
    [
        ("cuda", torch.bfloat16, None, "mm"),
        ("cuda", torch.bfloat16, "total", "addmm"),
        ("cuda", torch.float32, None, "product"),
        ("cpu", torch.bfloat16, None, "product"),
        ("cpu", torch.float32, "total", "added"),
    ],
)
def test_a_product_is_not_rounded_where_a_gpu_can_add_it_in_float32(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, total: Any, taken: str
) -> None:
    class Left(SimpleNamespace):
        def __matmul__(self, right: object) -> Any:
            return SimpleNamespace(float=lambda: "product")

    def named(name: str, count: int) -> Any:
        def call(*values: object, out_dtype: torch.dtype) -> str:
            assert out_dtype is torch.float32
            assert len(values) == count
            return name

        return call

    monkeypatch.setattr(torch, "mm", named("mm", 2))
    monkeypatch.setattr(torch, "addmm", named("addmm", 3))
    left: Any = Left(device=SimpleNamespace(type=device), dtype=dtype)
    right: Any = object()
    sum_so_far: Any = total and SimpleNamespace(add_=lambda product: f"added {product}")
    found: Any = module._add_product(sum_so_far, left, right)
    assert found == ("added product" if taken == "added" else taken)


def test_the_loss_is_that_of_torch() -> None:
    loss, hidden, weight = results(6)
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 10, 6, generator=random).requires_grad_()
    matrix = torch.randn(37, 6, generator=random).requires_grad_()
    labels = torch.randint(0, 37, (2, 10), generator=random)
    expected = F.cross_entropy((inputs @ matrix.T).reshape(20, 37), labels.reshape(20))
    (3.0 * expected).backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert matrix.grad is not None
    require_close((loss, hidden, weight), (expected.detach(), inputs.grad, matrix.grad), 1e-5, 1e-6)
