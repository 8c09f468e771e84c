"""Run ``ablate ls``: list runs with status and the objective of their study."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, UserError, unknown_name
from ablations.record.run_record import RunRecord, list_runs
from sweeps.commands.command_options import LsOptions, read_options
from sweeps.study.objective import Objective, objective_of
from sweeps.study.run_results import refused_in

__all__ = ["main"]

_SILENT_SECONDS = 120
"""Longest time without a write for a run that is training or scoring; then it is shown as interrupted."""


def main(config: Mapping[str, Any]) -> int:
    """Print one line for each run, of one study or of all."""
    options = read_options(LsOptions, config, alone=True)
    root, study = Path(options.runs_dir), options.study
    records = list_runs(root, study)
    refused = _refused(root, study)
    if not records and not refused:
        if study is not None and (known := {r.path.parent.name for r in list_runs(root)}):
            raise ConfigError(unknown_name("study", "study", study, known))
        if study is not None:
            raise ConfigError(unknown_name("study", "study", study, ()))
        print(f"no runs under {root}/; `ablate run` makes one")
        return 0
    objectives = {folder: _objective(folder) for folder in {r.path.parent for r in records}}
    names = {objective.name for objective in objectives.values()}
    number = names.pop() if len(names) == 1 else "score"
    head = tuple(number if name == "score" else name for name in _HEAD)
    refused_names = {row[0] for row in refused}
    recorded = [
        _row_or_damage(record, objectives[record.path.parent])
        for record in records
        if record.name not in refused_names
    ]
    rows = [head, *sorted([*recorded, *refused], key=lambda row: row[0])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


_HEAD = ("run", "status", "step", "tokens", "score", "mixture", "reason")


def _objective(folder: Path) -> Objective:
    """Return the study's objective; the runs' own score if its definition is damaged."""
    try:
        return objective_of(folder)
    except UserError as error:
        print(f"note: {error}; the scores shown are the runs' own", file=sys.stderr)
        return Objective()


def _row_or_damage(record: RunRecord, objective: Objective) -> tuple[str, ...]:
    """Return the row of a run, or a row with the reason if its record is damaged."""
    try:
        return _row(record, objective)
    except (UserError, OSError) as error:
        reason = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A field of another type than was written.
        reason = f"{type(error).__name__}: {error}"
    return (record.name, "damaged", "", "", "", "", reason.splitlines()[0][:120])


def _row(record: RunRecord, objective: Objective) -> tuple[str, ...]:
    manifest, result = record.manifest, record.result() or {}
    status: str = manifest.status
    if status in ("training", "scoring") and _silent(record):
        status = "interrupted"
    weights = (manifest.config.get("mixture") or {}).get("weights") or {}
    score = objective.value(result)
    step, tokens = result.get("step"), result.get("tokens")
    if step is None and (rows := record.metrics()):
        step, tokens = rows[-1]["step"], rows[-1]["tokens"]
    return (
        record.name,
        status,
        "" if step is None else f"{step:,}",
        "" if tokens is None else f"{tokens:,}",
        "" if score is None else f"{score:.4f}",
        " ".join(f"{name}={weight:.3g}" for name, weight in weights.items()),
        (manifest.reason or "").splitlines()[0][:60] if manifest.reason else "",
    )


def _refused(root: Path, study: str | None) -> list[tuple[str, ...]]:
    """Return one row for each run that failed before it had a record: its config or a source is wrong."""
    folders = [root / study] if study is not None else sorted(root.glob("*"))
    return [
        (f"{folder.name}/{name}", "failed", "", "", "", "", reason.splitlines()[0][:60])
        for folder in folders
        for name, reason in refused_in(folder).items()
    ]


def _silent(record: RunRecord) -> bool:
    """Return True if nothing in the folder has been written lately."""
    newest = max(path.stat().st_mtime for path in record.path.iterdir())
    return time.time() - newest > _SILENT_SECONDS
