"""Options of commands that belong to no run: how a command is carried out, or what it lists.

``ablate prepare``, ``plan``, ``run``, ``score`` and ``export`` share the config of a run; the keys
that are a command's own are checked here, together with the run's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ablations.ranges import Workers

__all__ = ["CarryOut", "DoctorOptions", "ScoreOptions"]

_FORBID: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class CarryOut:
    """Keys beside the run's that every config of a run may hold."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    progress: bool = True
    """Bars in a terminal, lines elsewhere."""
    workers: Workers | None = None
    """Processes of ``prepare``; null = 1."""
    force: bool = False
    """``prepare`` makes stores again that are there."""
    contamination: bool = True
    """``prepare`` reports which items of the tasks stand in the text."""
    mirror: str | None = None
    """Folder that stands for the hub and the package registry."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """The keys of ``ablate score`` beside those of a run."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    checkpoint: str
    """Folder of a training checkpoint, or one that transformers loads."""
    out: str | None = None
    """Where rows and details go; null = ``<checkpoint>/scores``."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """The keys of ``ablate doctor``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    runs_dir: str = "runs"
    """Where records go."""
    data_dir: str = "data"
    """Where token stores are."""
