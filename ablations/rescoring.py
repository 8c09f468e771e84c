"""Scoring of a finished run that has no score, because a task's package or its items were missing.

Nothing is trained. A checkpoint is scored from its export, which is made again if it no longer exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablations.evaluation.specs import EvaluationSpec
from ablations.record.run_record import RunRecord

if TYPE_CHECKING:
    from ablations.execute import Work

__all__ = ["last_scores", "score_again", "unscored_steps"]


def last_scores(record: RunRecord, evaluation: EvaluationSpec) -> dict[str, Any]:
    """Return score, direction and metrics of the last scored checkpoint, as in ``result.json``."""
    rows = record.scores()
    last: Mapping[str, Any] = rows[-1] if rows else {}
    rule = evaluation.score
    return {
        "score": last.get("score"),
        "direction": last.get("direction", rule.direction if rule else None),
        "metrics": {
            f"{task}/{name}": metric["value"]
            for task, named in last.get("metrics", {}).items()
            for name, metric in named.items()
        },
    }


def unscored_steps(
    record: RunRecord, evaluation: EvaluationSpec, done: Mapping[str, Any]
) -> list[int]:
    """Return the steps of a finished run's checkpoints that lack a score and can still be scored.

    The list is empty if the run has its score, if its config asks for none, or if both the last checkpoint
    and its export were deleted.
    """
    if evaluation.score is None or done.get("score") is not None:
        return []
    steps = [row["step"] for row in record.scores() if row.get("score") is None]
    existing = [
        step
        for step in steps
        if record.export(step).exists() or (record.checkpoints_dir / str(step)).exists()
    ]
    return existing if existing[-1:] == steps[-1:] else []


def score_again(work: Work, steps: Sequence[int], done: Mapping[str, Any]) -> dict[str, Any]:
    """Score ``steps`` and return the run's new result, which is on disk by then.

    If scoring fails, the old result stays: the run is done, and has no score.
    """
    work.score_steps(steps)
    cost = dict(done.get("cost") or {})
    cost["eval_cpu_seconds"] = cost.get("eval_cpu_seconds", 0.0) + work.scoring_cpu_seconds
    result = {**done, **last_scores(work.record, work.config.evaluation), "cost": cost}
    work.record.write_result(result)
    return result
