"""Copy of a study's rows in a tracker, each row once unless the process is killed.

`cursor.json` in the tracker's folder contains the last copied step of every run's metrics and scores.
It is written after a run's rows are logged: if the process is killed in between, the next one copies
that run's newest rows again, and no row is lost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.files import write_sealed
from analysis.records import RunFiles, read_json_or_none, scan
from analysis.trackers.backends import Tracker, open_tracker

__all__ = ["Mirror", "open_mirror"]

Row = tuple[int, dict[str, float]]


def open_mirror(name: str, runs_dir: Path, study: str, folder: Path) -> Mirror | None:
    """Open the mirror of a study in the tracker called ``name``; None for ``none``.

    Raises:
        ConfigError: the tracker is not installed.
    """
    if name == "none":
        return None
    return Mirror(open_tracker(name, study, folder), Path(runs_dir), study, Path(folder))


class Mirror:
    """Copy of a study's rows in a tracker."""

    def __init__(self, tracker: Tracker, runs_dir: Path, study: str, folder: Path) -> None:
        self.tracker, self.runs_dir, self.study = tracker, runs_dir, study
        self.cursor_file = folder / "cursor.json"
        stored = read_json_or_none(self.cursor_file)
        self.cursor: dict[str, dict[str, int]] = stored if isinstance(stored, dict) else {}

    def sync(self) -> int:
        """Copy the new rows; return their number."""
        copied = 0
        for run in scan(self.runs_dir, self.study):
            before = self.cursor.get(run.run, {"metrics": -1, "scores": -1})
            metrics = list(_metric_rows(run, before["metrics"]))
            scores = list(_score_rows(run, before["scores"]))
            if not metrics and not scores:
                continue
            self._copy(run, metrics + scores)
            self.cursor[run.run] = {
                "metrics": max([before["metrics"], *(step for step, _ in metrics)]),
                "scores": max([before["scores"], *(step for step, _ in scores)]),
            }
            self.cursor_file.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(self.cursor_file, self.cursor)
            copied += len(metrics) + len(scores)
        return copied

    def _copy(self, run: RunFiles, rows: list[Row]) -> None:
        self.tracker.begin(run.run, run.manifest.get("config") or {})
        try:
            # Some trackers need rising steps, so the scores of a step are logged with its metrics.
            for step in sorted({step for step, _ in rows}):
                merged: dict[str, float] = {}
                for at, values in rows:
                    merged |= values if at == step else {}
                self.tracker.log(step, merged)
        finally:
            self.tracker.end()


def _metric_rows(run: RunFiles, after: int) -> Iterator[Row]:
    names = ("loss", "lr", "grad_norm", "tokens_per_second", "tokens")
    for row in _rows(run, "metrics.jsonl", after):
        yield row["step"], _finite({f"train/{n}": row.get(n) for n in names})


def _score_rows(run: RunFiles, after: int) -> Iterator[Row]:
    for row in _rows(run, "scores.jsonl", after):
        values = {"score": row.get("score")}
        for task, metrics in (row.get("metrics") or {}).items():
            for metric, cell in metrics.items():
                values[f"{task}/{metric}"] = (cell or {}).get("value")
        yield row["step"], _finite(values)


def _rows(run: RunFiles, name: str, after: int) -> Iterator[dict[str, Any]]:
    """Yield the complete rows of steps after ``after``, in order; the last one of a repeated step."""
    found: dict[int, dict[str, Any]] = {}
    try:
        content = (run.path / name).read_bytes()
    except FileNotFoundError:
        return
    for line in content.split(b"\n")[:-1]:
        row = json.loads(line)
        if row["step"] > after:
            found[row["step"]] = row
    yield from (found[step] for step in sorted(found))


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that a tracker can plot; a missing value is left out, never 0."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
