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
from ablations.evaluation.shared_prefix import group_by_prefix

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


def few_shot_requests(vocabulary: int) -> list[Request]:
    """Return requests of two subjects, each behind the examples of its subject, and one without."""
    draw = random.Random(3)
    examples = [[draw.randrange(vocabulary) for _ in range(20)] for _ in range(2)]
    requests = some_requests(18, vocabulary, seed=4)
    behind = [
        Request([*examples[index % 2], *request.context[:8]], request.branches)
        for index, request in enumerate(requests)
    ]
    return [*behind, Request([5, 6, 7], [[8], [9, 10]])]


@pytest.mark.parametrize("batch_tokens", [60, 150])
def test_a_shared_prefix_is_fed_once_and_changes_no_log_probability(
    model: Any, batch_tokens: int
) -> None:
    requests = few_shot_requests(model.config.vocab_size)
    shared = prepare(requests, window=WINDOW, batch_tokens=batch_tokens)
    prefixes = {id(one.prefix): one.prefix for one in shared.batches if one.prefix is not None}
    assert [len(one) for one in prefixes.values()] == [20, 20]
    network = CausalLM(model)
    apart = prepare(requests, window=WINDOW, batch_tokens=batch_tokens, share=False)
    assert all(one.prefix is None for one in apart.batches)
    assert sum(one.tokens.numel() for one in shared.batches) < 0.7 * sum(
        one.tokens.numel() for one in apart.batches
    )
    pairs = zip(requests, score(network, shared), score(network, apart), strict=True)
    for request, ours, theirs in pairs:
        for index, one in enumerate(ours):
            assert one.logprob == pytest.approx(naive(model, request, index, WINDOW), abs=1e-4)
            assert one.logprob == pytest.approx(theirs[index].logprob, abs=1e-5)
            assert one.greedy == theirs[index].greedy


def _groups(contexts: list[list[int]], least_saved: int) -> list[tuple[int, tuple[int, ...]]]:
    arrays = [np.asarray(context, np.int64) for context in contexts]
    return [(group.prefix, group.members) for group in group_by_prefix(arrays, least_saved)]


def test_the_groups_are_those_that_save_most() -> None:
    shots, passage = list(range(100, 130)), list(range(200, 280))
    of_passage = [[*shots, *passage, n] for n in range(3)]
    alone = [[*shots, n, n] for n in range(3)]
    # Three contexts save 2 x 110 tokens by themselves, and all six would save 5 x 30.
    assert _groups([*of_passage, *alone], 50) == [(30, (3, 4, 5)), (110, (0, 1, 2))]
    # No passage saves enough tokens for passes of its own; the examples of all do.
    assert _groups([*of_passage[:2], *alone], 111) == [(30, (0, 1, 2, 3, 4))]


@pytest.mark.parametrize(
    ("contexts", "least_saved"),
    [
        ([[1] * 15 + [2], [1] * 15 + [3]], 0),  # too short a prefix
        ([[1] * 30 + [2], [1] * 30 + [3]], 31),  # too little is saved
        ([[1] * 30, [2] * 30], 0),
        ([[7], [7], [7]], 0),
    ],
)
def test_contexts_that_share_too_little_are_one_group(
    contexts: list[list[int]], least_saved: int
) -> None:
    assert _groups(contexts, least_saved) == [(0, tuple(range(len(contexts))))]


def test_equal_contexts_keep_a_token_to_feed() -> None:
    assert _groups([[1] * 30] * 3, 1) == [(29, (0, 1, 2))]
    assert _groups([], 1) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 9)), max_size=12),
    st.integers(0, 120),
)
@settings(deadline=None)
def test_every_context_is_in_one_group_and_begins_with_its_prefix(
    shape: list[tuple[int, int, int]], least_saved: int
) -> None:
    contexts = [[one] * same + list(range(50, 50 + own)) for one, same, own in shape]
    groups = _groups(contexts, least_saved)
    assert sorted(index for _, members in groups for index in members) == list(range(len(shape)))
    for prefix, members in groups:
        begins = {tuple(contexts[index][:prefix]) for index in members}
        assert len(begins) == 1
        assert all(len(contexts[index]) > prefix for index in members)
        assert prefix == 0 or (len(members) - 1) * prefix >= least_saved


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
