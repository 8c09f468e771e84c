"""Options of commands that do not belong to a run: how a command is carried out, or what it lists.

``ablate prepare``, ``plan``, ``run``, ``score`` and ``export`` share the config of a run; the keys
that are a command's own are checked here, together with the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ablations.price import PriceSpec
from ablations.ranges import Workers

__all__ = ["CarryOut", "DoctorOptions", "PrepareOptions", "ScoreOptions"]

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
    """What looks at the finished run: ``kind`` is ``comparison``, with the folder of a promotion."""
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
