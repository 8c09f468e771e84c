"""Small token stores written directly, for tests and benchmarks of the trainer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ablations.data.manifest import (
    TRAIN,
    HeldOut,
    StoreFile,
    StoreManifest,
    edges_sha256,
)
from ablations.files import file_sha256

EOS = 0


def write_store(
    folder: Path, *, vocab_size: int, tokens: int, seed: int, document_tokens: int = 50
) -> Path:
    """A store of documents that repeat a short random phrase: something a small model can learn."""
    (folder / TRAIN).mkdir(parents=True)
    random = np.random.default_rng(seed)
    stream, ends, length = [], [], 0
    while length < tokens:
        size = int(random.integers(2, 2 * document_tokens))
        phrase = random.integers(1, vocab_size, size=int(random.integers(2, 6)))
        document = np.append(np.resize(phrase, size), EOS)
        stream.append(document)
        length += len(document)
        ends.append(length)
    file = folder / TRAIN / "00000_train.ds"
    np.concatenate(stream).astype("<u2").tofile(file)
    np.array(ends, dtype="<u8").tofile(file.with_name(file.name + ".index"))
    (folder / "heldout.jsonl").touch()
    StoreManifest(
        source=folder.name,
        domain="test",
        tokenizer="none",
        tokenizer_hash="0",
        vocab_size=vocab_size,
        eos_id=EOS,
        token_bytes=2,
        tokens=length,
        documents=len(ends),
        bytes=length,
        files=(
            StoreFile(
                name=file.name,
                tokens=length,
                documents=len(ends),
                sha256=file_sha256(file),
                edges_sha256=edges_sha256(file),
            ),
        ),
        heldout=HeldOut(documents=0, bytes=0, sha256=file_sha256(folder / "heldout.jsonl")),
    ).write(folder)
    return folder


def write_stores(root: Path, *, vocab_size: int, tokens: int = 40_000) -> dict[str, Path]:
    """Two sources, web and code."""
    return {
        name: write_store(root / name, vocab_size=vocab_size, tokens=tokens, seed=seed)
        for seed, name in enumerate(("web", "code"))
    }


def only_one_thread() -> None:
    """Keep helper processes from taking more cores than the test says."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
