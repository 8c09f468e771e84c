"""Describe an export: the schedule in whole steps, and the token files of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablations.config.schema import RunConfig
from ablations.data.manifest import StoreFile, StoreManifest
from ablations.mixture.schedule import LearningRate, Schedule
from sweeps.nanotron_files.chain import slug

if TYPE_CHECKING:
    from sweeps.promotion.specs import FullSpec

__all__ = ["Export", "ExportPlan", "ExportStage", "Source", "TokensMode"]

TokensMode = Literal["copy", "link", "none"]
"""copy = the export contains the tokens; link = it links to the stores; none = only settings."""


@dataclass(frozen=True, kw_only=True)
class ExportStage:
    """Stage in the numbers that other trainers need."""

    number: int
    """Position in the schedule, from 1."""
    name: str
    """Name in the schedule."""
    first_step: int
    """First optimiser step, from 1."""
    last_step: int
    """Last optimiser step."""
    samples: int
    """Number of windows."""
    tokens: int
    """Number of trained tokens."""
    weights: Mapping[str, float]
    """Source → share of tokens; sources with weight 0 are left out."""

    @property
    def stem(self) -> str:
        """Return the file name of the stage without its ending: ``1_stable``."""
        return f"{self.number}_{slug(self.name)}"


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """Schedule, and what its exports need besides."""

    name: str
    """First part of the export's folder name."""
    origin: Mapping[str, str]
    """``{"promotion": folder}``, ``{"run": folder}`` or ``{"config": study}``."""
    config: RunConfig
    """Config of the run."""
    full: FullSpec | None = None
    """Cluster of the full run, if a promotion is exported."""
    notes: tuple[str, ...] = ()
    """Sentences for the README on what the export leaves out."""

    @cached_property
    def schedule(self) -> Schedule:
        """Return the schedule in whole steps."""
        return self.config.build_schedule()

    @cached_property
    def learning_rate(self) -> LearningRate:
        """Return the learning rate over the schedule."""
        return self.config.build_learning_rate(self.schedule)

    @cached_property
    def stages(self) -> tuple[ExportStage, ...]:
        """Return the stages in order."""
        schedule = self.schedule
        return tuple(
            ExportStage(
                number=number + 1,
                name=stage.name,
                first_step=schedule.first_step(number) + 1,
                last_step=schedule.first_step(number + 1),
                samples=stage.steps * schedule.batch_size,
                tokens=stage.steps * schedule.tokens_per_step,
                weights={name: stage.mixture[name] for name in stage.mixture.support},
            )
            for number, stage in enumerate(schedule.stages)
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the sources that a stage reads, in order of appearance."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.weights))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source of an export."""

    name: str
    """Name in the schedule."""
    folder: Path | None
    """Token store; None if the source is not prepared on this machine."""
    manifest: StoreManifest | None
    """Manifest of the store."""
    tokens: float
    """Training tokens of the store; without a store, those of the source's config."""

    @property
    def slug(self) -> str:
        """Return the name as a folder name."""
        return slug(self.name)

    @property
    def files(self) -> tuple[StoreFile, ...]:
        """Return the store's token files that are not empty."""
        return tuple(file for file in self.manifest.files if file.tokens) if self.manifest else ()


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export that is being written."""

    plan: ExportPlan
    """Schedule and its origin."""
    format: str
    """Name of the format."""
    sources: Mapping[str, Source]
    """Name → source, for each source that a stage reads."""
    tokens: TokensMode
    """Mode of the tokens."""
    root: str
    """Folder in which the export will be read; written paths begin with it."""
    root_given: bool = False
    """True if the user gave ``root``."""

    @property
    def token_bytes(self) -> int:
        """Return the bytes per token of the stores; without a store, by the model's vocabulary."""
        for source in self.sources.values():
            if source.manifest is not None:
                return source.manifest.token_bytes
        return 4 if self.plan.config.model.vocab_size > 2**16 else 2

    @property
    def eos_id(self) -> int:
        """Return the token after each document in the stores; without a store, the model's."""
        for source in self.sources.values():
            if source.manifest is not None:
                return source.manifest.eos_id
        return self.plan.config.model.eos_token_id

    def epochs(self, stage: ExportStage, name: str) -> float:
        """Return the epochs of the source ``name`` that ``stage`` reads."""
        available = self.sources[name].tokens
        return stage.weights[name] * stage.tokens / available if available else float("inf")

    def path(self, *parts: str) -> str:
        """Return a path inside the export, as written into its files."""
        return "/".join((self.root, *parts))

    def plain(self) -> dict[str, Any]:
        """Return the part of ``export.json`` that is common to the formats."""
        schedule, rate = self.plan.schedule, self.plan.learning_rate
        return {
            "origin": dict(self.plan.origin),
            "tokens": self.tokens,
            "sequence_length": schedule.sequence_length,
            "batch_size": schedule.batch_size,
            "total_steps": schedule.total_steps,
            "total_tokens": schedule.total_tokens,
            "eos_id": self.eos_id,
            "token_bytes": self.token_bytes,
            "tokenizer": self.plan.config.tokenizer.name,
            "learning_rate": asdict(rate),
            "stages": [
                {
                    "name": stage.name,
                    "first_step": stage.first_step,
                    "last_step": stage.last_step,
                    "samples": stage.samples,
                    "tokens": stage.tokens,
                    "weights": dict(stage.weights),
                }
                for stage in self.plan.stages
            ],
            "sources": {
                name: {
                    "tokens": source.tokens,
                    "prepared": source.manifest is not None,
                    "epochs": sum(
                        self.epochs(stage, name)
                        for stage in self.plan.stages
                        if name in stage.weights
                    ),
                }
                for name, source in self.sources.items()
            },
            "notes": list(self.plan.notes),
        }
