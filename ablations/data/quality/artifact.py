"""A trained classifier on disk: written whole, checked when opened.

classifiers/<name>/
    classifier.json      kind, checksums, annotations, evaluation, whether it may filter
    model.bin | model.npz | model/
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ablations.data.quality.classifiers import Classifier, Kind, open_classifier
from ablations.errors import DamagedError, DataError, Problem
from ablations.files import file_sha256, read_json, replace_folder, sync_folder, write_sealed

__all__ = [
    "FORMAT",
    "Artifact",
    "open_artifact",
    "read_artifact",
    "require_usable",
    "write_artifact",
]

FORMAT = 1
_RECORD = "classifier.json"
_PACKAGES = {
    "fasttext": "fasttext-numpy2-wheel",
    "linear": "scikit-learn",
    "topics": "scikit-learn",
    "transformers": "transformers",
}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Content of ``classifier.json``."""

    name: str
    kind: Kind
    model: str | None
    """Name of the transformers model that it was made from."""
    version: str
    """First 12 digits of the SHA-256 over the model's files: another model is another version."""
    files: Mapping[str, str]
    """File below the folder → SHA-256 (hex)."""
    annotations: str
    """SHA-256 (hex) of the annotations' file; empty for topics, which have none."""
    trained_on: int
    """Documents that it was trained on."""
    evaluation: Mapping[str, Any]
    """``usable`` and ``sentence``; fields of :class:`~ablations.data.quality.skill.Evaluation`, or what
    ``ablate split`` found of topics."""
    created: str
    versions: Mapping[str, str]
    format: int = FORMAT


def write_artifact(
    folder: Path,
    classifier: Classifier,
    *,
    kind: Kind,
    model: str | None,
    annotations: Path | None,
    trained_on: int,
    evaluation: Mapping[str, Any],
) -> Artifact:
    """Write a classifier to ``folder``, whole or not at all; one that is there is replaced."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    classifier.save(partial)
    files = {
        path.relative_to(partial).as_posix(): file_sha256(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    digest = hashlib.sha256("".join(f"{n} {d}\n" for n, d in files.items()).encode())
    package = _PACKAGES[kind]
    artifact = Artifact(
        name=folder.name,
        kind=kind,
        model=model,
        version=digest.hexdigest()[:12],
        files=files,
        annotations="" if annotations is None else file_sha256(annotations),
        trained_on=trained_on,
        evaluation=evaluation,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={package: metadata.version(package)},
    )
    write_sealed(partial / _RECORD, asdict(artifact))
    sync_folder(partial)
    replace_folder(partial, folder)
    return artifact


def read_artifact(folder: Path) -> Artifact:
    """Return the record of the classifier in ``folder``; its files are checked.

    Raises:
        DataError: there is none, or a newer version wrote it.
        DamagedError: a file is missing or not what was written.
    """
    path = folder / _RECORD
    if not path.is_file():
        raise DataError(
            Problem(str(folder), "not a classifier", do="train one: ablate classify annotations=…")
        )
    values = read_json(path)
    if values.get("format", 0) > FORMAT:
        found = values["format"]
        raise DataError(Problem(str(path), "written by a newer version", found, allowed=FORMAT))
    try:
        artifact = Artifact(**values)
    except TypeError as error:
        raise DamagedError(Problem(str(path), "cannot be read", found=error)) from error
    wrong = [
        name
        for name, digest in artifact.files.items()
        if not (folder / name).is_file() or file_sha256(folder / name) != digest
    ]
    if wrong:
        raise DamagedError(
            [
                Problem(
                    str(folder / name),
                    "missing, or not the file that was written",
                    do="restore it from a copy, or train the classifier again",
                )
                for name in wrong
            ]
        )
    return artifact


def require_usable(folder: Path, where: str) -> Artifact:
    """Return the classifier's record if it may filter.

    Raises:
        DataError: its skill within sources is not above that of shuffled annotations.
    """
    artifact = read_artifact(folder)
    if not artifact.evaluation["usable"]:
        raise DataError(
            Problem(
                where,
                "refused as a filter",
                found=f"{folder}: {artifact.evaluation['sentence']}",
                do="annotate more documents of each source, or use another kind of classifier",
            )
        )
    return artifact


def open_artifact(folder: Path) -> Classifier:
    """Return the classifier in ``folder``."""
    return open_classifier(read_artifact(folder).kind, folder)
