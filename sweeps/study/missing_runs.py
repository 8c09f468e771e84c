"""Summary of a study's runs that failed or have no score, printed at the end of the command.

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
"""Number of runs that are named with their reasons; the others are counted."""

_LONGEST = 200
"""Longest reason in characters; the run's record contains all of it."""


def shortfall(study: StudyState, runs: Sequence[Run]) -> str | None:
    """Return a summary of the ended ``runs`` that failed or have no score; None if there are none.

    A run without a score is done, and its trial has no value for an objective.
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
    elif failed:
        parts.append("they diverged: retry=true tries them again")
    return f"study {study.study!r}: " + "; ".join(parts)


def _why_unscored(folder: Path) -> str:
    """Return the reason in the last row of the run's scores."""
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
