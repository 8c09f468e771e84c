"""Damage the header of a tensor file: its checkpoint is incomplete, and nothing else is raised."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from ablations.training.checkpoints import is_whole


def checkpoint(folder: Path, content: bytes) -> Path:
    (folder / "model").mkdir()
    for name in ("model_config.json", "checkpoint_metadata.json"):
        (folder / name).write_text("{}")
    (folder / "model/a.safetensors").write_bytes(content)
    return folder


def tensors(header: object, data: bytes = bytes(8)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_whole_file_is_whole(tmp_path: Path) -> None:
    header = {"__metadata__": {}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    assert is_whole(checkpoint(tmp_path, tensors(header)))


@pytest.mark.parametrize(
    "content",
    [
        b'{"some": "other"}\n',  # its first 8 bytes are a length of exabytes
        b"",
        struct.pack("<Q", 2**63 - 1) + b"{}",
        tensors([1, 2, 3]),
        tensors(None),
        tensors({"w": "text"}),
        tensors({"w": {"data_offsetz": [0, 8]}}),
        tensors({"w": {"data_offsets": [0]}}),
        tensors({"w": {"data_offsets": [0, "8"]}}),
        struct.pack("<Q", 4) + b"\xff\xfe{}" + bytes(8),
    ],
)
def test_a_damaged_header_is_an_incomplete_checkpoint(tmp_path: Path, content: bytes) -> None:
    assert not is_whole(checkpoint(tmp_path, content))
