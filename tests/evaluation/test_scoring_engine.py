"""Compare the scorer with a naive one: a forward pass for each continuation, nothing shared."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.evaluation.logprob_scorer import CausalLM, prepare, score
from ablations.evaluation.prefix_packing import Request, lay_out, plan_batches

WINDOW = 40


def naive(model: Any, request: Request, index: int, window: int) -> float:
    """Return the log-probability of one continuation, token by token, in double precision."""
    branch = list(request.branches[index])
    text = (list(request.context) + branch)[-window:]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([text])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1)
    first = len(text) - len(branch)
    return sum(float(logprobs[place - 1, text[place]]) for place in range(first, len(text)))


def some_requests(count: int, vocabulary: int, seed: int = 0) -> list[Request]:
    draw = random.Random(seed)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(low, high))]

    return [
        Request(tokens(1, 50), [tokens(1, 12) for _ in range(draw.randint(1, 5))])
        for _ in range(count)
    ]


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("batch_tokens", [1, 300])
def test_log_probabilities_are_those_of_a_naive_loop(
    model: Any, pack: bool, batch_tokens: int
) -> None:
    requests = some_requests(12, model.config.vocab_size)
    prepared = prepare(requests, window=WINDOW, batch_tokens=batch_tokens, pack=pack)
    for request, scores in zip(requests, score(CausalLM(model), prepared), strict=True):
        for index, one in enumerate(scores):
            assert one.logprob == pytest.approx(naive(model, request, index, WINDOW), abs=1e-4)
            over = len(request.context) + len(request.branches[index]) - WINDOW
            assert one.cut_tokens == max(0, over)


def test_branches_do_not_see_each_other(model: Any) -> None:
    context, wanted = [5, 6, 7], [8, 9, 10]
    network = CausalLM(model)

    def of_first(others: list[list[int]]) -> float:
        request = Request(context, [wanted, *others])
        return score(network, prepare([request], window=WINDOW, batch_tokens=99))[0][0].logprob

    alone = of_first([])
    assert of_first([[11, 12, 13, 14], [15]]) == pytest.approx(alone, abs=1e-5)


def test_greedy_is_true_for_the_continuation_that_the_model_would_write(model: Any) -> None:
    context = [5, 6, 7]
    with torch.no_grad():
        first = int(model(input_ids=torch.tensor([context])).logits[0, -1].argmax())
    request = Request(context, [[first], [first + 1]])
    scores = score(CausalLM(model), prepare([request], window=WINDOW, batch_tokens=99))[0]
    assert [one.greedy for one in scores] == [True, False]


def test_a_continuation_that_no_window_holds_has_no_score(model: Any) -> None:
    request = Request([1, 2], [[3] * WINDOW, [3] * (WINDOW - 1), [4], []])
    scores = score(CausalLM(model), prepare([request], window=WINDOW, batch_tokens=99))[0]
    assert [math.isnan(one.logprob) for one in scores] == [True, False, False, True]
    assert scores[1].cut_tokens == 1


def test_an_architecture_that_cannot_be_packed_is_scored_from_its_logits() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=WINDOW, n_embd=16, n_layer=1, n_head=2)
    other = GPT2LMHeadModel(config).eval()
    network = CausalLM(other)
    assert not network.packs
    requests = some_requests(5, 50)
    prepared = prepare(requests, window=WINDOW, batch_tokens=200, pack=network.packs)
    for request, scores in zip(requests, score(network, prepared), strict=True):
        for index, one in enumerate(scores):
            assert one.logprob == pytest.approx(naive(other, request, index, WINDOW), abs=1e-4)


lengths = st.lists(
    st.tuples(st.integers(1, 60), st.lists(st.integers(0, 50), min_size=1, max_size=4)),
    min_size=1,
    max_size=8,
)


@given(lengths, st.integers(2, 45), st.integers(1, 500), st.booleans())
@settings(deadline=None)
def test_every_branch_that_fits_the_window_is_laid_out_once(
    shape: list[tuple[int, list[int]]], window: int, batch_tokens: int, pack: bool
) -> None:
    requests = [Request([1] * context, [[2] * size for size in sizes]) for context, sizes in shape]
    layouts = lay_out(requests, window, pack=pack)
    seen = [(one.request, one.index) for layout in layouts for one in layout.branches]
    fit = [(r, b) for r, (_, n) in enumerate(shape) for b in range(len(n)) if 0 < n[b] < window]
    assert sorted(seen) == fit
    for layout in layouts:
        assert int(layout.positions.max()) < window
        assert len(layout.targets) == len(layout.reads) == len(layout.owners)
        sizes = [len(requests[one.request].branches[one.index]) for one in layout.branches]
        assert np.bincount(layout.owners).tolist() == sizes
    batches = plan_batches(layouts, batch_tokens)
    assert sum(len(batch.layouts) for batch in batches) == len(layouts)
    for batch in batches:
        assert batch.length * len(batch.layouts) <= max(batch_tokens, batch.length)
        assert {layout.packed for layout in batch.layouts} == {batch.packed}


def test_choices_of_one_token_cost_nothing_beyond_their_context() -> None:
    (layout,) = lay_out([Request([1, 2, 3], [[4], [5], [6], [7]])], WINDOW)
    assert layout.tokens.tolist() == [1, 2, 3]
    assert not layout.packed
