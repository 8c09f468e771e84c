"""The text part of a vision-language model: the same logits on text, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import CheckpointError
from ablations.record.checksums import damage, write_checksums
from ablations.training.vlm.text_part import is_vlm, write_text_part
from tests.oracles.vision_models import write_vlm


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vlm(tmp_path_factory.mktemp("vlm") / "model", tied=request.param)


def logits(model: Any, ids: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(ids).logits


def test_the_logits_of_the_text_part_are_those_of_the_whole_model(
    vlm: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    folder = write_text_part(vlm, tmp_path / "text")
    part, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(part).__name__ == "LlamaForCausalLM"
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    whole = AutoModelForImageTextToText.from_pretrained(vlm)
    ids = torch.randint(0, 290, (3, 40), generator=torch.Generator().manual_seed(1))
    assert torch.equal(logits(part, ids), logits(whole, ids))
    assert not damage(folder)
    assert (folder / "checksums.json").is_file()


def test_a_text_part_that_is_there_is_kept_and_a_damaged_one_is_written_again(
    vlm: Path, tmp_path: Path
) -> None:
    folder = write_text_part(vlm, tmp_path / "text")
    weights = folder / "model.safetensors"
    before, written = weights.read_bytes(), weights.stat().st_mtime_ns
    write_text_part(vlm, folder)
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    write_text_part(vlm, folder)
    assert weights.read_bytes() == before


def test_a_damaged_or_another_model_has_no_text_part(vlm: Path, tmp_path: Path) -> None:
    other = tmp_path / "llama"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert is_vlm(vlm)
    assert not is_vlm(other)
    assert not is_vlm(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not a vision-language model"):
        write_text_part(other, tmp_path / "text")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in vlm.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    write_checksums(copy)
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        write_text_part(copy, tmp_path / "text")
    assert not (tmp_path / "text").exists()
