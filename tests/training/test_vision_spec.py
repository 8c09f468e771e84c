"""Shape of a vision part: parameters to the unit, tokens, memory, FLOPs, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.training.batching import plan_micro_batches
from ablations.training.memory import memory_of
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.vision import VisionLoad, VisionSpec

DEMO: dict[str, int] = {
    "image_size": 64,
    "patch_size": 8,
    "scale_factor": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
TEXT = ModelSpec(
    vocab_size=1028,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
)


def load(pictures: int = 1, **change: int) -> VisionLoad:
    return VisionLoad(vision=VisionSpec(**{**DEMO, **change}), text_width=192, pictures=pictures)


def network(vision: VisionSpec) -> Any:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    shape = {name: value for name, value in vars(vision).items() if name != "scale_factor"}
    text = {
        name: getattr(TEXT, name)
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    }
    config = SmolVLMConfig(
        text_config={**text, "model_type": "llama", "num_attention_heads": 4},
        vision_config=shape,
        scale_factor=vision.scale_factor,
        image_token_id=5,
        tie_word_embeddings=True,
    )
    return SmolVLMForConditionalGeneration(config)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scale_factor": 4},
        {"image_size": 96},
        {"patch_size": 16, "scale_factor": 1},
        {"image_size": 66},
    ],
)
def test_parameters_and_tokens_are_those_of_transformers(change: dict[str, int]) -> None:
    spec = load(**change).vision
    model = network(spec)
    count = {
        name: sum(p.numel() for p in getattr(model.model, name).parameters())
        for name in ("vision_model", "connector")
    }
    assert count["vision_model"] == spec.tower_parameters
    assert count["connector"] == spec.connector_parameters(192)
    assert sum(p.numel() for p in model.parameters()) == TEXT.parameters + spec.parameters(192)
    assert model.model.image_seq_len == spec.tokens_per_picture
    saved = model.config.to_dict()
    assert VisionSpec.of_config(saved) == spec
    assert VisionSpec.of_config({"vision_config": {}, "scale_factor": 7}).image_size == 224


@pytest.mark.parametrize("pictures", [1, 3])
def test_activations_are_what_autograd_keeps_or_somewhat_more(pictures: int) -> None:
    import torch

    given = load(pictures)
    model = network(given.vision)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pixels = torch.randn(1, pictures, 3, 64, 64)
        found = model.model.get_image_features(pixels, return_dict=True).pooler_output
    assert found is not None
    assert sum(kept.values()) <= 4 * given.activations < 1.25 * sum(kept.values())


def test_a_vision_part_takes_memory_and_smaller_micro_batches() -> None:
    training = TrainingSpec(sequence_length=64, batch_size=64, peak_lr=1e-3)
    execution = ExecutionSpec()
    sizes: dict[str, Any] = {"micro_batch_size": 2, "chunk_tokens": None}
    plain = memory_of(TEXT, training, execution, **sizes)
    seen = memory_of(TEXT, training, execution, **sizes, vision=load())
    assert seen.state - plain.state == 16 * load().parameters
    assert seen.activations - plain.activations == 2 * 4 * load().activations
    for pictures in (8, 64):
        cut = plan_micro_batches(TEXT, training, execution, vision=load(pictures))
        assert cut.micro_batch_size * cut.micro_batches == 64
    alone = plan_micro_batches(TEXT, training, execution).micro_batch_size
    assert cut.micro_batch_size < alone


def test_flops_grow_with_the_pictures_matrices() -> None:
    spec = load().vision
    matrices = 3 * 64 * 128 + 3 * (4 * 128**2 + 2 * 128 * 256)
    attention = 12 * 3 * 128 * 64
    connector = 6 * 16 * 512 * 192
    assert spec.flops_per_picture(192) == 64 * (6 * matrices + attention) + connector


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"patch_size": 7}, "method.vision.image_size"),
        ({"scale_factor": 3}, "method.vision.image_size"),
        ({"num_attention_heads": 5}, "method.vision.num_attention_heads"),
        ({"num_hidden_layers": 0}, "method.vision.num_hidden_layers"),
    ],
)
def test_a_shape_that_no_tower_has_is_refused(change: dict[str, int], where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        VisionSpec(**{**DEMO, **change})


def test_a_config_of_another_tower_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a square vision tower"):
        VisionSpec.of_config({"vision_config": {"image_size": [224, 112]}})
