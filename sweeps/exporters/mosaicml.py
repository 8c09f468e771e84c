"""MosaicML Streaming: MDS shards of windows, and streams with proportions for each stage.

A shard is little-endian: uint32 number of samples, uint32 offsets of the samples and of the end, the
columns as JSON, and the samples. A sample has one column, ``tokens``: a window of sequence length + 1
tokens, as in the platform's own reader. The tail of a token file is left out, as in the platform.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ablations.files import write_json, write_text
from sweeps.exporters.export_plan import Export, Source
from sweeps.exporters.tokens import blocks

__all__ = ["usage", "write"]

_VERSION = 2
_SHARD_BYTES = 1 << 26
"""Largest size of a shard's samples, 64 MiB, as in MosaicML's own writer."""


def write(export: Export, folder: Path) -> None:
    """Write a dataset for each source and the stages' streams."""
    width = export.token_bytes
    window = export.plan.schedule.sequence_length + 1
    if export.tokens != "none":
        for source in export.sources.values():
            target = folder / "tokens" / source.slug
            target.mkdir()
            _write_dataset(source, target, window, width)
    for stage in export.plan.stages:
        content = {
            "streams": {
                name: {
                    "local": export.path("tokens", export.sources[name].slug),
                    "proportion": weight,
                }
                for name, weight in stage.weights.items()
            },
            "epoch_size": stage.samples,
            "batch_size": export.plan.schedule.batch_size,
            "shuffle": True,
            "shuffle_seed": export.plan.config.seed,
        }
        text = yaml.safe_dump(content, sort_keys=False, width=100)
        write_text(folder / "stages" / f"{stage.stem}.yaml", text)


def _write_dataset(source: Source, folder: Path, window: int, width: int) -> None:
    columns: dict[str, Any] = {
        "column_encodings": [f"ndarray:uint{8 * width}:{window}"],
        "column_names": ["tokens"],
        "column_sizes": [window * width],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": _VERSION,
    }
    described = json.dumps(columns, sort_keys=True).encode()
    shards: list[dict[str, Any]] = []
    for file in source.files:
        for data in blocks(source, file, multiple=window * width, most=_SHARD_BYTES):
            samples = len(data) // (window * width)
            if not samples:
                continue
            name = f"shard.{len(shards):05d}.mds"
            head = 4 * (samples + 2) + len(described)
            offsets = head + np.arange(samples + 1) * window * width
            kept = memoryview(data)[: samples * window * width]
            with (folder / name).open("wb") as stream:
                stream.write(struct.pack("<I", samples))
                stream.write(offsets.astype("<u4").tobytes())
                stream.write(described)
                stream.write(kept)
            raw = {"basename": name, "bytes": head + len(kept), "hashes": {}}
            shards.append({**columns, "raw_data": raw, "samples": samples, "zip_data": None})
    write_json(folder / "index.json", {"shards": shards, "version": _VERSION})


def usage(export: Export) -> str:
    """Return instructions for reading a stage with MosaicML Streaming."""
    first = export.plan.stages[0].stem
    length = export.plan.schedule.sequence_length
    return f"""
    stage = yaml.safe_load(open("stages/{first}.yaml"))
    streams = [Stream(**stream) for stream in stage.pop("streams").values()]
    data = StreamingDataset(streams=streams, **stage)

A sample's `tokens` is a window of {length + 1} tokens: a model that shifts its labels trains {length} of
them, so set a maximal length of {length + 1}. An epoch of the dataset is the stage; a source with more
than one epoch in it is repeated by the loader. Go on with the next stage's file from the checkpoint.
The learning rate is yours to set; `export.json` holds it.
"""
