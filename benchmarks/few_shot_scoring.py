"""Scoring and generation behind shared few-shot examples, against feeding them with every item.

    python benchmarks/few_shot_scoring.py            # 11M parameters, 500 + 60 tokens, one core
    python benchmarks/few_shot_scoring.py --dtype bfloat16

Both sides are the platform's own scorer, on the same requests and weights, in one process: once with
prefixes shared, once with every context fed whole. Repeats are interleaved and the fastest of each side
counts, in CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from ablations.evaluation.generation import generate
from ablations.evaluation.logprob_scorer import BranchScore, CausalLM, prepare, score
from ablations.evaluation.prefix_packing import Request

VOCABULARY, WINDOW = 8192, 1024


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    network = CausalLM(_model(options.dtype))
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    print(
        f"{parameters / 1e6:.1f}M parameters, {options.dtype}, prefix of {options.prefix} tokens, "
        f"{options.items} questions of {options.question} tokens"
    )
    good = True
    for name, continuations in (("letters", [1] * 4), ("answers", [12] * 4)):
        requests = _requests(options, continuations)
        times, answers = _race(
            options.repeats, lambda share, r=requests: _score(network, r, options, share)
        )
        worst = max(
            abs(a.logprob - b.logprob)
            for ours, theirs in zip(answers[True], answers[False], strict=True)
            for a, b in zip(ours, theirs, strict=True)
        )
        ratio = times[False] / times[True]
        print(f"{name}: {_times(times)}, largest difference of a log-probability {worst:.1e}")
        good &= (ratio >= 4.0 or name == "answers") and worst < options.tolerance
    contexts = [list(request.context) for request in _requests(options, [1])]
    times, texts = _race(options.repeats, lambda share: _write(network, contexts, options, share))
    equal = sum(a == b for a, b in zip(texts[True], texts[False], strict=True))
    print(f"generation of 16 tokens: {_times(times)}, {equal} of {len(contexts)} texts equal")
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", type=int, default=500, help="tokens of the examples")
    parser.add_argument("--question", type=int, default=60, help="tokens of a question")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def _model(dtype: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=320,
        num_hidden_layers=7,
        num_attention_heads=5,
        num_key_value_heads=5,
        intermediate_size=864,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def _requests(options: argparse.Namespace, continuations: list[int]) -> list[Request]:
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(count)]

    shots = tokens(options.prefix)
    sizes = [options.question + draw.randint(-20, 20) for _ in range(options.items)]
    return [
        Request([*shots, *tokens(size)], [tokens(count) for count in continuations])
        for size in sizes
    ]


def _score(
    network: CausalLM, requests: list[Request], options: argparse.Namespace, share: bool
) -> list[list[BranchScore]]:
    batch = options.batch_tokens
    return score(network, prepare(requests, window=WINDOW, batch_tokens=batch, share=share))


class _NoText:
    """Tokenizer of a vocabulary without texts: generation ends by its length alone."""

    eos_token_id = None

    def decode(self, tokens: list[int], **_: Any) -> str:
        return " ".join(map(str, tokens))


def _write(
    network: CausalLM, contexts: list[list[int]], options: argparse.Namespace, share: bool
) -> list[str]:
    made = generate(
        network,
        _NoText(),
        contexts,
        max_new_tokens=16,
        stop=(),
        window=WINDOW,
        batch_tokens=options.batch_tokens,
        share=share,
    )
    return [one.text for one in made]


def _race(repeats: int, work: Callable[[bool], Any]) -> tuple[dict[bool, float], dict[bool, Any]]:
    spent: dict[bool, list[float]] = {True: [], False: []}
    answers: dict[bool, Any] = {}
    for _ in range(repeats):
        for share in (True, False):
            start = time.process_time()
            answers[share] = work(share)
            spent[share].append(time.process_time() - start)
    return {share: min(times) for share, times in spent.items()}, answers


def _times(times: dict[bool, float]) -> str:
    return (
        f"{times[False]:.2f} CPU-s with every context whole, {times[True]:.2f} with the prefix "
        f"shared: {times[False] / times[True]:.1f}x"
    )


if __name__ == "__main__":
    sys.exit(main())
