"""Observations of small studies that tests judge without a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.verdict.observations import Candidate, Observations, ObservedRun, TaskData


def task(
    values: Sequence[float], name: str = "quiz", metric: str = "acc", **given: Any
) -> TaskData:
    """One metric; lower is better for bits per byte."""
    return TaskData(
        task=name,
        metric=metric,
        higher_is_better=metric != "bpb",
        chance=None,
        values=np.array(values, dtype=float),
        **given,
    )


def observations(
    scores: Mapping[str, Sequence[float]],
    *,
    seeds: Mapping[str, Sequence[int]] | None = None,
    fresh: Mapping[str, Sequence[int]] | None = None,
    weights: Mapping[str, Mapping[str, float]] | None = None,
    breaks: Mapping[str, str] | None = None,
    **given: Any,
) -> Observations:
    """Candidate → score of each run; ``fresh`` names the seeds that were added after the choice.

    The trial of ``mix`` is ``trial-mix``; without ``tasks`` the score is the one metric.
    """
    seeds, fresh, weights, breaks = seeds or {}, fresh or {}, weights or {}, breaks or {}
    runs = []
    for k, (name, own) in enumerate(scores.items()):
        for seed, score in zip(seeds.get(name, range(len(own))), own, strict=True):
            runs.append(
                ObservedRun(
                    name=f"{name}-{seed}",
                    candidate=k,
                    seed=seed,
                    score=score,
                    confirms=seed in fresh.get(name, ()),
                )
            )
    settings: dict[str, Any] = {
        "study": "web",
        "direction": "maximize",
        "score": "*/acc",
        "rule": {"all": {"metrics": "*", "weight": 1.0}},
        "tasks": (task([run.score for run in runs]),),
    }
    return Observations(
        candidates=tuple(
            Candidate(
                name=name,
                trial=f"trial-{name}",
                weights=weights.get(name, {}),
                breaks=breaks.get(name),
            )
            for name in scores
        ),
        runs=tuple(runs),
        **{**settings, **given},
    )
