"""Model of a transformers folder: its weights, and the parts of it that the prompts depend on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import CheckpointError, EvaluationError, Problem, UserError
from ablations.record.checksums import damage
from ablations.training.vlm.text_part import is_vlm

if TYPE_CHECKING:
    from ablations.evaluation.logprob_scorer import CausalLM

__all__ = ["load_model", "load_tokenizer", "one_line", "prompt_parts", "training_separator"]

TOKENIZER_SPEC = "spec.json"
"""Settings file in a tokenizer's folder and in every export; see ``ablations.data.tokenizer``."""


def training_separator(folder: Path) -> int | None:
    """Return the id of the token that this platform's training put after each document.

    Stores contain text and that token, whatever the tokenizer's post-processor adds (such as a BOS),
    because datatrove's writer replaces the post-processor. An export of this platform has the settings of
    the tokenizer that the stores were made with, so the folder itself shows how it was trained.

    Returns:
        None for a folder that was not trained here; the tokenizer's own rule applies to it.

    Raises:
        CheckpointError: the settings cannot be read.
    """
    path = folder / TOKENIZER_SPEC
    if not path.is_file():
        return None
    try:
        made = json.loads(path.read_bytes())
        return int(made["eos_id"]) if "hash" in made else None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            Problem(str(path), "not the settings of a tokenizer", found=error, do="export again")
        ) from error


def prompt_parts(folder: Path) -> tuple[Any, ...]:
    """Return the parts of a model that its prompts depend on: tokenizer, window, vision part; no weights."""
    config = json.loads((folder / "config.json").read_text())
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TOKENIZER_SPEC)
    files = tuple((folder / n).read_bytes() for n in names if (folder / n).exists())
    vision = [config.get(name) for name in ("vision_config", "scale_factor", "image_token_id")]
    positions = (config.get("text_config") or config).get("max_position_embeddings")
    return (positions, config.get("architectures"), json.dumps(vision, sort_keys=True), files)


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a transformers folder.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise _unloadable(folder, "no tokenizer that transformers can load", error) from error


def load_model(folder: Path, device: str, dtype: str | None) -> CausalLM:
    """Load the model of a transformers folder onto a device; one that sees pictures as a ``PictureLM``.

    Args:
        folder: Folder of a language model or of a vision-language model.
        device: ``cpu``, ``cuda`` or ``cuda:<n>``.
        dtype: Type of the weights; None = bfloat16 on CUDA, float32 on a CPU.

    Raises:
        CheckpointError: it is missing, damaged, or not a model that transformers can load.
    """
    import torch

    from ablations.evaluation.logprob_scorer import CausalLM

    if not (folder / "config.json").exists():
        raise CheckpointError(
            Problem(
                str(folder),
                "not a transformers folder",
                found="no config.json",
                do="export the checkpoint first, or give a folder that contains config.json",
            )
        )
    if wrong := damage(folder):
        raise CheckpointError(
            Problem(str(folder), "damaged", found="; ".join(wrong[:3]), do="export it again")
        )
    sees = is_vlm(folder)
    cuda = device.startswith("cuda")
    try:
        with _no_progress_bar():
            model = _auto_class(sees).from_pretrained(
                str(folder),
                dtype=getattr(torch, dtype or ("bfloat16" if cuda else "float32")),
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,  # unset, transformers asks, and may run code of the folder
            )
    except Exception as error:  # transformers raises errors of many types for a broken folder
        raise _unloadable(folder, "not a model that transformers can load", error) from error
    if not sees:
        return CausalLM(model.to(device))
    from ablations.evaluation.picture_model import PictureLM

    return PictureLM(model.to(device))


def _auto_class(sees: bool) -> Any:
    """Return the class of transformers that loads a model with or without a vision part."""
    if sees:
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Disable the bar of transformers, which would break ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unloadable(folder: Path, what: str, error: Exception) -> CheckpointError:
    return CheckpointError(Problem(str(folder), what, found=one_line(error)))


def one_line(error: Exception) -> str:
    """Return an error as a reason on one line, with its type unless the error is one of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, (UserError, EvaluationError)):
        return text
    return f"{type(error).__name__}: {text}"[:300]
