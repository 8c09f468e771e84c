"""Name the runs of a study that failed or have no score, for the end of its command.

study 'demo': 2 of 21 runs failed: trial-0003-0: ImportError: No module named 'antlr4'; …; the same
command tries them again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ablations.record.run_record import RunRecord
from sweeps.study.run_results import may_be_tried_again, run_folder
from sweeps.study.study_state import Run, StudyState

__all__ = ["shortfall"]

_NAMED = 3
"""Runs that are named with their reasons; of the others there is a count."""

_LONGEST = 200
"""Characters of a reason: the whole one is in the run's record."""


def shortfall(study: StudyState, runs: Sequence[Run]) -> str | None:
    """Return what is missing of ``runs``, all of which ended; None when nothing is.

    A run without a score is one that was done and lacks a value for an objective.
    """
    failed: dict[Run, str] = {}
    unscored: dict[Run, str] = {}
    history, again = study.history(), False
    for run in runs:
        trial = study.trial(run.number)
        outcome, folder = trial.outcomes[run.seed], run_folder(study.folder, trial.spec, run.seed)
        if outcome.status == "failed":
            failed[run] = outcome.reason or "no reason was recorded"
            again = again or may_be_tried_again(outcome, folder)
        elif trial.state == "done" and history.values(trial) is None:
            unscored[run] = _why_unscored(folder)
            again = True
    if not failed and not unscored:
        return None
    parts = [
        f"{len(found)} of {len(runs)} runs {what}: {_named(study, found)}"
        for found, what in ((failed, "failed"), (unscored, "ended without a score"))
        if found
    ]
    if again:
        parts.append("the same command tries these runs again; training that is done stays done")
    return f"study {study.study!r}: " + "; ".join(parts)


def _why_unscored(folder: Path) -> str:
    """Return the reason that the last checkpoint's row of scores gives."""
    rows = RunRecord(folder).scores()
    return str(rows[-1].get("reason") or "a metric is missing") if rows else "no scores"


def _named(study: StudyState, found: Mapping[Run, str]) -> str:
    shown = [
        f"{run_folder(study.folder, study.trial(run.number).spec, run.seed).name}: {_short(why)}"
        for run, why in list(found.items())[:_NAMED]
    ]
    if more := len(found) - len(shown):
        shown.append(f"and {more} more")
    return "; ".join(shown)


def _short(reason: str) -> str:
    line = reason.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
