"""Megatron-LM: an indexed dataset for each token file, and a blend for each stage.

An indexed dataset is two files. ``.bin`` contains the tokens of all sequences, one after the other:
it is the store's own token file. ``.idx`` is little-endian::

    9 bytes    MMIDIDX, two zero bytes
    uint64     version, 1
    uint8      type of a token: 8 = uint16, 4 = int32
    uint64     number of sequences, n
    uint64     number of document indices, n + 1
    int32[n]   tokens of each sequence
    int64[n]   start of each sequence in .bin, in bytes
    int64[n+1] first sequence of each document, and n at the end

A sequence is a document with its end-of-document token. Ids of four bytes are written as int32,
which has the same bits below 2^31.

A blend lists weights and paths alternately. The weight of a source with several token files is
divided among them in proportion to their tokens. ``megatron/training/training.py`` (d98e8a64, August
2026) reads the blend of the phase between two ``--phase-transition-iterations``, and saves and exits
at each.
"""

from __future__ import annotations

import shlex
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ablations.data.manifest import StoreFile
from ablations.errors import DataError, Problem
from ablations.files import write_text
from sweeps.exporters.export_plan import Export, ExportStage, Source
from sweeps.exporters.tokens import document_ends, place_file

__all__ = ["usage", "write", "write_index"]

_HEADER = b"MMIDIDX\x00\x00"
_VERSION = 1
_TYPES = {2: 8, 4: 4}
"""Bytes of a token → Megatron's number of its type."""
_BLOCK = 1 << 19


def write(export: Export, folder: Path) -> None:
    """Write the datasets and the stages' blends and arguments."""
    if export.tokens != "none":
        for source in export.sources.values():
            (folder / "tokens" / source.slug).mkdir()
            for number, file in enumerate(source.files):
                stem = folder / "tokens" / source.slug / _stem(number)
                place_file(source, file, stem.with_suffix(".bin"), export.tokens)
                with stem.with_suffix(".idx").open("wb") as stream:
                    write_index(source, file, stream)
    for stage in export.plan.stages:
        blend = " ".join(f"{weight!r} {path}" for path, weight in _blend(export, stage))
        write_text(folder / "stages" / f"{stage.stem}.blend", blend + "\n")
        write_text(folder / "stages" / f"{stage.stem}.args", _arguments(export, stage))


def write_index(source: Source, file: StoreFile, stream: BinaryIO) -> None:
    """Write the ``.idx`` of a token file, in three passes over its document ends.

    Raises:
        DataError: document ends that do not fit the file, or a document of 2^31 tokens or more.
    """
    assert source.manifest is not None
    width = source.manifest.token_bytes
    stream.write(_HEADER)
    stream.write(struct.pack("<QB", _VERSION, _TYPES[width]))
    stream.write(struct.pack("<QQ", file.documents, file.documents + 1))
    last = 0
    for ends in document_ends(source, file):
        lengths = np.diff(ends, prepend=last)
        if int(lengths.max()) >= 2**31:
            raise DataError(
                Problem(file.name, "a document too long for Megatron", found=int(lengths.max()))
            )
        stream.write(lengths.astype("<i4").tobytes())
        last = int(ends[-1])
    last = 0
    for ends in document_ends(source, file):
        stream.write((np.concatenate([[last], ends[:-1]]) * width).astype("<i8").tobytes())
        last = int(ends[-1])
    for start in range(0, file.documents + 1, _BLOCK):
        end = min(start + _BLOCK, file.documents + 1)
        stream.write(np.arange(start, end, dtype="<i8").tobytes())


def _stem(number: int) -> str:
    return f"{number:05d}"


def _blend(export: Export, stage: ExportStage) -> list[tuple[str, float]]:
    """Return path without ending and weight of each token file that the stage reads."""
    blend: list[tuple[str, float]] = []
    for name, weight in stage.weights.items():
        source = export.sources[name]
        total = sum(file.tokens for file in source.files)
        if not source.files:
            blend.append((export.path("tokens", source.slug, _stem(0)), weight))
        blend += [
            (export.path("tokens", source.slug, _stem(number)), weight * file.tokens / total)
            for number, file in enumerate(source.files)
        ]
    return blend


def _arguments(export: Export, stage: ExportStage) -> str:
    """Return the stage's arguments of ``pretrain_gpt.py``, one per line."""
    plan = export.plan
    lines = [
        f"--data-args-path {export.path('stages', f'{stage.stem}.blend')}",
        # The schedule uses each dataset whole, so no part is left for evaluation.
        "--split 100,0,0",
        "--eval-iters 0",
        f"--seq-length {plan.schedule.sequence_length}",
        f"--global-batch-size {plan.schedule.batch_size}",
        f"--train-samples {plan.schedule.total_samples}",
    ]
    ends = [str(before.last_step) for before in plan.stages[:-1]]
    if ends:
        lines.append(f"--phase-transition-iterations {','.join(ends)}")
    return "\n".join(lines) + "\n"


def usage(export: Export) -> str:
    """Return instructions for starting Megatron-LM with the files."""
    first = export.plan.stages[0].stem
    return f"""
Each stage has its blend and the arguments that go with it:

    pretrain_gpt.py $(cat {shlex.quote(export.path("stages", f"{first}.args"))}) …

Megatron saves and stops at the end of a stage. Start it again with the next stage's arguments and the
same checkpoints: it reads the new blend from its beginning. Every document ends with token
{export.eos_id}, so no `--append-eod` is needed. The order of the documents is Megatron's own.
No part of a dataset is kept for validation. The learning rate, the model and the tokenizer are yours to
set; `export.json` holds the learning rate.
"""
