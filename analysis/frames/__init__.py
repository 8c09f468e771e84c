"""Tidy pandas frames from the record folders.

    frames = Frames.read(Path("runs"), study="demo_ratio")
    frames.trials                       one row per trial
    frames.scores                       one row per run, checkpoint, task and metric
    frames.samples(tasks=["arc_easy"])  one row per item
    frames.export(Path("frames"), "parquet")

:data:`COLUMNS` documents every column with its unit. Partial, running and failed studies read like
finished ones: a value that does not exist yet is missing, never 0. Nothing is cached on disk, so a
frame is never older than its folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ablations.errors import ConfigError, unknown_name
from ablations.files import replacing
from analysis.frames import build, lines
from analysis.frames.columns import COLUMNS, Column, describe, empty, unit
from analysis.frames.views import finals, score_direction, task_values, weights
from analysis.records import RunFiles, scan

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "Column",
    "Frames",
    "describe",
    "empty",
    "finals",
    "score_direction",
    "task_values",
    "unit",
    "weights",
]

ExportFormat = Literal["parquet", "csv"]


class Frames:
    """Frames of some runs, each built on first use."""

    def __init__(self, files: Sequence[RunFiles]) -> None:
        self.files = tuple(files)

    @classmethod
    def read(cls, runs_dir: Path, study: str | None = None) -> Frames:
        """Read the frames of one study, or of every study under ``runs_dir``.

        Raises:
            DataError: the study does not exist.
        """
        return cls(scan(Path(runs_dir), study))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Return one row per run."""
        return build.runs_frame(self.files)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Return one row per trial."""
        return build.trials_frame(self.runs, self.cost)

    @cached_property
    def sources(self) -> pd.DataFrame:
        """Return the requested mixtures: one row per run, stage and source."""
        return build.sources_frame(self.files)

    @cached_property
    def audits(self) -> pd.DataFrame:
        """Return the mixtures that were read: one row per run, stage and source."""
        return build.audits_frame(self.files)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """Return one row per study and task."""
        return build.tasks_frame(self.files)

    @cached_property
    def cost(self) -> pd.DataFrame:
        """Return the cost of each run, one row per run."""
        return build.cost_frame(self.files)

    @cached_property
    def _from_scores(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return lines.score_frames(self.files)

    @property
    def checkpoints(self) -> pd.DataFrame:
        """Return one row per scored checkpoint."""
        return self._from_scores[0]

    @property
    def scores(self) -> pd.DataFrame:
        """Return one row per run, checkpoint, task and metric."""
        return self._from_scores[1]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Return one row per run and step."""
        return lines.metrics_frame(self.files)

    def samples(
        self,
        *,
        tasks: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
        step: int | None = None,
    ) -> pd.DataFrame:
        """Return one row per item at ``step``, or at the last checkpoint of each run."""
        return lines.samples_frame(self.files, tasks=tasks, metrics=metrics, step=step)

    def frame(self, name: str) -> pd.DataFrame:
        """Return a frame by its name in :data:`COLUMNS`.

        Raises:
            ConfigError: no frame has that name.
        """
        if name not in COLUMNS:
            raise ConfigError(unknown_name("frame", "frame", name, COLUMNS))
        found: pd.DataFrame = self.samples() if name == "samples" else getattr(self, name)
        return found

    def export(
        self, folder: Path, form: ExportFormat = "parquet", names: Iterable[str] = tuple(COLUMNS)
    ) -> list[Path]:
        """Write frames into ``folder``, one file each; each file is replaced atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name in names:
            path = folder / f"{name}.{form}"
            frame = self.frame(name)
            with replacing(path) as temporary:
                if form == "parquet":
                    frame.to_parquet(temporary, index=False)
                else:
                    frame.to_csv(temporary, index=False)
            written.append(path)
        return written
