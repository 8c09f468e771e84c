from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.training.loss import mean_cross_entropy
from ablations.training.packing import PositionMaker, documents_of


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40))
def test_documents_end_with_their_end_token(tokens: list[int]) -> None:
    documents, positions = documents_of(torch.tensor([tokens]), eos_id=0)
    number = place = 0
    for i, token in enumerate(tokens):
        assert (documents[0, i], positions[0, i]) == (number, place)
        number, place = (number + 1, 0) if token == 0 else (number, place + 1)


def test_masked_attention_of_packed_documents_is_that_of_each_alone() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[5, 6, 7, 0, 8, 9, 0, 3, 4, 2]])
    maker = PositionMaker(
        length=10, width=8, theta=100.0, eos_id=0, device="cpu", dtype=torch.float32
    )
    positions = maker.of(tokens)
    q, k, v = torch.randn(3, 1, 2, 10, 8)
    packed = positions.attend(positions.rotate(q), positions.rotate(k), v)
    for start, stop in ((0, 4), (4, 7), (7, 10)):
        rows = slice(start, stop)
        alone = maker.of(tokens[:, rows])
        alone.cos, alone.sin = alone.cos[..., : stop - start, :], alone.sin[..., : stop - start, :]
        own = alone.attend(alone.rotate(q[:, :, rows]), alone.rotate(k[:, :, rows]), v[:, :, rows])
        torch.testing.assert_close(packed[:, :, rows], own)


def test_without_masking_positions_are_shared_and_attention_is_causal() -> None:
    maker = PositionMaker(
        length=6, width=8, theta=100.0, eos_id=None, device="cpu", dtype=torch.float32
    )
    assert maker.of(torch.zeros(1, 6, dtype=torch.long)) is maker.of(
        torch.ones(2, 6, dtype=torch.long)
    )
    assert maker.of(torch.zeros(1, 6, dtype=torch.long)).mask is None


@pytest.mark.parametrize("eos_id", [None, 0])
def test_bfloat16_attention_on_a_cpu_is_computed_in_float32(eos_id: int | None) -> None:
    tokens = torch.tensor([[3, 5, 0, 6, 7, 0, 8, 9]])
    made = {
        dtype: PositionMaker(
            length=8, width=8, theta=100.0, eos_id=eos_id, device="cpu", dtype=dtype
        ).of(tokens)
        for dtype in (torch.bfloat16, torch.float32)
    }
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 8, 8).bfloat16()
    half = made[torch.bfloat16]
    assert half.rotate(q).dtype is torch.float32
    mixed = half.attend(half.rotate(q), half.rotate(k), v)
    assert mixed.dtype is torch.bfloat16
    whole = made[torch.float32]
    exact = whole.attend(whole.rotate(q.float()), whole.rotate(k.float()), v.float())
    assert torch.equal(mixed, exact.bfloat16())


@settings(max_examples=20, deadline=None)
@given(
    tokens=st.integers(2, 30),
    vocabulary=st.integers(2, 40),
    chunk=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_the_chunked_loss_is_the_whole_loss(
    tokens: int, vocabulary: int, chunk: int, seed: int
) -> None:
    torch.manual_seed(seed)
    labels = torch.randint(vocabulary, (1, tokens))
    results = []
    for size in (None, chunk):
        torch.manual_seed(seed)
        hidden = torch.randn(1, tokens, 8, dtype=torch.float32, requires_grad=True)
        weight = torch.randn(vocabulary, 8, requires_grad=True)
        loss = mean_cross_entropy(hidden, weight, labels, size)
        (2.0 * loss).backward()
        results.append((loss.detach(), hidden.grad, weight.grad))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [8, 50])
def test_the_compiled_chunks_are_the_chunks(dtype: torch.dtype, chunk: int) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 37, (20,))
    tensors = [torch.randn(20, 6, dtype=dtype), torch.randn(37, 6, dtype=dtype)]
    results = []
    for compiled in (False, True):
        hidden, weight = (tensor.clone().requires_grad_() for tensor in tensors)
        loss = mean_cross_entropy(hidden, weight, labels, chunk, compiled=compiled)
        results.append((loss.detach(), *torch.autograd.grad(loss, [hidden, weight])))
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(
            other, eager, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-6
        )


def test_the_chunked_loss_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    linear = F.linear

    def counted(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        rows.append(x.shape[0])
        return linear(x, *rest)

    monkeypatch.setattr(F, "linear", counted)
    mean_cross_entropy(torch.randn(20, 4), torch.randn(9, 4), torch.randint(9, (20,)), 6)
    assert rows == [6, 6, 6, 2]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_masks_as_the_dense_mask_does() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 12, (2, 40))
    results = []
    for flex in (False, True):
        maker = PositionMaker(
            length=40, width=16, theta=100.0, eos_id=0, device="cpu", dtype=torch.float32, flex=flex
        )
        positions = maker.of(tokens)
        assert (positions.mask is None) is flex
        torch.manual_seed(1)
        q = torch.randn(2, 4, 40, 16)
        k, v = torch.randn(2, 2, 2, 40, 16)
        # Flex attention has no backward pass on a CPU.
        results.append(positions.attend(positions.rotate(q), positions.rotate(k), v))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
