"""Runs of a study as the law of repeats sees them, and the law on disk: ``runs/<study>/repeats.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from ablations.files import write_sealed
from ablations.mixture.repeats import RepeatLaw
from ablations.record.run_record import RunRecord, list_runs
from ablations.record.stored import stored_object
from sweeps.repeats.law_fit import FittedRepeats, RepeatRun
from sweeps.study.objective import Objective, objective_of
from sweeps.study.specs import loss_sign

__all__ = ["LAW_FILE", "read_law", "runs_of_study", "with_law", "write_law"]

LAW_FILE = "repeats.json"


def runs_of_study(runs_dir: Path, study: str, metric: str | None = None) -> list[RepeatRun]:
    """Return the finished runs of a study with what they read, by their audits.

    Args:
        runs_dir: Folder of the studies.
        study: The study.
        metric: ``task/metric`` to use as the loss; None = the study's objective.

    Raises:
        ConfigError: the study has no finished run with this metric.
    """
    objective = objective_of(runs_dir / study)
    found = [
        run
        for record in list_runs(runs_dir, study)
        if record.status == "done" and (run := _run(record, objective, metric)) is not None
    ]
    if not found:
        raise ConfigError(
            Problem(f"{runs_dir}/{study}", "no finished run with a result and an audit")
        )
    return found


def _run(record: RunRecord, objective: Objective, metric: str | None) -> RepeatRun | None:
    result, audit = record.result() or {}, record.audit()
    value = objective.value(result) if metric is None else (result.get("metrics") or {}).get(metric)
    if value is None or audit is None:
        return None
    direction = objective.direction or result.get("direction")
    if metric is not None:
        direction = "minimize" if metric.endswith("/bpb") else "maximize"
    read: dict[str, float] = {}
    for row in audit["stages"]:
        read[row["source"]] = read.get(row["source"], 0.0) + float(row["tokens"])
    read = {source: tokens for source, tokens in read.items() if tokens}
    unique = {source: tokens / audit["epochs"][source] for source, tokens in read.items()}
    return RepeatRun(unique=unique, read=read, loss=loss_sign(direction) * float(value))


def write_law(folder: Path, study: str, fitted: FittedRepeats) -> Path:
    """Write the law of a study and its evidence."""
    path = folder / LAW_FILE
    write_sealed(
        path,
        {
            "law": asdict(fitted.law(study)),
            "determined": fitted.determined,
            "spread_of_prior": fitted.spread,
            "runs": fitted.runs,
        },
    )
    return path


def read_law(folder: Path) -> RepeatLaw | None:
    """Return the law that was fitted to the study in ``folder``; None if there is none to judge with."""
    path = folder / LAW_FILE
    if not os.path.lexists(path):
        return None
    stored: Mapping[str, Any] = stored_object(path)
    return RepeatLaw(**stored["law"]) if stored["determined"] else None


def with_law(mixture: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the plain mixture of a full run with the law of the study in ``folder``, if it has one.

    The gate and the full run's own plan judge epochs by it. A law that the mixture states stays.
    """
    law = read_law(folder) if mixture.get("repeats") is None else None
    return {**mixture, "repeats": asdict(law)} if law else dict(mixture)
