"""nanotron 0.4's checkpoint files of one rank, written and read without nanotron.

For trainings that nanotron does not run itself (``ablations.training.together``): a checkpoint
written here is one that nanotron resumes from, and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ablations.training.export import read_weights
from ablations.training.specs import ModelSpec

__all__ = ["OneRank", "read_one_rank", "write_one_rank"]

_VERSION = "1.2"
_SPLIT_ROWS = ("token_embedding", "qkv_proj", "gate_up_proj", "lm_head")
_OPTIMIZER = "optimizer_pp-0-of-1_tp-0-of-1_exp-0-of-1.pt"
_RANK = "_pp-rank-0-of-1_tp-rank-0-of-1"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class OneRank:
    """What a training of one rank holds, by canonical parameter names."""

    weights: Tensors
    exp_avg: Tensors
    exp_avg_sq: Tensors
    masters: Tensors | None
    """float32 copies of bfloat16 weights; None where the weights are float32."""
    updates: int
    """Times that AdamW stepped."""


def write_one_rank(
    folder: Path,
    state: OneRank,
    *,
    model: ModelSpec,
    step: int,
    samples: int,
    group: Mapping[str, Any],
) -> None:
    """Write the files; ``model_config.json`` last, as nanotron does.

    Args:
        group: AdamW's settings (lr, betas, eps, weight_decay).
    """
    for name, tensor in state.weights.items():
        _write_tensor(folder / "model", name, tensor)
    (folder / "optimizer").mkdir()
    _write_optimizer(folder / "optimizer", state, group)
    scheduler = {"base_lrs": [group["lr"]], "last_epoch": step, "_step_count": 1}
    (folder / "lr_scheduler").mkdir()
    torch.save(scheduler, folder / "lr_scheduler" / "lr_scheduler.pt")
    meta = {
        "dp": 1,
        "tp": 1,
        "version": _VERSION,
        "metas": {"consumed_train_samples": samples, "last_train_step": step},
    }
    (folder / "checkpoint_metadata.json").write_text(json.dumps(meta, indent=2))
    (folder / "model_config.json").write_text(json.dumps({**asdict(model), "model_type": "llama"}))


def read_one_rank(checkpoint: Path) -> OneRank:
    """The inverse of :func:`write_one_rank`."""
    file = checkpoint / "optimizer" / _OPTIMIZER
    stored = torch.load(file, map_location="cpu", weights_only=True)
    names = {index: name.replace(".pp_block", "") for index, name in stored["names"].items()}
    moments = {names[index]: values for index, values in stored["state"].items()}
    masters = stored.get("gradient_accumulator")
    return OneRank(
        weights=read_weights(checkpoint),
        exp_avg={name: values["exp_avg"] for name, values in moments.items()},
        exp_avg_sq={name: values["exp_avg_sq"] for name, values in moments.items()},
        masters={name.replace(".pp_block", ""): tensor for name, tensor in masters.items()}
        if masters
        else None,
        updates=int(next(iter(moments.values()))["step"]),
    )


def _wrapped(name: str) -> str:
    """``layers.0.mlp.down_proj.weight`` → ``layers.0.pp_block.mlp.down_proj.weight``."""
    parts = name.split(".")
    cut = 2 if parts[0] == "layers" else 1
    return ".".join((*parts[:cut], "pp_block", *parts[cut:]))


def _write_tensor(root: Path, name: str, tensor: torch.Tensor) -> None:
    *module, last = _wrapped(name).split(".")
    folder = root.joinpath(*module)
    folder.mkdir(parents=True)
    if tensor.dim() == 1:
        save_file({"data": tensor}, folder / f"model_{last}.safetensors")
        return
    rows, columns = tensor.shape
    world = f"0,{rows},None|None,None,None"
    if module[-1] not in _SPLIT_ROWS:
        world = f"None,None,None|0,{columns},None"
    notes = {
        "version": _VERSION,
        "unsharded_shape": str((rows, columns)),
        "local_global_slices_pairs": f"None,None,None|None,None,None#{world}",
    }
    save_file({"data": tensor}, folder / f"model_{last}{_RANK}.safetensors", metadata=notes)


def _write_optimizer(folder: Path, state: OneRank, group: Mapping[str, Any]) -> None:
    names = list(state.exp_avg)
    content: dict[str, Any] = {
        "state": {
            index: {
                "step": torch.tensor(float(state.updates)),
                "exp_avg": state.exp_avg[name],
                "exp_avg_sq": state.exp_avg_sq[name],
            }
            for index, name in enumerate(names)
        },
        "param_groups": [{**group, "fused": True, "params": list(range(len(names)))}],
        "names": {index: _wrapped(name) for index, name in enumerate(names)},
    }
    if state.masters is not None:
        content["gradient_accumulator"] = {_wrapped(n): t for n, t in state.masters.items()}
    torch.save(content, folder / _OPTIMIZER)
    kind = "NamedOptimizer" if state.masters is None else "OptimizerFromGradientAccumulator"
    sizes = dict.fromkeys(("tp_size", "dp_size", "pp_size", "expert_parallel_size"), "1")
    config = {"type": kind, "parallelism": sizes, "configs": {}}
    (folder / "optimizer_config.json").write_text(json.dumps(config))
