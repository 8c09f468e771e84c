"""Cut a source's token files into buckets by the scores of their documents.

    uncut/00000_….ds, .index, .scores  ──▶  b0/train/00000_….ds, .index, .scores
                                            b1/train/…

The ranks of a preparation write their documents with a score each, as float32. When all are through,
the edges are known (quantiles need every score), and the tokens are copied, not made again. The order
of a rank's documents stays as the shuffle left it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.buckets import BucketsSpec, bucket_folder
from ablations.data.manifest import TRAIN
from ablations.data.tokenizer import Tokenizer
from ablations.errors import DataError, Problem

__all__ = [
    "SCORES",
    "buckets_of",
    "cut",
    "find_edges",
    "noting",
    "read_scores",
    "write_rank_scores",
    "write_scores",
]

SCORES = ".scores"
"""Ending of the file beside a token file with the score of each document: float32, NaN = none."""

_CHUNK_TOKENS = 1 << 24
_MOST_SORTED = 10_000_000
"""Documents whose scores are sorted for quantiles; of more, every k-th one is taken."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Uncut:
    """One token file before the cut."""

    path: Path
    lengths: npt.NDArray[np.int64]
    """Tokens of each document, its end token included."""
    scores: Scores


def write_scores(path: Path, scores: Sequence[float]) -> None:
    """Write the scores of the documents of the token file ``path`` beside it."""
    np.asarray(scores, dtype="<f4").tofile(path.with_name(path.name + SCORES))


def noting(documents: Iterable[Any], noted: list[float]) -> Iterator[Any]:
    """Pass datatrove's documents on and note their scores, NaN where there is none."""
    for document in documents:
        noted.append(float(document.metadata.get("score", math.nan)))
        yield document


def write_rank_scores(
    folder: Path, rank: int, noted: Sequence[float], order: npt.NDArray[np.int64]
) -> None:
    """Write the scores that a rank noted in the order in which its token file has the documents."""
    (path,) = (folder / TRAIN).glob(f"{rank:05d}_*.ds")
    write_scores(path, np.array(noted, dtype=np.float32)[order].tolist())


def read_scores(path: Path) -> Scores:
    """Return the scores of the documents of the token file ``path``; NaN = no score."""
    found: Scores = np.fromfile(path.with_name(path.name + SCORES), dtype="<f4")
    return found


def find_edges(
    spec: BucketsSpec, scores: Scores, lengths: npt.NDArray[np.int64], where: str
) -> tuple[float, ...]:
    """Return the lowest score of each bucket but the first.

    Args:
        spec: The buckets.
        scores: Score of each document; NaN = none, which belongs to bucket 0.
        lengths: Tokens of each document.
        where: Source, for messages.

    Raises:
        DataError: fewer distinct scores than quantiles.
    """
    if spec.quantiles is None:
        return spec.edges
    step = max(1, len(scores) // _MOST_SORTED)
    taken, weight = scores[::step], lengths[::step]
    order = np.argsort(np.nan_to_num(taken, nan=-np.inf), kind="stable")
    below = np.cumsum(weight[order])
    places = below[-1] * np.arange(1, spec.quantiles) / spec.quantiles
    edges = [float(edge) for edge in taken[order][np.searchsorted(below, places, side="right")]]
    distinct = len(set(edges))
    if distinct < len(edges) or not np.isfinite(edges).all() or edges[0] <= np.nanmin(taken):
        raise DataError(
            Problem(
                f"source.{where}.buckets.quantiles",
                "too many for these scores: several buckets would be the same",
                found=f"edges {', '.join(f'{edge:g}' for edge in edges)}",
                do="give fewer quantiles, or edges",
            )
        )
    return tuple(edges)


def buckets_of(scores: npt.ArrayLike, edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the bucket of each score; a document without a score belongs to bucket 0."""
    # Scores are kept as float32: held-out scores and edges such as 0.1 are compared as such too.
    values = np.nan_to_num(np.asarray(scores, dtype=np.float32), nan=-np.inf)
    limits = np.asarray(edges, dtype=np.float32)
    return np.searchsorted(limits, values, side="right").astype(np.int64)


def cut(partial: Path, spec: BucketsSpec, tokenizer: Tokenizer, where: str) -> tuple[float, ...]:
    """Cut the token files of a preparation into buckets; return the edges.

    Calling it again after it died gives the same files: the uncut ones stay until the store has its name.

    Args:
        partial: Folder of the preparation, with ``train/`` of the ranks.
        spec: The buckets.
        tokenizer: Tokenizer of the store.
        where: Source, for messages.
    """
    uncut = partial / "uncut"
    if not uncut.exists():
        (partial / TRAIN).rename(uncut)
    (partial / TRAIN).mkdir(exist_ok=True)
    files = [_uncut(path) for path in sorted(uncut.glob("*.ds"))]
    if not files:
        return spec.edges
    edges = find_edges(
        spec,
        np.concatenate([file.scores for file in files]),
        np.concatenate([file.lengths for file in files]),
        where,
    )
    for file in files:
        _cut_file(file, partial, edges, spec.count, tokenizer)
    return edges


def _uncut(path: Path) -> _Uncut:
    ends = np.fromfile(path.with_name(f"{path.name}.index"), dtype="<u8").astype(np.int64)
    return _Uncut(path, np.diff(ends, prepend=0), read_scores(path))


def _cut_file(
    file: _Uncut, partial: Path, edges: Sequence[float], count: int, tokenizer: Tokenizer
) -> None:
    # Imported here: who looks for a store needs no datatrove.
    from datatrove.io import get_datafolder
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    dtype = np.dtype("<u2" if tokenizer.token_bytes == 2 else "<u4")
    tokens: npt.NDArray[Any] = np.memmap(file.path, dtype=dtype, mode="r")
    bucket = buckets_of(file.scores, edges)
    ends = np.concatenate([[0], np.cumsum(file.lengths)])
    for number in np.unique(bucket).tolist():
        folder = partial / bucket_folder(number) / TRAIN
        folder.mkdir(parents=True, exist_ok=True)
        target = TokenizedFile(
            get_datafolder(str(folder)),
            file.path.name,
            tokenizer_name_or_path=tokenizer.name,
            save_final_metadata=True,
            token_size=tokenizer.token_bytes,
        )
        mine = bucket == number
        for first, last in _chunks(file.lengths):
            here = mine[first:last]
            kept = np.repeat(here, file.lengths[first:last])
            own_ends = np.cumsum(file.lengths[first:last][here]).tolist()
            target.write_bytes(tokens[ends[first] : ends[last]][kept].tobytes(), own_ends)
        target.close()
        write_scores(folder / file.path.name, file.scores[mine].tolist())


def _chunks(lengths: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield first and last document (exclusive) of pieces of some 16 million tokens."""
    piece = np.cumsum(lengths) // _CHUNK_TOKENS
    starts = np.flatnonzero(np.diff(piece, prepend=-1)).tolist()
    yield from zip(starts, [*starts[1:], len(lengths)], strict=True)
