"""Compare the body that scores with that of transformers, and its last layer where it is read."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ablations.evaluation.logprob_scorer import BranchScore, CausalLM, prepare, score
from ablations.evaluation.prefix_packing import Request

WINDOW = 64
VOCABULARY = 90


def network(layers: int = 3, kv_heads: int = 2, bias: bool = False) -> CausalLM:
    """Return a network of four heads and random weights."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        intermediate_size=48,
        max_position_embeddings=WINDOW,
        attention_bias=bias,
        mlp_bias=bias,
    )
    made = LlamaForCausalLM(config)
    for parameter in made.parameters():  # far from uniform predictions
        nn.init.normal_(parameter, std=0.3)
    return CausalLM(made)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_hidden_states_are_those_of_transformers(kv_heads: int, bias: bool) -> None:
    scorer = network(kv_heads=kv_heads, bias=bias)
    tokens = torch.randint(VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        theirs = scorer.model.model(tokens).last_hidden_state
        torch.testing.assert_close(scorer.body(tokens, None, None), theirs, rtol=1e-4, atol=1e-4)
        columns = torch.tensor([[10, 3], [0, 0], [7, 9]])
        read = scorer.body(tokens, None, None, columns=columns)
    picked = torch.stack([states[places] for states, places in zip(theirs, columns, strict=True)])
    torch.testing.assert_close(read, picked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chosen", [False, True], ids=["whole", "chosen"])
def test_a_prefix_is_read_as_if_it_stood_in_each_row(chosen: bool) -> None:
    scorer = network()
    draw = torch.Generator().manual_seed(3)
    shots, rows = (torch.randint(VOCABULARY, shape, generator=draw) for shape in ((9,), (2, 5)))
    positions = torch.arange(9, 14).expand(2, -1)
    mask = torch.ones(5, 14, dtype=torch.bool).tril(9).expand(1, 1, -1, -1)
    columns = torch.tensor([[4, 2], [1, 4]]) if chosen else None
    with torch.inference_mode():
        joined = torch.cat([shots.expand(2, -1), rows], dim=1)
        whole = scorer.model.model(joined).last_hidden_state[:, 9:]
        ours = scorer.body(rows, positions, mask, scorer.read_prefix(shots), columns)
    wanted = whole if columns is None else whole[torch.tensor([[0], [1]]), columns]
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_the_network_keeps_its_weights_and_no_second_copy_of_them() -> None:
    torch.manual_seed(4)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48)
    config.num_hidden_layers = 2
    model = LlamaForCausalLM(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    CausalLM(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    attention = model.model.layers[0].self_attn
    pointers = {
        part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.v_proj)
    }
    assert len(pointers) == 1


def requests(branches: tuple[int, ...], shots: int = 0) -> list[Request]:
    """Return requests with contexts of several lengths, behind the same ``shots`` tokens."""
    draw = random.Random(5)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(count)]

    same = tokens(shots)
    return [Request([*same, *tokens(8 + n)], [tokens(size) for size in branches]) for n in range(9)]


def scores(
    scorer: CausalLM, asked: list[Request], *, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> list[list[BranchScore]]:
    with monkeypatch.context() as patch:
        least = 0.0 if whole else 1.0
        patch.setattr("ablations.evaluation.logprob_scorer._WORTHWHILE", least)
        prepared = prepare(asked, window=WINDOW, batch_tokens=120)
    assert all((batch.columns is None) == whole for batch in prepared.batches)
    return score(scorer, prepared)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("shots", [0, 30], ids=["apart", "shared"])
@pytest.mark.parametrize("branches", [(4,), (3, 1, 6)], ids=["causal", "packed"])
def test_scores_are_those_of_a_last_layer_at_every_position(
    layers: int,
    shots: int,
    branches: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = network(layers)
    asked = requests(branches, shots)
    chosen, whole = (
        scores(scorer, asked, whole=one, monkeypatch=monkeypatch) for one in (False, True)
    )
    for ours, theirs in zip(chosen, whole, strict=True):
        assert [one.greedy for one in ours] == [one.greedy for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=2e-5)


def positions_fed(module: Any, work: Callable[[], object]) -> list[int]:
    """Return how many positions each call of ``module`` computed while ``work`` ran."""
    fed: list[int] = []

    def count(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        fed.append(inputs[0].shape[0] * inputs[0].shape[1])

    hook = module.register_forward_hook(count)
    try:
        work()
    finally:
        hook.remove()
    return fed


def test_positions_that_are_not_read_skip_the_last_feed_forward() -> None:
    scorer = network()
    asked = [Request(list(range(20)), [[1, 2, 3], [4, 5]]), Request(list(range(10)), [[6], [7, 8]])]
    prepared = prepare(asked, window=WINDOW, batch_tokens=200)
    layers = scorer.model.model.layers
    first, last = (
        positions_fed(layer.mlp.down_proj, lambda: score(scorer, prepared))
        for layer in (layers[0], layers[-1])
    )
    # The second request feeds 10 + 1 tokens and reads 2 of them, the first 20 + 2 + 1 and reads 4.
    assert (first, last) == ([11, 23], [2, 4])


def test_a_batch_that_is_read_nearly_everywhere_is_computed_as_a_whole() -> None:
    short = prepare([Request([1, 2], [[3] * 8])], window=WINDOW, batch_tokens=99)
    assert short.batches[0].columns is None  # 8 of 9 columns
    long = prepare([Request([1, 2, 3], [[3] * 8])], window=WINDOW, batch_tokens=99)
    columns = long.batches[0].columns
    assert columns is not None  # 8 of 10 columns
    assert columns.tolist() == [[2, 3, 4, 5, 6, 7, 8, 9]]
