"""Task quality applied to a study's score: decided once, before its first proposal.

    baselines and design of the study ─▶ quality of each metric ─▶ metrics that leave the score
    (or an earlier study)                                        ─▶ weights of those that stay

The decision is kept in ``study.json`` and never made again. It looks at the planned trials alone: they
were chosen before any score was seen, and the runs that the verdict judges come later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.evaluation.score_rule import removable
from ablations.record.run_record import list_runs
from ablations.record.stored import stored_object
from sweeps.study.run_results import trial_file
from sweeps.study.specs import TaskQualitySpec
from sweeps.verdict.observations import Observations, score_form
from sweeps.verdict.study_observations import gather, gather_records
from sweeps.verdict.task_effects import task_signals
from sweeps.verdict.task_quality import UNSTABLE, Signal

__all__ = ["decide_task_quality"]

_LATE = 5
"""Checkpoints of each run that count as late, as in a verdict by default."""

_PLANNED = ("baseline", "design")


def decide_task_quality(runs_dir: Path, study: str, spec: TaskQualitySpec) -> dict[str, Any]:
    """Return the decision on a study's score, plain, for ``study.json``.

    Args:
        runs_dir: Folder of all studies.
        study: The study whose baselines and design have ended.
        spec: Thresholds, and the earlier study that decides if any.

    Raises:
        UserError: the runs cannot be compared, or the earlier study does not exist.
    """
    planned = [r for r in list_runs(runs_dir, study) if _phase(r.path) in _PLANNED]
    own = gather_records(study, planned)
    source = own if spec.study is None else gather(runs_dir, spec.study)
    least = (spec.min_variance_ratio, spec.min_monotonicity, spec.min_above_chance)
    signals = task_signals(source, _LATE, least)
    left_out = _left_out(own, signals)
    kept = [task for task in own.tasks if task.key not in left_out]
    if not score_form(own.rule, own.direction, kept).weights:
        # Without any metric there is no score: a study with no signal at all keeps what it has.
        left_out, kept = {}, list(own.tasks)
    form = score_form(own.rule, own.direction, kept)
    return {
        "from": spec.study or study,
        "runs": [run.name for run in source.runs],
        "left_out": left_out,
        "weights": dict(form.weights),
        "constant": form.constant,
        "measured": {
            signal.task: {
                "variance_ratio": signal.variance_ratio,
                "monotonicity": signal.monotonicity,
                "above_chance": signal.above_chance,
            }
            for signal in signals
        },
        "decided": time.time(),
    }


def _left_out(own: Observations, signals: tuple[Signal, ...]) -> dict[str, str]:
    """Metrics of the score that fail a criterion and may be left out, with the reason."""
    may = set(removable(own.rule, [task.key for task in own.tasks]))
    reasons = {
        signal.task: ", ".join(w for w in signal.warnings if w != UNSTABLE) for signal in signals
    }
    return {key: why for key, why in reasons.items() if why and key in may}


def _phase(folder: Path) -> str | None:
    path = trial_file(folder)
    spec: Mapping[str, Any] = stored_object(path) if path.exists() else {}
    return spec.get("phase")
