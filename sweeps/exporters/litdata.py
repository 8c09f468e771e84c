"""LitData: chunks of windows for its ``TokensLoader``, which litgpt's data modules use too.

A chunk is little-endian: uint32 number of items, uint32 offsets of the items and of the end, and the
items. ``index.json`` lists the chunks with the tokens of each (``dim``). An item here is a window of
sequence length + 1 tokens, as in the platform's own reader, so that
``TokensLoader(block_size=sequence_length + 1)`` returns the windows of the store in order. The last
chunk of a token file ends with the file's tail, which the loader skips, as the platform does.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ablations.files import write_json
from sweeps.exporters.export_plan import Export, Source
from sweeps.exporters.tokens import blocks

__all__ = ["usage", "write"]

_CHUNK_BYTES = 1 << 26
"""Largest chunk, 64 MiB: LitData's own default. A loader fetches whole chunks."""
_TYPES = {2: 20, 4: 15}
"""Bytes of a token → LitData's number of torch.uint16 and torch.int32 (it has no uint32)."""
_LEAF = json.dumps([1, {"type": None, "context": None, "children_spec": []}])
"""Torch's notation for the structure of an item that is one tensor."""


def write(export: Export, folder: Path) -> None:
    """Write a dataset for each source and the stages' weights."""
    block = export.plan.schedule.sequence_length + 1
    if export.tokens != "none":
        for source in export.sources.values():
            target = folder / "tokens" / source.slug
            target.mkdir()
            _write_dataset(source, target, block * export.token_bytes, export.token_bytes)
    for stage in export.plan.stages:
        content = {
            "datasets": [export.path("tokens", export.sources[n].slug) for n in stage.weights],
            "weights": list(stage.weights.values()),
            "seed": export.plan.config.seed,
            "block_size": block,
            "samples": stage.samples,
        }
        write_json(folder / "stages" / f"{stage.stem}.json", content)


def _write_dataset(source: Source, folder: Path, window_bytes: int, width: int) -> None:
    chunks: list[dict[str, Any]] = []
    for file in source.files:
        # A chunk is a block of the file. All but the file's last are multiples of the window.
        for data in blocks(source, file, multiple=window_bytes, most=_CHUNK_BYTES):
            whole, tail = divmod(len(data), window_bytes)
            sizes = [window_bytes] * whole + [tail] * (tail > 0)
            name = f"chunk-0-{len(chunks)}.bin"
            header = 4 * (len(sizes) + 2)
            offsets = header + np.cumsum([0, *sizes])
            with (folder / name).open("wb") as stream:
                stream.write(struct.pack("<I", len(sizes)))
                stream.write(offsets.astype("<u4").tobytes())
                stream.write(data)
            chunks.append(
                {
                    "chunk_bytes": header + len(data),
                    "chunk_size": len(sizes),
                    "dim": len(data) // width,
                    "filename": name,
                }
            )
    config = {
        "chunk_bytes": _CHUNK_BYTES,
        "chunk_size": None,
        "compression": None,
        "data_format": [f"no_header_tensor:{_TYPES[width]}"],
        "data_spec": _LEAF,
        "encryption": None,
        "item_loader": "TokensLoader",
    }
    write_json(folder / "index.json", {"chunks": chunks, "config": config, "updated_at": "0"})


def usage(export: Export) -> str:
    """Return instructions for reading a stage with LitData."""
    first = export.plan.stages[0].stem
    return f"""
    stage = json.load(open("stages/{first}.json"))
    datasets = [
        StreamingDataset(path, item_loader=TokensLoader(stage["block_size"]), shuffle=True)
        for path in stage["datasets"]
    ]
    data = CombinedStreamingDataset(
        datasets, weights=stage["weights"], seed=stage["seed"], iterate_over_all=False
    )

An item is a window of sequence length + 1 tokens; litgpt takes the first and the last
{export.plan.schedule.sequence_length} of it as input and target. LitData draws the source of each sample at
random, so the shares come near the weights as samples grow (within 0.1% from about two million). It
stops at the first dataset that is used up: where `export.json` shows more than one epoch of a source,
its `StreamingDataset` has to be read again. Take `samples` samples, then go on with the next stage.
The learning rate is yours to set; `export.json` holds it.
"""
