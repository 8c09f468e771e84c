"""Options of commands that do not belong to a run: how a command is carried out, or what it lists.

``ablate prepare``, ``plan``, ``run``, ``score`` and ``export`` share the config of a run; the keys
that are a command's own are checked here, together with the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem
from ablations.price import PriceSpec
from ablations.ranges import Interval, Limit, Seed, Workers

__all__ = [
    "AnnotateOptions",
    "CarryOut",
    "ClassifyOptions",
    "DoctorOptions",
    "PrepareOptions",
    "ScoreOptions",
    "SplitOptions",
]

_FORBID: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class CarryOut:
    """Keys beside the run's that every config of a run may hold."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    progress: bool = True
    """Bars in a terminal, lines elsewhere."""
    retry: bool = False
    """``run -m``: try each failed run again, diverged ones too, from its last checkpoint. Without it the
    same command tries again what failed otherwise."""
    json: bool = False
    """Print one JSON document in place of the text: ``plan``, ``score`` and ``promote`` (docs/json.md)."""
    prepare: PrepareOptions = field(default_factory=lambda: PrepareOptions())
    """Options of ``ablate prepare``."""
    program: Mapping[str, Any] | None = None
    """An experiment of many runs, which gives them out itself: ``kind`` is ``annealing`` or ``stagewise``;
    its other keys are in ``conf/experiment/*_arms.yaml``."""
    after: Mapping[str, Any] | None = None
    """Check of the finished run: ``kind`` is ``comparison``, with the folder of a promotion."""
    price: PriceSpec = field(default_factory=PriceSpec)
    """Assumptions of the plan: what a GPU can do and costs. Not part of a run's identity."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of ``ablate prepare``: the section ``prepare`` of a run's config."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    workers: Workers | None = None
    """Number of processes; null = 1."""
    force: bool = False
    """Make stores again that exist."""
    contamination: bool = True
    """Report which items of the tasks occur in the text."""
    mirror: str | None = None
    """Folder that replaces the hub and the package registry."""
    slurm: Mapping[str, Any] | None = None
    """Fields of :class:`ablations.data.executors.SlurmSpec`; without a partition nothing is submitted."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """The keys of ``ablate score`` beside those of a run."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    checkpoint: str
    """Folder of a training checkpoint, or one that transformers loads."""
    out: str | None = None
    """Folder for rows and details; null = ``<checkpoint>/scores``."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """The keys of ``ablate doctor``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    runs_dir: str = "runs"
    """Folder of the records."""
    data_dir: str = "data"
    """Folder of the token stores."""
    json: bool = False
    """Print one JSON document in place of the list (docs/json.md)."""


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """The keys of ``ablate annotate``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    sources: tuple[str, ...] = ()
    """Sources to draw documents from."""
    documents: Limit = 300
    """Documents of each source."""
    characters: Limit = 4000
    """Characters shown of each document, from its beginning."""
    own_scores: bool = False
    """Write the scores that the source itself has (``score_column``, 0 to 5), as ratings by people."""
    seed: Seed = 0
    """Seed of the draw."""
    out: str = "annotations.jsonl"
    """File of the documents; one that exists is checked instead."""
    data_dir: str = "data"
    """Folder of downloaded packages."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """The keys of ``ablate classify``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    annotations: str
    """File of annotated documents, jsonl."""
    kind: Literal["auto", "fasttext", "linear", "transformers"] = "auto"
    """Kind of classifier; auto = transformers with ``pretrained``, else fasttext where it is installed, else
    linear."""
    pretrained: str | None = None
    """Name or folder of a transformers sequence classifier; it is not trained."""
    threshold: Annotated[float, Interval(ge=0, le=5)] = 3.0
    """Score from which a document counts as good, for F1."""
    heldout_share: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    """Share of the annotations that the skill is measured on."""
    seed: Seed = 0
    """Seed of the training and of the shuffles."""
    out: str = "classifiers/quality"
    """Folder of the classifier."""
    data_dir: str = "data"
    """Folder of downloaded packages."""

    def __post_init__(self) -> None:
        if self.kind != "auto" and (self.kind == "transformers") != (self.pretrained is not None):
            raise ConfigError(
                Problem(
                    "pretrained",
                    "goes with kind=transformers",
                    found=self.pretrained,
                    allowed=self.kind,
                )
            )


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The keys of ``ablate split``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    source: Mapping[str, Any] = field(default_factory=dict)
    """Source that is split, by its name: ``source=wiki``."""
    name: str | None = None
    """Name of that source."""
    into: Annotated[int, Interval(ge=2, le=1000)] = 16
    """Number of topics."""
    documents: Limit = 20_000
    """Documents that the topics are found in, drawn evenly."""
    seed: Seed = 0
    """Seed of the draw and of the clustering."""
    out: str = "split"
    """Config folder of the sources that are written: ``--config-dir`` of later commands."""
    data_dir: str = "data"
    """Folder of downloaded packages."""

    def __post_init__(self) -> None:
        if self.name is None:
            raise ConfigError(Problem("source", "missing", do="name the source: source=wiki"))
