"""Make stores whose tokens identify their source, and exports of a schedule over them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ablations.data.manifest import (
    TRAIN,
    HeldOut,
    StoreFile,
    StoreManifest,
    edges_sha256,
    file_sha256,
)
from ablations.data.store import TokenStore
from sweeps.exporters.export_plan import ExportPlan, Source
from sweeps.exporters.origin import plan_of_config

SOURCES = ("synthetic_facts", "synthetic_arithmetic", "synthetic_junk")
EOS = 0
LENGTH = 32
"""Sequence length of the schedule."""
STAGES = {
    "stable": (0.75, dict(zip(SOURCES, (0.6, 0.3, 0.1), strict=True))),
    "decay": (0.25, dict(zip(SOURCES, (0.1, 0.0, 0.9), strict=True))),
}
VOCABULARY = {2: 1024, 4: 100_000}
"""Bytes per token → size of the vocabulary."""
SCHEDULE = {
    "total_tokens": 384_000,
    "stages": {
        name: {"share": share, "weights": weights} for name, (share, weights) in STAGES.items()
    },
}


def write_store(
    folder: Path, source: str, *, token_bytes: int = 2, files: int = 2, documents: int = 120
) -> StoreManifest:
    """Write a store of random documents; a token that is not EOS is the source's number modulo 3."""
    number = SOURCES.index(source)
    rng = np.random.default_rng(number)
    dtype = np.dtype("<u2" if token_bytes == 2 else "<u4")
    (folder / TRAIN).mkdir(parents=True)
    (folder / "heldout.jsonl").write_text('{"id": "0", "text": "text"}\n')
    made = []
    for part in range(files):
        lengths = rng.integers(1, 200, documents)
        pieces = [rng.integers(1, (VOCABULARY[token_bytes] - 3) // 3, size) for size in lengths]
        texts = [[*(3 * piece + number), EOS] for piece in pieces]
        tokens = np.concatenate(texts or [[]]).astype(dtype)
        path = folder / TRAIN / f"{part:05d}_tokens.ds"
        tokens.tofile(path)
        np.cumsum(lengths + 1).astype("<u8").tofile(path.with_name(f"{path.name}.index"))
        made.append(
            StoreFile(
                name=path.name,
                tokens=len(tokens),
                documents=documents,
                sha256=file_sha256(path),
                edges_sha256=edges_sha256(path),
            )
        )
    manifest = StoreManifest(
        source=source,
        domain="made",
        tokenizer="synthetic_bpe",
        tokenizer_hash="0" * 64,
        vocab_size=VOCABULARY[token_bytes],
        eos_id=EOS,
        token_bytes=token_bytes,
        tokens=sum(file.tokens for file in made),
        documents=documents * files,
        bytes=1,
        files=tuple(made),
        heldout=HeldOut(documents=1, bytes=4, sha256=file_sha256(folder / "heldout.jsonl")),
    )
    manifest.write(folder)
    return manifest


def small_store(
    folder: Path, content: Sequence[int], ends: Sequence[int], width: int = 2
) -> Source:
    """Write a store of one file with these tokens and document ends; token 0 ends a document."""
    made = write_store(folder, SOURCES[0], files=1, documents=1, token_bytes=width)
    path = folder / "train/00000_tokens.ds"
    np.array(content, f"<u{width}").tofile(path)
    np.array(ends, "<u8").tofile(path.with_name(f"{path.name}.index"))
    file = replace(
        made.files[0],
        tokens=len(content),
        documents=len(ends),
        sha256=file_sha256(path),
        edges_sha256=edges_sha256(path),
    )
    made = replace(made, files=(file,), tokens=len(content))
    return Source(name="s", folder=folder, manifest=made, tokens=float(len(content)))


@cache
def _composed() -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir
    from tests.conftest import TINY

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        values = OmegaConf.to_container(compose("run", overrides=list(TINY)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def config_values(data_dir: Path, token_bytes: int = 2) -> dict[str, Any]:
    """Return plain values of a run over the made stores."""
    values = copy.deepcopy(_composed())
    values["data_dir"] = str(data_dir)
    values["schedule"] = {**values["schedule"], **SCHEDULE}
    values["model"]["vocab_size"] = VOCABULARY[token_bytes]
    return {**values, "study": "made"}


Made = Callable[..., ExportPlan]


@pytest.fixture(scope="session")
def made_stores(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Path]:
    """Return bytes per token → data folder with the three sources; tests must not change it."""
    folders = {}
    for token_bytes in (2, 4):
        folders[token_bytes] = tmp_path_factory.mktemp(f"stores{token_bytes}")
        for source in SOURCES:
            folder = folders[token_bytes] / "synthetic_bpe" / source
            write_store(folder, source, token_bytes=token_bytes)
    return folders


@pytest.fixture(scope="session")
def made_plan(made_stores: Mapping[int, Path]) -> Callable[[int], ExportPlan]:
    """Return the plan over the stores with tokens of ``token_bytes`` bytes."""
    return lambda token_bytes: plan_of_config(config_values(made_stores[token_bytes], token_bytes))


def stored_files(plan: ExportPlan, source: str) -> list[npt.NDArray[np.int64]]:
    """Return the tokens of each token file of a source."""
    store = TokenStore.open(plan.config.store_folder(source))
    return [
        np.fromfile(store.folder / TRAIN / file.name, dtype=store.dtype).astype(np.int64)
        for file in store.manifest.files
    ]


def stored_windows(plan: ExportPlan, source: str) -> npt.NDArray[np.int64]:
    """Return the windows of a source, [n, sequence length + 1]."""
    store = TokenStore.open(plan.config.store_folder(source))
    windows: npt.NDArray[np.int64] = store.read(
        np.arange(store.num_windows(LENGTH)), LENGTH
    ).astype(np.int64)
    return windows


def sources_of(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of the source of each row of tokens; every row must be of one source."""
    signed = rows.astype(np.int64)  # unsigned tokens cannot be -1
    masked = np.where(signed == EOS, -1, signed % 3)
    numbers: npt.NDArray[np.int64] = masked.max(axis=1)
    assert bool(((masked == numbers[:, None]) | (masked == -1)).all())
    return numbers


def shares_of(rows: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return source → share of the rows."""
    counts = np.bincount(sources_of(rows), minlength=len(SOURCES))
    return {name: float(c) / len(rows) for name, c in zip(SOURCES, counts, strict=True)}
