"""Two tiny Llama folders with a byte-level tokenizer, and item files of every form."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

WORDS = "the cat sat on a mat dog ran blue sky red two plus four makes six and then home"
WINDOW = 64

Rows = Sequence[Mapping[str, Any]]


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS.split(), k=count))


def write_rows(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def choice_rows(count: int, *, choices: int = 4, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "id": f"q{index}",
            "query": f"Question: {words(draw, 8)}\nAnswer:",
            "question": words(draw, 8),
            "choices": [words(draw, draw.randint(1, 5)) for _ in range(choices)],
            "gold": draw.randrange(choices),
            "joiner": " ",
        }
        for index in range(count)
    ]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([words(random.Random(0), 500)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<|endoftext|>")


def tiny_model(tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
        initializer_range=0.2,  # far from uniform, so that an error would show
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def model(tokenizer: Any) -> Any:
    return tiny_model(tokenizer, 0)


@pytest.fixture(scope="session")
def exports(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Checkpoints of steps 10 and 20 as transformers folders."""
    root = tmp_path_factory.mktemp("exports")
    for step in (10, 20):
        tiny_model(tokenizer, step).save_pretrained(root / str(step))
        tokenizer.save_pretrained(root / str(step))
    return {step: root / str(step) for step in (10, 20)}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Item files of every form, and a store's held-out documents."""
    root = tmp_path_factory.mktemp("data")
    draw = random.Random(1)
    items = root / "benchmarks"
    write_rows(items / "quiz.jsonl", choice_rows(30))
    write_rows(
        items / "blank.jsonl",
        [
            {
                "id": str(index),
                "query": "The cat and the dog ran, but",
                "question": "",
                "choices": ["sat home."] * 2,
                "gold": index % 2,
                "joiner": " ",
                "contexts": [f"{words(draw, 4)} cat", f"{words(draw, 6)} dog"],
            }
            for index in range(6)
        ],
    )
    write_rows(
        items / "sums.jsonl",
        [
            {
                "id": str(index),
                "query": f"Question: two plus {index}?\nAnswer:",
                "question": f"two plus {index}?",
                "choices": [f"it makes {index + 2}\n#### {index + 2}"],
                "gold": 0,
                "joiner": " ",
                "answer": str(index + 2),
            }
            for index in range(6)
        ],
    )
    write_rows(
        items / "programs.jsonl",
        [
            {
                "id": "f",
                "query": "def same(x):\n",
                "question": "",
                "choices": ["    return x\n"],
                "gold": 0,
                "joiner": "",
                "test": "def check(f):\n    assert f(3) == 3\n",
                "entry_point": "same",
            }
        ],
    )
    write_rows(
        root / "store" / "wiki" / "heldout.jsonl",
        [{"id": str(index), "text": words(draw, draw.randint(3, 150))} for index in range(8)],
    )
    return root
