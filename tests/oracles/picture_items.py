"""Held-out items about pictures, their store, and a small vision-language model with its tokenizer."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import HELDOUT, HELDOUT_PICTURES, HeldOut, RowCounts, StoreManifest
from ablations.data.rows.chat_template import ChatSpec
from ablations.data.tokenizer import TokenizerSpec, make_tokenizer
from tests.oracles.chats import CHATML, make_base_tokenizer, words
from tests.oracles.vision_models import TINY_VISION

SIDE = 16
"""Pixels of a side of the pictures: that of TINY_VISION."""

PICTURE_TOKENIZER = TokenizerSpec(
    name="tiny_pictures",
    kind="chat",
    base="tiny",
    chat=ChatSpec(template=CHATML, picture="<image>"),
)


def make_picture_tokenizer(data_dir: Path) -> Path:
    """Make the tokenizer of pictures and its base; return its folder."""
    make_base_tokenizer(data_dir)
    return make_tokenizer(PICTURE_TOKENIZER, data_dir / "tokenizers", ()).folder


def question(
    number: int, pictures: Sequence[int], answer: str, *, group: str | None = None
) -> dict[str, Any]:
    """Return an item in the form of a held-out conversation about pictures."""
    asked = f"{'<image>' * len(pictures)}{words(('q', number), 3 + number % 4)}?"
    query = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    item = {"id": f"q{number}", "query": query, "question": query, "choices": [answer], "gold": 0}
    about = {"joiner": "", "exact": True, "group": group or f"g{pictures[:1]}"}
    return {**item, **about, "pictures": list(pictures)}


def some_questions(count: int, pictures: int) -> list[dict[str, Any]]:
    """Return questions about one or two pictures each, several about the same."""
    draw = random.Random(0)
    answers = ["red", "green cat", "blue", "seven rivers"]
    return [
        question(
            number,
            [draw.randrange(pictures) for _ in range(1 + number % 3 // 2)],
            answers[number % len(answers)],
        )
        for number in range(count)
    ]


def random_pictures(count: int) -> npt.NDArray[np.uint8]:
    """Return pictures of noise, [count, 3, SIDE, SIDE]."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, size=(count, 3, SIDE, SIDE), dtype=np.uint8)


def write_picture_store(
    folder: Path, items: Sequence[Mapping[str, Any]], pictures: npt.NDArray[np.uint8]
) -> Path:
    """Write the held-out part of a store of pictures, with its manifest."""
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(item) + "\n" for item in items).encode()
    (folder / HELDOUT).write_bytes(lines)
    (folder / HELDOUT_PICTURES).write_bytes(pictures.tobytes())
    StoreManifest(
        source=folder.name,
        domain="pictures",
        tokenizer="tiny_pictures",
        tokenizer_hash="",
        vocab_size=0,
        eos_id=0,
        token_bytes=2,
        tokens=0,
        documents=0,
        bytes=0,
        files=(),
        heldout=HeldOut(
            documents=len(items),
            bytes=len(lines),
            sha256=hashlib.sha256(lines).hexdigest(),
            pictures=len(pictures),
            pictures_sha256=hashlib.sha256(pictures.tobytes()).hexdigest(),
        ),
        rows=RowCounts(
            kind="pictures",
            rows=0,
            heldout_rows=len(items),
            supervised_tokens=0,
            longest=0,
            cut_rows=0,
            cut_tokens=0,
            max_tokens=64,
            template_sha256="",
            picture_size=pictures.shape[-1],
        ),
    ).write(folder)
    return folder


def write_seeing_model(folder: Path, tokenizer: Path, seed: int = 0, positions: int = 128) -> Path:
    """Write a random vision-language model with a tokenizer of pictures as a transformers folder.

    Its weights are far from uniform, so that pictures move its answers and an error would show.
    """
    import torch
    from transformers import AutoTokenizer, SmolVLMConfig, SmolVLMForConditionalGeneration

    fast = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(seed)
    text = {
        "model_type": "llama",
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    }
    config = SmolVLMConfig(
        text_config=text,
        vision_config={**TINY_VISION, "initializer_range": 0.2},
        scale_factor=2,
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    (folder / "spec.json").write_bytes((tokenizer / "spec.json").read_bytes())
    return folder
