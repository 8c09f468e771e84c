"""Verdicts with stated numbers, as records that a test can change."""

from __future__ import annotations

from typing import Any

from sweeps.verdict.contrasts import Estimate
from sweeps.verdict.decision import Regret
from sweeps.verdict.task_quality import TaskQuality
from sweeps.verdict.verdict_record import CandidateRow, NoiseRow, PictureRow, TaskRow, Verdict


def estimate(value: float, **changes: float) -> Estimate:
    """Return a difference with an interval of one on both sides."""
    plain = {"standard_error": 0.5, "df": 9.0, "low": value - 1.0, "high": value + 1.0}
    return Estimate(value=value, **{**plain, "p": 0.01, "p_corrected": 0.02, **changes})


def candidate(name: str, **changes: Any) -> CandidateRow:
    plain: dict[str, Any] = {"trial": f"trial-{name}", "seeds": (0, 1, 2, 3), "mean": 0.5}
    plain |= {"advantage": None, "finalist": False, "weights": {}}
    return CandidateRow(name=name, **{**plain, **changes})


def task_row(task: str, **changes: Any) -> TaskRow:
    plain: dict[str, Any] = {"metric": "acc", "reference": 0.25, "pick": 0.75, "advantage": None}
    plain |= {"effect": "unknown", "in_score": True, "items": None, "item_error": None}
    return TaskRow(task=task, **{**plain, **changes})


def picture_row(task: str, name: str, **changes: Any) -> PictureRow:
    plain: dict[str, Any] = {"gain": 0.4, "gain_low": 0.3, "shuffled_gain": 0.2, "runs": 3}
    plain |= {"shuffled_gain_low": 0.1, "noise": "items", "used": True, "in_score": True}
    return PictureRow(task=task, candidate=name, **{**plain, **changes})


def quality(task: str, **changes: Any) -> TaskQuality:
    plain: dict[str, Any] = {"monotonicity": None, "noise_sd": None, "above_chance": None}
    return TaskQuality(task=task, **{**plain, "stability": None, "warnings": (), **changes})


def verdict(**changes: Any) -> Verdict:
    """Return a verdict that ``mix`` beats ``base``, with the changes asked for."""
    plain: dict[str, Any] = {
        "study": "web",
        "outcome": "winner",
        "tie_kind": None,
        "sentence": "Take mix.",
        "pick": "mix",
        "baseline": "base",
        "reference": "base",
        "direction": "maximize",
        "score": "mean of acc",
        "advantage": estimate(2.0),
        "equivalence_p": None,
        "regret": Regret(
            margin=0.0, chance=0.125, expected=0.25, expected_if_kept=0.5, shrunk_advantage=1.5
        ),
        "finalists": ("mix",),
        "candidates": (candidate("base"), candidate("mix", mean=2.5, advantage=estimate(2.0))),
        "tasks": (),
        "signal": (),
        "transfer": (),
        "settle": (),
        "settle_text": "",
        "noise": NoiseRow(
            source="seeds",
            run_sd=0.5,
            df=6.0,
            item_error=None,
            blocked=False,
            bootstrap=None,
            permutation_p=None,
        ),
        "confirmed": False,
        "alpha": 0.05,
        "margin": 0.0,
        "rule": "two-sided p.",
        "caveats": (),
        "runs": ("trial-base-0", "trial-mix-0"),
        "left_out": {},
        "created": 1.0,
    }
    return Verdict(**{**plain, **changes})
