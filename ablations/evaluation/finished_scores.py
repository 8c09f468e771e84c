"""The end of a checkpoint's scoring, when the scores of all its tasks are there; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ablations.errors import EvaluationError
from ablations.evaluation.results import CheckpointScores, TaskScores, seal_details
from ablations.evaluation.score_rule import Score, apply_rule
from ablations.evaluation.specs import EvaluationSpec

__all__ = ["finish_scores"]


def finish_scores(
    step: int, spec: EvaluationSpec, tasks: Mapping[str, TaskScores], details: Path, seconds: float
) -> CheckpointScores:
    """Seal the details of a checkpoint and return its scores with the score made of them.

    Args:
        step: The checkpoint.
        spec: The suite and its score.
        tasks: Scores of all its tasks.
        details: Folder of the details of all checkpoints.
        seconds: CPU seconds of scoring it.

    Raises:
        EvaluationError: no task could be scored.
    """
    folder = details / str(step)
    seal_details(folder)
    if tasks and all(task.reason for task in tasks.values()):
        reasons = "; ".join(f"{name}: {task.reason}" for name, task in tasks.items())
        raise EvaluationError(f"step {step}: no task could be scored: {reasons}")
    rule = spec.score
    score = apply_rule(rule, tasks) if rule else Score(None)
    return CheckpointScores(
        step=step,
        tasks=tasks,
        score=score.value,
        direction=rule.direction if rule else None,
        reason=score.reason,
        seconds=seconds,
        details={n: folder / f"{n}.parquet" for n, task in tasks.items() if task.reason is None},
    )
