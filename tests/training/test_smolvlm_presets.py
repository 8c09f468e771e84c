"""Sizes of the presets of SmolVLM: those that were published, and those that transformers builds."""

from __future__ import annotations

import pytest
import yaml

from ablations.config.schema import conf_dir
from ablations.errors import ConfigError
from ablations.training.specs import ModelSpec
from ablations.training.vision import VisionSpec

PUBLISHED = {"256m": 256_484_928, "500m": 507_482_304, "2b2": 2_246_272_880}
"""Parameters of HuggingFaceTB/SmolVLM-256M-Instruct, SmolVLM-500M-Instruct and SmolVLM-Instruct."""

TOKENS = {"256m": 64, "500m": 64, "2b2": 81}
"""Tokens of a picture, as the models' cards state them."""


def preset(size: str) -> tuple[ModelSpec, VisionSpec]:
    def read(group: str) -> dict[str, object]:
        found = yaml.safe_load((conf_dir() / group / f"smolvlm_{size}.yaml").read_text())
        assert isinstance(found, dict)
        return found

    vision = read("method")["vision"]
    assert isinstance(vision, dict)
    return ModelSpec(**read("model")), VisionSpec(**vision)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_preset_has_the_published_size(size: str) -> None:
    model, vision = preset(size)
    assert model.parameters + vision.parameters(model.hidden_size) == PUBLISHED[size]
    assert vision.tokens_per_picture == TOKENS[size]


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_preset_has_the_size_that_transformers_builds(size: str) -> None:
    import torch
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    model, vision = preset(size)
    names = (
        *("image_size", "patch_size", "hidden_size", "intermediate_size"),
        *("num_hidden_layers", "num_attention_heads"),
    )
    text = {
        name: getattr(model, name)
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
        )
    }
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **text},
        vision_config={name: getattr(vision, name) for name in names},
        scale_factor=vision.scale_factor,
        tie_word_embeddings=model.tie_word_embeddings,
    )
    with torch.device("meta"):
        built = SmolVLMForConditionalGeneration(config)
    counted = {id(one): one.numel() for one in built.parameters()}
    assert sum(counted.values()) == model.parameters + vision.parameters(model.hidden_size)
    tower = sum(one.numel() for one in built.model.vision_model.parameters())
    assert tower == vision.tower_parameters


def test_pixels_beyond_the_last_whole_patch_are_not_read() -> None:
    """The tower of 2.2B has 27 patches of 14 pixels on a side of 384."""
    import torch
    from transformers import SmolVLMConfig, SmolVLMModel

    vision = VisionSpec(
        image_size=23,
        patch_size=7,
        scale_factor=3,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": 16,
            "hidden_size": 8,
            "pad_token_id": 0,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        vision_config={
            "image_size": 23,
            "patch_size": 7,
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        scale_factor=3,
    )
    torch.manual_seed(0)
    model = SmolVLMModel(config).eval()
    pixels = torch.rand(1, 1, 3, 23, 23)

    def features_of_the_picture() -> torch.Tensor:
        found = model.get_image_features(pixels).pooler_output
        return torch.stack(tuple(found)) if isinstance(found, list | tuple) else found

    features = features_of_the_picture()
    assert features.shape == (1, vision.tokens_per_picture, 8)
    counted = sum(one.numel() for one in model.vision_model.parameters())
    assert counted == vision.tower_parameters
    pixels[..., 21:, :] = 0.0
    pixels[..., 21:] = 0.0
    assert torch.equal(features, features_of_the_picture())


@pytest.mark.parametrize(("image", "patch", "scale"), [(384, 14, 2), (8, 16, 1), (64, 8, 3)])
def test_a_side_that_is_no_whole_number_of_tokens_is_refused(
    image: int, patch: int, scale: int
) -> None:
    with pytest.raises(ConfigError, match="not a whole number of tokens a side"):
        VisionSpec(
            image_size=image,
            patch_size=patch,
            scale_factor=scale,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
