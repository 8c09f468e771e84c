"""Text part of a vision-language model, as a Llama folder that every reader of language models takes.

    model.text_model.layers.0.…  ─▶ model.layers.0.…
    lm_head.weight               ─▶ lm_head.weight, unless it is the embedding

On a text without pictures the logits of both are equal to the last bit. Tensors are renamed one file at a
time, so that the vision part is never loaded; neither torch nor transformers builds a model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import CheckpointError, Problem
from ablations.files import replace_folder, restore_folder, write_json
from ablations.record.checksums import damage, write_checksums

if TYPE_CHECKING:
    import torch

__all__ = ["VLM_TYPES", "is_vlm", "vlm_config", "write_text_part"]

VLM_TYPES = ("smolvlm", "idefics3")
"""``model_type`` of the vision-language models that are taken: published SmolVLM folders have either."""

_TEXT = "model.text_model."
_HEAD = "lm_head.weight"

_COPIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("spec.json", "generation_config.json"),
)
"""Files beside the weights that belong to the text part too, where there are any."""


def vlm_config(folder: Path) -> Mapping[str, Any] | None:
    """Return ``config.json`` of a vision-language model's folder; None if it is of another model, or missing.

    A folder whose config cannot be read is none: whoever loads it has the reason.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    found = isinstance(config, dict) and config.get("model_type") in VLM_TYPES
    return config if found else None


def is_vlm(folder: Path) -> bool:
    """Return whether a transformers folder holds a vision-language model, by its ``config.json``."""
    return vlm_config(folder) is not None


def write_text_part(checkpoint: Path, folder: Path) -> Path:
    """Write the text part of a vision-language model's folder, unless an undamaged one exists already.

    Args:
        checkpoint: Folder of the model, ours or a published one.
        folder: Folder to make: ``LlamaForCausalLM`` with the tokenizer; it appears complete or not at all.

    Returns:
        ``folder``.

    Raises:
        CheckpointError: the model is missing or damaged, or is no vision-language model.
    """
    restore_folder(folder)
    if folder.exists() and not damage(folder):
        return folder
    config = vlm_config(checkpoint)
    if config is None:
        raise CheckpointError(
            Problem(
                str(checkpoint), "not a vision-language model", allowed=f"{' or '.join(VLM_TYPES)}"
            )
        )
    if wrong := damage(checkpoint, _is_read):
        raise CheckpointError(Problem(str(checkpoint), "damaged", found="; ".join(wrong[:3])))
    text = _text_config(config)
    weights = dict(_text_weights(checkpoint, tied=text["tie_word_embeddings"]))
    head = "model.embed_tokens.weight" if text["tie_word_embeddings"] else _HEAD
    if head not in weights:
        raise CheckpointError(
            Problem(str(checkpoint), "lacks weights of its text part", found=head)
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    _write(temporary, weights, text)
    for name in _COPIED:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, temporary / name)
    write_checksums(temporary)
    replace_folder(temporary, folder)
    return folder


def _is_read(name: str) -> bool:
    return name.endswith(".safetensors") or name == "config.json" or name in _COPIED


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the text part, with what the whole model's config alone states."""
    text = {**config["text_config"], "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    # The whole model's flag decides: its text part has no output head to tie.
    text["tie_word_embeddings"] = bool(
        config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    )
    text.setdefault("dtype", config.get("dtype"))
    return text


def _text_weights(checkpoint: Path, *, tied: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of the text part by the names of a Llama."""
    from safetensors import safe_open

    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it has no iterator
                if name.startswith(_TEXT):
                    yield "model." + name.removeprefix(_TEXT), tensors.get_tensor(name)
                elif name == _HEAD and not tied:
                    yield name, tensors.get_tensor(name)


def _write(folder: Path, weights: dict[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
