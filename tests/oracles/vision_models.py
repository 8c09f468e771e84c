"""Small vision-language models and rows with pictures, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TINY_VISION: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
"""Vision part of a picture of 16 x 16: 16 patches, by a pixel shuffle of 2 four tokens."""


def write_vlm(folder: Path, *, tied: bool = True, seed: int = 0, picture: int = 299) -> Path:
    """Write a random vision-language model as a transformers folder.

    Args:
        tied: True if the output head is the embedding.
        picture: Id of the token that stands for a patch of a picture.
    """
    import torch
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(seed)
    text = {
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
    }
    config = SmolVLMConfig(
        text_config=text,
        vision_config=TINY_VISION,
        scale_factor=2,
        image_token_id=picture,
        tie_word_embeddings=tied,
    )
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    return folder
