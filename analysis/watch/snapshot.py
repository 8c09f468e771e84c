"""Snapshot of a study: status, progress and speed of every run, and the expected end.

It reads only manifests, results, and the last metrics row of active runs, so that a snapshot of 500
runs takes a tenth of a second.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.frames.build import label
from analysis.frames.config_columns import total_tokens
from analysis.records import RunFiles, read_json_or_none, scan

if TYPE_CHECKING:
    from sweeps.study.specs import Direction

__all__ = ["RunState", "Snapshot", "look"]

_TAIL_BYTES = 8192
"""Number of bytes at the end of a metrics file that contain its last complete row."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """State of one run."""

    run: str
    trial: str
    seed: int
    name: str
    phase: str
    status: str
    reason: str
    score: float | None
    """Score of the last checkpoint; None before the run is done."""
    share: float
    """Share of the requested tokens that was trained on, 0 to 1."""
    loss: float | None
    tokens_per_second: float | None
    silent_seconds: float | None
    """Seconds since the last row was written; None for inactive runs."""
    taken_seconds: float | None
    """Seconds from start to end; None until the run has ended."""

    @property
    def working(self) -> bool:
        """Return whether a process is, or should be, working on the run."""
        return self.status in ("training", "scoring")

    @property
    def over(self) -> bool:
        """Return whether the run has ended, or paused until its study continues it."""
        return self.status in ("done", "failed", "paused")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """State of a study."""

    study: str
    direction: Direction
    runs: Sequence[RunState]
    planned_trials: int | None
    """Budget of trials of the study; None if it has none."""
    seen: float
    """Time of the snapshot, in seconds since the epoch."""

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of runs in each status."""
        found: dict[str, int] = {}
        for run in self.runs:
            found[run.status] = found.get(run.status, 0) + 1
        return found

    @property
    def unbegun(self) -> int:
        """Return the number of planned trials without a run."""
        return max(0, (self.planned_trials or 0) - len({run.trial for run in self.runs}))

    @property
    def seconds_left(self) -> float | None:
        """Estimate the seconds until the planned trials end, from the median finished run; None if unknown.

        Without a budget of trials it is the time until the recorded runs end.
        """
        taken = [
            run.taken_seconds for run in self.runs if run.taken_seconds and run.status == "done"
        ]
        working = [run for run in self.runs if run.working]
        if not taken or not working:
            return None
        usual = statistics.median(taken)
        waiting = sum(not run.over and not run.working for run in self.runs) + self.unbegun
        work = usual * (waiting + sum(1.0 - run.share for run in working))
        return work / len(working)


def look(runs_dir: Path, study: str) -> Snapshot:
    """Read the study's folders.

    Raises:
        DataError: the study does not exist.
    """
    files = scan(Path(runs_dir), study)
    now = time.time()
    directions = [d for f in files if (d := (f.result or {}).get("direction"))]
    return Snapshot(
        study=study,
        direction="minimize" if directions[:1] == ["minimize"] else "maximize",
        runs=[_state(run, now) for run in files],
        planned_trials=_planned(Path(runs_dir) / study),
        seen=now,
    )


def _planned(folder: Path) -> int | None:
    """Return the budget of trials in the study's ``ledger.json``."""
    ledger = read_json_or_none(folder / "ledger.json")
    budget = ledger.get("budget") if isinstance(ledger, Mapping) else None
    trials = budget.get("trials") if isinstance(budget, Mapping) else None
    return trials if isinstance(trials, int) else None


def _state(run: RunFiles, now: float) -> RunState:
    manifest, result = run.manifest, run.result or {}
    status = str(result.get("status") or manifest.get("status") or "pending")
    working = status in ("training", "scoring")
    begun = working or status == "paused"
    last, written = _last_row(f"{run.folder}/metrics.jsonl") if begun else ({}, None)
    asked = total_tokens(manifest.get("config") or {})
    tokens = result.get("tokens") or last.get("tokens") or 0
    started, finished = manifest.get("started"), manifest.get("finished")
    return RunState(
        run=run.run,
        trial=str(manifest.get("trial", run.run)),
        seed=int(manifest.get("seed", 0)),
        name=label(manifest, "name") or "",
        phase=label(manifest, "phase") or "",
        status=status,
        reason=str(result.get("reason") or manifest.get("reason") or ""),
        score=result.get("score"),
        share=1.0 if status == "done" else min(1.0, tokens / asked) if asked else 0.0,
        loss=last.get("loss"),
        tokens_per_second=last.get("tokens_per_second"),
        silent_seconds=max(0.0, now - written) if working and written is not None else None,
        taken_seconds=finished - started if started and finished else None,
    )


def _last_row(path: str) -> tuple[Mapping[str, Any], float | None]:
    """Return the last complete row of a line file, and the time of its last write."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            written = os.fstat(stream.fileno()).st_mtime
            stream.seek(max(0, size - _TAIL_BYTES))
            lines = stream.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}, None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row, written
    return {}, written
