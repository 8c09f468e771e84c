"""The runs of a runs folder as a list: status, steps, score and mixture of each, filtered and in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from ablations.errors import ConfigError, UserError, unknown_name
from ablations.record.paused import paused_at
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.objective import Objective, objective_of
from sweeps.study.run_results import refused_in
from sweeps.study.specs import Direction

__all__ = ["ListedRun", "ListedStatus", "SortKey", "listed_runs", "sorted_runs"]

ListedStatus = Literal[
    "pending", "training", "scoring", "paused", "done", "failed", "interrupted", "damaged"
]
SortKey = Literal["run", "status", "score", "step", "tokens", "started", "finished"]

_SILENT_SECONDS = 120
"""Longest time without a write for a run that is training or scoring; then it is shown as interrupted."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run of a list."""

    run: str
    """``study/trial-seed``."""
    study: str
    trial: str | None = None
    """Name of the mixture within the study; None if the record is damaged, or was never made."""
    seed: int | None = None
    status: ListedStatus
    """interrupted = it was training or scoring, and nothing was written for two minutes."""
    step: int | None = None
    """Optimiser steps so far."""
    tokens: int | None = None
    """Tokens trained on so far."""
    score: float | None = None
    """Objective of the study; None if there is none yet."""
    score_name: str = "score"
    """Name of that objective."""
    direction: Direction | None = None
    """Direction in which the score is better."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Source → weight of the mixture."""
    started: float | None = None
    """Seconds since the epoch."""
    finished: float | None = None
    """Seconds since the epoch."""
    reason: str | None = None
    """Reason for its failure or damage, or the step at which it paused."""


def listed_runs(
    runs_dir: Path,
    study: str | None = None,
    *,
    status: Sequence[ListedStatus] = (),
    match: str = "*",
) -> list[ListedRun]:
    """Return the runs of one study or of all, by name.

    Args:
        runs_dir: Folder of all studies.
        study: Folder under ``runs_dir``; None = all.
        status: Keep runs of these; empty = all.
        match: Pattern of ``study/trial-seed``, or of ``trial-seed`` alone, with ``*`` and ``?``.

    Raises:
        ConfigError: no such study.
    """
    records = list_runs(runs_dir, study)
    refused = _refused(runs_dir, study)
    if study is not None and not records and not refused:
        known = {record.path.parent.name for record in list_runs(runs_dir)}
        raise ConfigError(unknown_name("study", "study", study, known))
    objectives = {folder: _objective(folder) for folder in {r.path.parent for r in records}}
    named = {run.run for run in refused}
    found = [_run_or_damage(r, objectives[r.path.parent]) for r in records if r.name not in named]
    kept = [
        run
        for run in (*found, *refused)
        if (not status or run.status in status)
        and (fnmatchcase(run.run, match) or fnmatchcase(run.run.partition("/")[2], match))
    ]
    return sorted(kept, key=lambda run: run.run)


def sorted_runs(
    runs: Sequence[ListedRun], by: SortKey = "run", *, reverse: bool = False
) -> list[ListedRun]:
    """Return runs in an order; those without a value come last.

    Args:
        runs: The runs.
        by: ``score`` puts the best first, ``step``, ``tokens`` and the times the largest; ``run`` and
            ``status`` are in the order of the alphabet.
        reverse: Turn the order round.
    """
    known = [run for run in runs if getattr(run, by) is not None]
    unknown = [run for run in runs if getattr(run, by) is None]
    if by in ("run", "status"):
        known.sort(key=lambda run: (getattr(run, by), run.run), reverse=reverse)
    else:
        known.sort(key=lambda run: _size(run, by), reverse=not reverse)
    return [*known, *unknown]


def _size(run: ListedRun, by: SortKey) -> float:
    """Return what is largest for the run that comes first."""
    value = float(getattr(run, by))
    return -value if by == "score" and run.direction == "minimize" else value


def _objective(folder: Path) -> Objective:
    """Return the study's objective; the runs' own score if its definition is damaged."""
    try:
        return objective_of(folder)
    except UserError as error:
        print(f"note: {error}; the scores shown are the runs' own", file=sys.stderr)
        return Objective()


def _run_or_damage(record: RunRecord, objective: Objective) -> ListedRun:
    """Return a run, or the reason why its record cannot be read."""
    try:
        return _run(record, objective)
    except (UserError, OSError) as error:
        reason = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A field of another type than was written.
        reason = f"{type(error).__name__}: {error}"
    study = record.path.parent.name
    return ListedRun(run=record.name, study=study, status="damaged", reason=reason)


def _run(record: RunRecord, objective: Objective) -> ListedRun:
    manifest, result = record.manifest, record.result() or {}
    status: ListedStatus = manifest.status
    if status in ("training", "scoring") and _silent(record):
        status = "interrupted"
    weights = (manifest.config.get("mixture") or {}).get("weights") or {}
    paused = (paused_at(record) or {}) if status == "paused" else {}
    step, tokens = (result or paused).get("step"), (result or paused).get("tokens")
    if step is None and (rows := record.metrics()):
        step, tokens = rows[-1]["step"], rows[-1]["tokens"]
    return ListedRun(
        run=record.name,
        study=manifest.study,
        trial=manifest.trial,
        seed=manifest.seed,
        status=status,
        step=step,
        tokens=tokens,
        score=objective.value(result),
        score_name=objective.name,
        direction=objective.direction or result.get("direction"),
        weights={name: float(weight) for name, weight in weights.items()},
        started=manifest.started,
        finished=manifest.finished,
        reason=_paused(paused) or manifest.reason or None,
    )


def _paused(paused: Mapping[str, Any]) -> str:
    """Return where a run paused and its score there, which is no score of a full run."""
    if not paused:
        return ""
    score = paused.get("score")
    at = f"paused at {paused.get('share', 0.0):.0%} of its tokens"
    return at if score is None else f"{at}, score {score:.4f} there"


def _refused(root: Path, study: str | None) -> list[ListedRun]:
    """Return the runs that failed before they had a record: their config or a source is wrong."""
    folders = [root / study] if study is not None else sorted(root.glob("*"))
    return [
        ListedRun(run=f"{folder.name}/{name}", study=folder.name, status="failed", reason=reason)
        for folder in folders
        for name, reason in refused_in(folder).items()
    ]


def _silent(record: RunRecord) -> bool:
    """Return True if nothing in the folder has been written lately."""
    newest = max(path.stat().st_mtime for path in record.path.iterdir())
    return time.time() - newest > _SILENT_SECONDS
