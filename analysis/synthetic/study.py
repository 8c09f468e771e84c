"""Shape of a made-up study: sources, trials, and the truth behind its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DOMAINS", "START", "SyntheticStudy", "SyntheticTrial", "Truth", "synthetic_trials"]

DOMAINS = ("english", "dialogue", "math", "code", "science", "law", "books")
"""Domains of the sources, in order."""

START = 1_790_000_000.0
"""Fixed start (seconds since the epoch), so that a made-up study is the same on every machine."""


@dataclass(frozen=True, kw_only=True)
class SyntheticStudy:
    """Settings of a made-up study."""

    name: str
    """Folder of the study."""
    sources: tuple[str, ...] = ("wiki", "chat")
    """Sources on the simplex; source i serves domain i."""
    trials: int = 12
    """Number of trials, including baselines."""
    tasks: int = 6
    """Number of tasks, assigned to the domains in turn; every third is also scored by accuracy."""
    checkpoints: int = 4
    """Scored checkpoints per run, evenly spaced."""
    steps: int = 40
    """Optimiser steps per run."""
    tokens_per_step: int = 512
    """Trained tokens per step."""
    confirmed: int = 2
    """Number of best trials that get ``seeds`` runs instead of one."""
    seeds: int = 3
    """Runs of a confirmed trial and of a baseline."""
    items: int = 40
    """Items per task; 0 = no details."""
    stages: tuple[str, ...] = ("main",)
    """Stages of equal length; the weight of the last source grows from stage to stage."""
    hidden_size: int = 64
    """Width of the proxy, for comparisons of several model sizes."""
    noise: float = 0.01
    """Standard deviation over seeds in bits per byte, the same shift for every task of a run."""
    running: int = 0
    """Number of trials in the middle of training."""
    failed: int = 0
    """Number of trials that diverged."""
    seed: int = 0
    """Seed of the truth, and together with ``luck`` of the noise."""
    luck: int = 0
    """Second seed of the noise, for other noise around the same truth."""


@dataclass(frozen=True, kw_only=True)
class SyntheticTrial:
    """Trial of a made-up study."""

    trial: str
    name: str | None
    phase: str
    weights: Mapping[str, float]
    seeds: int
    status: str


class Truth:
    """True bits per byte of every task at a mixture; each task depends on one source."""

    def __init__(self, study: SyntheticStudy) -> None:
        draw = np.random.default_rng(study.seed)
        self.tasks = [f"task_{number:02d}" for number in range(study.tasks)]
        self.home = np.arange(study.tasks) % len(study.sources)
        self.floor = draw.uniform(1.2, 2.2, study.tasks)
        self.gain = draw.uniform(0.5, 1.2, study.tasks)
        self.pull = draw.uniform(2.0, 4.0, study.tasks)
        # A wider proxy has lower values; the order of the mixtures stays the same.
        self.size = 1.0 - 0.08 * math.log2(study.hidden_size / 64.0)

    def bpb(self, weights: np.ndarray[Any, Any], progress: float) -> np.ndarray[Any, Any]:
        """Return the bits per byte of every task at a mixture and a ``progress`` from 0 to 1."""
        reach = np.exp(-self.pull * weights[self.home] * progress)
        values: np.ndarray[Any, Any] = (self.floor + self.gain * reach) * self.size
        return values + 0.8 * (1.0 - progress) ** 2


def synthetic_trials(study: SyntheticStudy) -> list[SyntheticTrial]:
    """Return the trials of ``study``: baselines, a space-filling design, confirmed finalists."""
    count = len(study.sources)
    draw = np.random.default_rng(study.seed + 1)
    natural = np.arange(count, 0, -1) / np.arange(count, 0, -1).sum()
    points: list[tuple[str | None, Any]] = [
        ("natural", natural),
        ("uniform", np.full(count, 1.0 / count)),
    ]
    if count == 2:
        inside = np.linspace(0.1, 0.9, max(2, study.trials - 2))
        points += [(None, np.array([x, 1.0 - x])) for x in inside]
    else:
        points += [(None, draw.dirichlet(np.ones(count))) for _ in range(study.trials - 2)]
    truth = Truth(study)
    costs = [float(truth.bpb(w, 1.0).mean()) for _, w in points]
    best = set(np.argsort(costs[2:])[: study.confirmed] + 2) if study.confirmed else set()
    trials = []
    for number, (name, w) in enumerate(points[: study.trials]):
        phase = "baseline" if name else "confirm" if number in best else "design"
        many = study.seeds if phase != "design" else 1
        trials.append(
            SyntheticTrial(
                trial=f"trial-{number:04d}",
                name=name,
                phase=phase,
                weights=dict(zip(study.sources, (float(x) for x in w), strict=True)),
                seeds=many,
                status=_state(study, number),
            )
        )
    return trials


def _state(study: SyntheticStudy, number: int) -> str:
    from_end = study.trials - 1 - number
    if from_end < study.running:
        return "training"
    return "failed" if from_end < study.running + study.failed else "done"
