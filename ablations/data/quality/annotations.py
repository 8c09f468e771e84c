"""Annotations: documents with a score from 0 to 5, by people or by a language model.

One JSON object on each line of the file::

    {"text": "…", "score": 4, "source": "web", "language": "en"}
    {"id": "doc-17", "score": 1, "source": "web"}

A document is given by its text, or by its id in the source. ``source`` and ``language`` are optional;
skill is measured inside each source, and calibration for each language.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.data.catalogue import SourceSpec
from ablations.data.readers import Place, heldout, read_source
from ablations.data.synthetic import Text
from ablations.data.text import clean
from ablations.errors import DataError, Problem
from ablations.files import read_json_lines

__all__ = [
    "HIGHEST",
    "LOWEST",
    "Annotation",
    "read_annotations",
    "sample_documents",
    "split_annotations",
]

LOWEST, HIGHEST = 0.0, 5.0
"""Range of scores, as FineWeb-Edu, FineMath and Stack-Edu used it."""

_MOST_PROBLEMS = 20
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One document with its score."""

    text: str
    score: float
    source: str = _UNKNOWN
    language: str = _UNKNOWN


def read_annotations(
    path: Path, sources: Mapping[str, SourceSpec], place: Place
) -> list[Annotation]:
    """Return the annotations in ``path``; rows without a score are not annotated yet and left out.

    Args:
        path: The file, jsonl.
        sources: Sources in which documents that are given by id are looked up.
        place: Folders of the sources' text.

    Raises:
        DataError: rows that are no annotations, ids that no source has, or no annotated row.
    """
    if not path.is_file():
        raise DataError(Problem("annotations", "no such file", found=path))
    rows, problems = [], []
    for number, row in enumerate(read_json_lines(path), start=1):
        problem = _row_problem(row, f"{path}:{number}", sources)
        if problem is not None:
            problems.append(problem)
        elif row.get("score") is not None:
            rows.append(row)
    if problems:
        raise DataError(problems[:_MOST_PROBLEMS])
    if not rows:
        raise DataError(Problem(str(path), "no row has a score", do="fill the scores in, 0 to 5"))
    texts = _texts_of_ids(rows, sources, place, path)
    return [
        Annotation(
            text=clean(row["text"])[0] if row.get("text") else texts[row["source"], str(row["id"])],
            score=float(row["score"]),
            source=str(row.get("source") or _UNKNOWN),
            language=str(row.get("language") or _UNKNOWN),
        )
        for row in rows
    ]


def _row_problem(
    row: Mapping[str, Any], where: str, sources: Mapping[str, SourceSpec]
) -> Problem | None:
    text, score, source = row.get("text"), row.get("score"), row.get("source")
    if text is not None and not isinstance(text, str):
        return Problem(f"{where}: text", "not a text", found=repr(text)[:60])
    if not text and row.get("id") is None:
        return Problem(where, "names no document", allowed="text, or id and source")
    if not text and source not in sources:
        return Problem(
            f"{where}: source",
            "needed to find the document by its id",
            found=source,
            allowed=", ".join(sources) or "a source of conf/source",
        )
    if score is None:
        return None
    number = score if isinstance(score, int | float) and not isinstance(score, bool) else math.nan
    if not LOWEST <= number <= HIGHEST:
        return Problem(
            f"{where}: score", "not a score", found=repr(score)[:60], allowed="0 to 5, or null"
        )
    return None


def _texts_of_ids(
    rows: Iterable[Mapping[str, Any]],
    sources: Mapping[str, SourceSpec],
    place: Place,
    path: Path,
) -> dict[tuple[str, str], str]:
    """Return (source, id) → text of every row that has no text of its own."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        if not row.get("text"):
            wanted.setdefault(row["source"], set()).add(str(row["id"]))
    found: dict[tuple[str, str], str] = {}
    for source, ids in wanted.items():
        left = set(ids)
        for text in read_source(sources[source], place):
            if text.id in left:
                left.discard(text.id)
                found[source, text.id] = text.text
                if not left:
                    break
        if left:
            some = ", ".join(sorted(left)[:5])
            raise DataError(
                Problem(
                    str(path), f"ids that {source!r} does not have", found=f"{len(left)}: {some}"
                )
            )
    return found


def split_annotations(
    annotations: Iterable[Annotation], heldout_share: float
) -> tuple[list[Annotation], list[Annotation]]:
    """Return the annotations to train on and the held-out ones, by a hash of the text alone."""
    parts: tuple[list[Annotation], list[Annotation]] = ([], [])
    for annotation in annotations:
        digest = hashlib.blake2b(annotation.text.encode(), digest_size=8, person=b"annotation")
        out = int.from_bytes(digest.digest(), "big") < heldout_share * 2**64
        parts[out].append(annotation)
    return parts


def sample_documents(
    name: str, spec: SourceSpec, place: Place, *, count: int, seed: int
) -> list[Text]:
    """Return ``count`` documents of a source, drawn evenly; held-out documents are left out.

    The documents with the smallest hashes of seed and text are taken, so that the draw does not depend
    on their order. One pass, and no more than ``count`` documents in memory.
    """
    share = spec.heldout_share
    texts = (text for text in read_source(spec, place) if not heldout(text.group, share))
    return [text for _, _, text in heapq.nsmallest(count, _ranked(texts, f"{name} {seed}"))]


def _ranked(texts: Iterable[Text], salt: str) -> Iterator[tuple[bytes, int, Text]]:
    key = hashlib.blake2b(salt.encode(), digest_size=16).digest()
    for position, text in enumerate(texts):
        digest = hashlib.blake2b(text.text.encode(), digest_size=16, key=key).digest()
        yield digest, position, text
