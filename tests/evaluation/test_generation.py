"""Greedy text: that of transformers itself, up to the stop text."""

from __future__ import annotations

from typing import Any

import torch

from ablations.evaluation.generation import Generated, generate
from ablations.evaluation.logprob_scorer import CausalLM
from ablations.evaluation.shared_prefix import LEAST_PREFIX


def ours(model: Any, tokenizer: Any, contexts: list[list[int]], **changes: Any) -> list[Generated]:
    options = {"max_new_tokens": 12, "stop": (), "window": 64, "batch_tokens": 4096, **changes}
    return generate(CausalLM(model), tokenizer, contexts, **options)


def theirs(model: Any, tokenizer: Any, context: list[int], count: int) -> list[int]:
    prompt = torch.tensor([context])
    with torch.no_grad():
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    tokens: list[int] = out[0, len(context) :].tolist()
    return tokens


def test_prompts_that_share_their_beginning_get_the_text_of_each_alone(
    model: Any, tokenizer: Any
) -> None:
    shots = [(7 * n) % 300 + 3 for n in range(LEAST_PREFIX)]
    contexts = [[*shots, *context] for context in CONTEXTS] + [[8, 9]]
    read: list[int] = []

    class Counting(CausalLM):
        def read_prefix(self, tokens: torch.Tensor) -> Any:
            read.append(len(tokens))
            return super().read_prefix(tokens)

    options: dict[str, Any] = {"max_new_tokens": 12, "stop": (), "window": 64, "batch_tokens": 40}
    network = Counting(model)
    for share in (True, False):
        made = generate(network, tokenizer, contexts, share=share, **options)
        for context, one in zip(contexts, made, strict=True):
            assert list(one.tokens) == theirs(model, tokenizer, context, 12)
    assert read == [LEAST_PREFIX]


CONTEXTS = [[5, 9, 11], [7], [30, 31, 32, 33, 34, 35, 36, 37], [40, 41]]


def test_a_batch_writes_what_each_prompt_would_alone(model: Any, tokenizer: Any) -> None:
    for batch_tokens in (1, 4096):
        made = ours(model, tokenizer, CONTEXTS, batch_tokens=batch_tokens)
        for context, one in zip(CONTEXTS, made, strict=True):
            assert list(one.tokens) == theirs(model, tokenizer, context, 12)
            assert one.cut_tokens == 0


def test_a_stop_text_ends_its_row_and_is_not_part_of_it(model: Any, tokenizer: Any) -> None:
    free = ours(model, tokenizer, CONTEXTS)
    stop = free[0].text[len(free[0].text) // 2]
    made = ours(model, tokenizer, CONTEXTS, stop=(stop,))
    for before, after in zip(free, made, strict=True):
        assert after.text == before.text.split(stop)[0]
        assert len(after.tokens) <= len(before.tokens)
    assert len(made[0].tokens) < len(free[0].tokens)


def test_any_of_several_end_tokens_ends_a_row_and_is_not_part_of_its_text(
    model: Any, tokenizer: Any
) -> None:
    free = ours(model, tokenizer, CONTEXTS)
    turn_end = free[0].tokens[4]
    made = ours(model, tokenizer, CONTEXTS, ends=(tokenizer.eos_token_id, turn_end))
    assert made[0].tokens[-1] == turn_end
    for before, after in zip(free, made, strict=True):
        length = before.tokens.index(turn_end) + 1 if turn_end in before.tokens else 12
        assert after.tokens == before.tokens[:length]
        assert after.text == tokenizer.decode([t for t in after.tokens if t != turn_end])


def test_a_long_prompt_keeps_its_end(model: Any, tokenizer: Any) -> None:
    (long,) = ours(model, tokenizer, [list(range(3, 63))], max_new_tokens=8)
    assert long.cut_tokens == 4
    assert list(long.tokens) == theirs(model, tokenizer, list(range(7, 63)), 8)


def test_a_text_longer_than_the_window_leaves_its_prompt_half(model: Any, tokenizer: Any) -> None:
    long, short = [5 + n for n in range(50)], [5, 9, 11]
    for batch_tokens in (1, 4096):
        options = {"max_new_tokens": 64, "batch_tokens": batch_tokens}
        first, second = ours(model, tokenizer, [long, short], **options)
        assert (first.cut_tokens, second.cut_tokens) == (18, 0)
        assert list(first.tokens) == theirs(model, tokenizer, long[-32:], 32)
        assert list(second.tokens) == theirs(model, tokenizer, short, 61)


def test_nothing_asked_nothing_written(model: Any, tokenizer: Any) -> None:
    assert ours(model, tokenizer, []) == []
