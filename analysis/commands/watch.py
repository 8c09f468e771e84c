"""``ablate watch``: follow a study in the terminal; copy its records to a tracker on request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ablations.config.schema import validate
from ablations.errors import ConfigError, Problem
from ablations.terminal import table_console
from analysis.trackers import Mirror, TrackerName, open_mirror
from analysis.watch.live_table import snapshot_table
from analysis.watch.snapshot import Snapshot, look

__all__ = ["WatchOptions", "main"]


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """Options of ``conf/watch.yaml``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    study: str
    """Folder under ``runs_dir``."""
    runs_dir: str = "runs"
    """Folder of the records."""
    once: bool = False
    """Print the table once and exit."""
    refresh_seconds: float = 2.0
    """Seconds between two readings of the folders."""
    rows: int = 24
    """Most runs to show."""
    tracker: TrackerName = "none"
    """none, trackio, tensorboard or wandb: also log the records there."""
    tracker_dir: str | None = None
    """Folder that the tracker writes to; null = ``runs_dir/study/tracker``."""

    def __post_init__(self) -> None:
        problems = [
            Problem(name, "too small", found=value, allowed=allowed)
            for name, value, good, allowed in (
                ("refresh_seconds", self.refresh_seconds, self.refresh_seconds >= 0.1, ">= 0.1"),
                ("rows", self.rows, self.rows >= 1, ">= 1"),
            )
            if not good
        ]
        if problems:
            raise ConfigError(problems)


def main(config: Mapping[str, Any]) -> int:
    """Show the study until it is interrupted, or once."""
    own = {key: value for key, value in config.items() if key not in ("config_dirs", "hydra")}
    options = validate(WatchOptions, own)
    runs_dir = Path(options.runs_dir)
    first = look(runs_dir, options.study)
    folder = Path(options.tracker_dir or runs_dir / options.study / "tracker")
    mirror = open_mirror(options.tracker, runs_dir, options.study, folder)
    if options.once:
        _print(first, options.rows)
        if mirror is not None:
            print(f"{folder}: {mirror.sync()} rows logged to {options.tracker}")
        return 0
    _follow(runs_dir, options, mirror)
    return 0


def _print(snapshot: Snapshot, rows: int) -> None:
    table_console().print(snapshot_table(snapshot, rows))


def _follow(runs_dir: Path, options: WatchOptions, mirror: Mirror | None) -> None:
    """Redraw until Ctrl-C; the study is not affected."""
    from rich.live import Live

    table = snapshot_table(look(runs_dir, options.study), options.rows)
    try:
        with Live(table, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                snapshot = look(runs_dir, options.study)
                live.update(snapshot_table(snapshot, options.rows), refresh=True)
                if mirror is not None:
                    mirror.sync()
                spent = time.monotonic() - began
                # Reading a very large study may take longer than the pause: then sleep as long as it took.
                time.sleep(max(options.refresh_seconds - spent, spent))
    except KeyboardInterrupt:
        return
