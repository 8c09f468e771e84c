"""The vision-language model that a training begins from.

* A language model (a checkpoint of this platform, a transformers folder, a model of the hub) becomes the text
  part of a new model: its weights as they are, rows for the markers that its tokenizer had not, and a vision
  tower and a connector drawn with the run's seed.
* A vision-language model (a checkpoint of this platform, or a published SmolVLM) goes on whole, with rows for
  markers where it has too few.

What had to be made is written to ``<run>/start``, which a resumed run reads too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, SmolVLMConfig, SmolVLMForConditionalGeneration

from ablations.data.tokenizer import open_tokenizer
from ablations.errors import CheckpointError, ConfigError, Problem
from ablations.record.checksums import damage
from ablations.training.rows.start_model import (
    WHERE,
    add_rows,
    config_of,
    given_model,
    load,
    load_model,
    load_tokenizer,
    shape_problems,
    tokenizer_problems,
    write_start,
)
from ablations.training.started import STARTED
from ablations.training.train_job import TrainJob
from ablations.training.vision import VisionSpec
from ablations.training.vlm.picture_inputs import PictureBlock
from ablations.training.vlm.text_part import VLM_TYPES

__all__ = ["load_vlm", "vision_start_folder"]


def vision_start_folder(job: TrainJob) -> str:
    """Return the folder, or the name on the hub, of the vision-language model that the job begins from.

    Raises:
        CheckpointError: there is no such model, or it has another shape or tokenizer than the config.
    """
    assert job.tokenizer is not None
    assert job.method.vision is not None
    made = job.directory / STARTED
    if made.exists() and not damage(made):
        return str(made)
    given = given_model(job)
    config = config_of(given)
    whole = config.get("model_type") in VLM_TYPES
    block = PictureBlock.of(job.tokenizer, job.method.vision.tokens_per_picture)
    text = config["text_config"] if whole else config
    problems = [*shape_problems(job.model, text), *tokenizer_problems(given, job.tokenizer)]
    if whole:
        problems += _vision_problems(job.method.vision, config, block)
    elif config.get("model_type") != "llama":
        found = config.get("model_type")
        problems.append(Problem(WHERE, "cannot become a text part", found=found, allowed="a Llama"))
    if problems:
        raise CheckpointError(problems)
    vocabulary = open_tokenizer(job.tokenizer).vocab_size
    if whole and text["vocab_size"] >= vocabulary:
        return given
    network = load_vlm(given) if whole else load_model(given)
    if text["vocab_size"] < vocabulary:
        add_rows(network, vocabulary, job.seed)
    if not whole:
        network = _with_vision(network, job, block.picture_id)
    write_start(network, job, made)
    return str(made)


def load_vlm(folder: str) -> Any:
    """Return the vision-language model of a folder in float32."""
    network = load(AutoModelForImageTextToText, folder)
    # The padding id of a saved config is a separator of texts too: its row would have no gradient.
    network.get_input_embeddings().padding_idx = None
    return network


def _vision_problems(
    vision: VisionSpec, config: Mapping[str, Any], block: PictureBlock
) -> Iterator[Problem]:
    try:
        stored = VisionSpec.of_config(config)
    except ConfigError as error:
        yield from error.problems
        return
    for name, value in vars(vision).items():
        if value != getattr(stored, name):
            yield Problem(
                f"method.vision.{name}",
                "differs from the model that the run begins from",
                found=value,
                allowed=getattr(stored, name),
            )
    if config["image_token_id"] != block.picture_id:
        yield Problem(
            "tokenizer.chat.picture",
            "is another token than that of the model that the run begins from",
            found=block.picture_id,
            allowed=config["image_token_id"],
            do="take the tokenizer that the model was trained with",
        )


def _with_vision(network: Any, job: TrainJob, picture_id: int) -> Any:
    """Return a vision-language model with a language model as its text part, and a fresh vision part."""
    assert job.tokenizer is not None
    assert job.method.vision is not None
    text, vision = network.config, job.method.vision
    shape = {name: value for name, value in vars(vision).items() if name != "scale_factor"}
    config = SmolVLMConfig(
        text_config={k: v for k, v in text.to_dict().items() if k != "_name_or_path"},
        vision_config=shape,
        scale_factor=vision.scale_factor,
        image_token_id=picture_id,
        pad_token_id=load_tokenizer(job.tokenizer).pad_token_id,
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        made = SmolVLMForConditionalGeneration(config)
    made.model.text_model.load_state_dict(network.model.state_dict())
    made.lm_head.load_state_dict(network.lm_head.state_dict())
    made.tie_weights()
    return made
