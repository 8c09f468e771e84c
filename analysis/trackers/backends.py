"""Trackers: each opens a run, logs rows and closes it; imported only if it is chosen."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ablations.errors import ConfigError, Problem

__all__ = ["TRACKERS", "Tracker", "TrackerName", "open_tracker"]

TrackerName = Literal["none", "trackio", "tensorboard", "wandb"]


class Tracker(Protocol):
    """Interface of a tracker."""

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Open a run, which may be new or known."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row of the open run."""
        ...

    def end(self) -> None:
        """Close the open run; its rows are kept."""
        ...


class TensorBoard:
    """TensorBoard event files, one folder per run: ``tensorboard --logdir FOLDER``."""

    def __init__(self, study: str, folder: Path) -> None:
        # From TensorBoard itself, because reading records needs no torch.
        self._writers = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self.folder = folder / study
        self._writer: Any = None

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Open an event file of the run."""
        (self.folder / run).mkdir(parents=True, exist_ok=True)
        self._writer = self._writers.EventFileWriter(str(self.folder / run))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log every value as a scalar."""
        summary = self._summaries.Summary(
            value=[
                self._summaries.Summary.Value(tag=name, simple_value=value)
                for name, value in values.items()
            ]
        )
        self._writer.add_event(self._events.Event(step=step, summary=summary))

    def end(self) -> None:
        """Flush and close."""
        self._writer.close()


class Trackio:
    """trackio's local SQLite database: ``trackio show --project STUDY``."""

    def __init__(self, study: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # trackio reads this when it is imported.
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
        self._trackio = importlib.import_module("trackio")
        self.study = study
        self._run: Any = None

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Open the run and continue it if it is known."""
        self._run = self._trackio.init(
            project=self.study, name=run, config=dict(config), resume="allow", embed=False
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row."""
        self._run.log(dict(values), step=step)

    def end(self) -> None:
        """Send the pending rows."""
        self._run.finish()


class WandB:
    """Weights & Biases; offline unless WANDB_MODE is set."""

    def __init__(self, study: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_MODE", "offline")
        self._wandb = importlib.import_module("wandb")
        self.study, self.folder = study, folder
        self._run: Any = None

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        """Open the run under an id that never changes."""
        self._run = self._wandb.init(
            project=self.study,
            name=run,
            id=f"{self.study}-{run}",
            dir=str(self.folder),
            config=dict(config),
            resume="allow",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row."""
        self._run.log(dict(values), step=step)

    def end(self) -> None:
        """Write the pending rows."""
        self._run.finish()


TRACKERS: Mapping[str, Callable[[str, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}
"""Name → function that opens the tracker of a study in a folder."""


def open_tracker(name: str, study: str, folder: Path) -> Tracker:
    """Open the tracker called ``name``.

    Raises:
        ConfigError: its package is not installed.
    """
    try:
        return TRACKERS[name](study, folder)
    except ImportError as error:
        raise ConfigError(
            Problem(
                "tracker",
                f"{name} cannot be imported",
                found=str(error),
                do=f"pip install {name}, or set tracker=none",
            )
        ) from None
