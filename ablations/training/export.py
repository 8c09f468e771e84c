"""Export of a checkpoint of any topology to a transformers Llama folder, without nanotron and without a GPU.

    checkpoints/120/model/layers/0/pp_block/attn/qkv_proj/model_weight_pp-rank-0-of-1_tp-rank-0-of-2.safetensors
      ─▶ exports/120/model.safetensors   model.layers.0.self_attn.{q,k,v}_proj.weight

nanotron writes one file for each tensor and tensor-parallel rank; the file's metadata give its slices of the
full tensor. The platform's Llama has the layout of transformers', with q, k, v in one matrix and gate, up in
another, so that an export joins, splits and renames tensors. Logits agree to 4e-7.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import CheckpointError, Problem
from ablations.files import replace_folder, restore_folder, write_json
from ablations.record.checksums import damage, write_checksums
from ablations.training.checkpoints import model_config, require_intact, require_whole

if TYPE_CHECKING:
    import torch

__all__ = ["export_checkpoint", "read_weights", "remove_export", "tidy_exports"]

_COPIED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
    *("tie_word_embeddings", "initializer_range", "bos_token_id", "eos_token_id"),
)

Weights = dict[str, "torch.Tensor"]


def export_checkpoint(checkpoint: Path, destination: Path, tokenizer: Path | None) -> Path:
    """Write the transformers folder of a checkpoint, unless an undamaged one exists already.

    Args:
        checkpoint: ``…/checkpoints/<step>``.
        destination: Folder to make; it appears complete or not at all.
        tokenizer: Folder whose tokenizer files are copied into it.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete or damaged, or lacks a tensor.
    """
    restore_folder(destination)
    if destination.exists() and not damage(destination):
        return destination
    require_whole(checkpoint)
    require_intact(checkpoint, weights_only=True)
    config = model_config(checkpoint)
    weights = _llama_weights(read_weights(checkpoint), config, checkpoint)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    _write(temporary, weights, config)
    if tokenizer is not None:
        for file in sorted(tokenizer.glob("*.json")):
            if file.name != "config.json":
                shutil.copyfile(file, temporary / file.name)
    write_checksums(temporary)
    replace_folder(temporary, destination)
    return destination


def remove_export(folder: Path) -> None:
    """Remove an export; it is renamed first, so that a process that dies here leaves no partial export."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def tidy_exports(folder: Path) -> None:
    """Remove what killed writers left beside the exports; call this only from the run's one writer."""
    for export in folder.glob(".*.old"):
        restore_folder(folder / export.name[1:].removesuffix(".old"))
    for left in folder.glob(".*"):
        shutil.rmtree(left, ignore_errors=True)


def _write(folder: Path, weights: Weights, config: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    write_json(folder / "config.json", _llama_config(config, dtype))


def _llama_config(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return ``config.json``, for transformers 4 (rope_theta) and 5 (rope_parameters)."""
    theta = config["rope_theta"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: config[name] for name in _COPIED},
        "head_dim": config["hidden_size"] // config["num_attention_heads"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "dtype": dtype,
    }


# ------------------------------------------------------------------------------ nanotron's files


def read_weights(checkpoint: Path) -> Weights:
    """Return every full tensor of a checkpoint, by its name without nanotron's pipeline wrapping."""
    import torch
    from safetensors import safe_open

    whole: Weights = {}
    root = checkpoint / "model"
    for file in sorted(root.rglob("*.safetensors")):
        name = _tensor_name(file.relative_to(root))
        with safe_open(file, framework="pt") as stream:
            part, notes = stream.get_tensor("data"), stream.metadata() or {}
        if "local_global_slices_pairs" not in notes:
            whole[name] = part
            continue
        shape = [int(size) for size in re.findall(r"\d+", notes["unsharded_shape"])]
        full = whole.setdefault(name, torch.empty(shape, dtype=part.dtype))
        for local, world in _slice_pairs(notes["local_global_slices_pairs"]):
            full[world] = part[local]
    return whole


def _tensor_name(file: Path) -> str:
    """Return the dotted name of ``layers/0/pp_block/mlp/down_proj/model_weight….safetensors``."""
    last = file.name.removeprefix("model_").split("_")[0].split(".")[0]
    return ".".join((*file.parent.parts, last)).replace(".pp_block", "")


def _slice_pairs(text: str) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield the (local, global) slices of ``0,8,None|None,None,None#16,24,None|None,None,None;…``."""
    for pair in text.split(";"):
        local, world = pair.split("#")
        yield _slices(local), _slices(world)


def _slices(text: str) -> tuple[slice, ...]:
    return tuple(
        slice(*(None if bound == "None" else int(bound) for bound in part.split(",")))
        for part in text.split("|")
    )


# ---------------------------------------------------------------------------- transformers' names


def _llama_weights(weights: Weights, config: Mapping[str, Any], checkpoint: Path) -> Weights:
    try:
        return _renamed(weights, config)
    except KeyError as missing:
        raise CheckpointError(
            Problem(str(checkpoint), "lacks a tensor", found=f"no {missing.args[0]}")
        ) from None


def _renamed(weights: Weights, config: Mapping[str, Any]) -> Weights:
    renamed = {
        "model.embed_tokens.weight": weights["embed.token_embedding.weight"],
        "model.norm.weight": weights["head.norm.weight"],
    }
    if not config["tie_word_embeddings"]:
        renamed["lm_head.weight"] = weights["head.lm_head.weight"]
    for layer in range(config["num_hidden_layers"]):
        renamed |= _renamed_layer(weights, config, f"layers.{layer}.")
    return renamed


def _renamed_layer(weights: Weights, config: Mapping[str, Any], prefix: str) -> Weights:
    import torch

    width = config["hidden_size"] // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * width
    sizes = [config["num_attention_heads"] * width, kv, kv]
    q, k, v = torch.split(weights[f"{prefix}attn.qkv_proj.weight"], sizes)
    gate, up = weights[f"{prefix}mlp.gate_up_proj.weight"].chunk(2)
    layer = {
        "self_attn.q_proj": q,
        "self_attn.k_proj": k,
        "self_attn.v_proj": v,
        "self_attn.o_proj": weights[f"{prefix}attn.o_proj.weight"],
        "mlp.gate_proj": gate,
        "mlp.up_proj": up,
        "mlp.down_proj": weights[f"{prefix}mlp.down_proj.weight"],
        "input_layernorm": weights[f"{prefix}input_layernorm.weight"],
        "post_attention_layernorm": weights[f"{prefix}post_attention_layernorm.weight"],
    }
    return {f"model.{prefix}{name}.weight": tensor for name, tensor in layer.items()}
