"""Inputs of the analysis: the runs that count, fitted, with the noise of the candidates' differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ablations.errors import ConfigError, Problem, UserError
from sweeps.verdict import messages
from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.covariance import Covariance
from sweeps.verdict.item_noise import item_covariance
from sweeps.verdict.observations import Observations, score_form
from sweeps.verdict.training_noise import (
    Floats,
    MeansFit,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
    mean_noise,
)

__all__ = ["AnalysisInputs", "VerdictOptions", "prepare_inputs", "too_few"]


@dataclass(frozen=True, kw_only=True)
class VerdictOptions:
    """Options of a verdict."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    baseline: str | None = None
    """Candidate to beat, by name or trial; null = the first baseline of the study, or none."""
    pick: str | None = None
    """Candidate proposed; null = the best mean."""
    alpha: float = 0.05
    """Two-sided error rate of the study as a whole."""
    margin: float = 0.0
    """Differences within it do not matter, in score units; 0 = every difference matters."""
    effect: float | None = None
    """A further difference to report the needed seeds and items for, in score units; null = none."""
    last_checkpoints: int = 5
    """Checkpoints of each run that count as late, for noise and the stability of rankings."""
    run_sd: float | None = None
    """Declared training noise (SD of the score of one run), for a study without seeds of its own."""

    def __post_init__(self) -> None:
        problems = [
            Problem(name, "out of range", found=value, allowed=allowed)
            for name, value, good, allowed in (
                ("alpha", self.alpha, 0.0 < self.alpha < 1.0, "0 < alpha < 1"),
                ("margin", self.margin, self.margin >= 0.0, ">= 0"),
                ("effect", self.effect, self.effect is None or self.effect > 0.0, "> 0"),
                ("last_checkpoints", self.last_checkpoints, self.last_checkpoints >= 3, ">= 3"),
                ("run_sd", self.run_sd, self.run_sd is None or self.run_sd > 0.0, "> 0"),
            )
            if not good
        ]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class AnalysisInputs:
    """Observations with the means and the noise that a verdict is computed from."""

    observed: Observations
    """The runs that count."""
    scores: Floats
    """Declared objective of each run, turned so that higher is better."""
    fit: MeansFit
    evidence: Evidence
    weights: Mapping[str, float]
    """Weight of each metric in the score, turned so that higher is better."""
    caveats: tuple[str, ...]


def prepare_inputs(observed: Observations, options: VerdictOptions) -> AnalysisInputs:
    """Fit the runs that count on the objective that the study declares.

    Raises:
        UserError: fewer than two candidates have every metric of the score.
    """
    caveats = []
    form = observed.form or score_form(observed.rule, observed.direction, observed.tasks)
    scores = np.array([run.score for run in observed.runs])
    observed, scores, lost = _without_missing(observed, scores)
    if lost:
        caveats.append(f"{lost} run(s) lack a metric of the score and were left out.")
    if observed.left_out_metrics:
        caveats.append(messages.left_out_of_score(observed.left_out_metrics))
    oriented = {key: observed.sign * weight for key, weight in form.weights.items()}
    fit = fit_means(observed.run_scores(observed.sign * scores))
    noise, noise_caveats = _noise(observed, fit, oriented, options)
    items, item_df = _items(observed, oriented)
    evidence = Evidence(
        names=tuple(candidate.name for candidate in observed.candidates),
        means=fit.means,
        unit=fit.unit,
        noise=noise,
        item_covariance=items,
        item_df=item_df,
        alpha=options.alpha,
        own=fit.own if noise.source == "seeds" else None,
    )
    return AnalysisInputs(
        observed=observed,
        scores=observed.sign * scores,
        fit=fit,
        evidence=evidence,
        weights=oriented,
        caveats=(*caveats, *noise_caveats),
    )


def _without_missing(observed: Observations, scores: Floats) -> tuple[Observations, Floats, int]:
    known = np.isfinite(scores)
    if known.all():
        return observed, scores, 0
    kept = observed.keep(known.tolist())
    if len(kept.candidates) < 2:
        raise UserError(too_few(kept))
    return kept, scores[known], int((~known).sum())


def _noise(
    observed: Observations, fit: MeansFit, weights: Mapping[str, float], options: VerdictOptions
) -> tuple[TrainingNoise, list[str]]:
    """Return the training noise of the score, and its caveats."""
    seeds, caveats = fit.noise, []
    if seeds.known and seeds.variance <= 0.0:
        caveats.append("Replicates are identical to the last bit, so they do not show the noise.")
        seeds = TrainingNoise.unknown()
    late = checkpoint_noise(observed.score_trajectories, options.last_checkpoints)
    if options.run_sd is not None:
        declared = TrainingNoise(
            variance=options.run_sd**2, df=observed.published_df, source="published"
        )
        late = late if seeds.known else TrainingNoise.unknown()
    else:
        sds = {t.key: t.published_sd for t in observed.tasks if t.published_sd is not None}
        declared = mean_noise(sds, weights, observed.published_df)
        undeclared = [key for key in weights if key not in sds]
        if sds and undeclared and not (seeds.known or late.known):
            caveats.append(messages.without_noise(undeclared))
    noise = combine(seeds, late if late.variance > 0.0 else TrainingNoise.unknown(), declared)
    return noise, caveats + messages.noise_caveats(noise)


def _items(
    observed: Observations, weights: Mapping[str, float]
) -> tuple[Floats | Covariance | None, float]:
    counted = [task for task in observed.tasks if task.key in weights]
    tables = [task.items for task in counted if task.items is not None]
    if not tables or len(tables) < len(counted):
        return None, math.inf
    owner = np.array([run.candidate for run in observed.runs])
    groups = [task.groups for task in counted]
    return item_covariance(tables, [weights[task.key] for task in counted], owner, groups)


def too_few(observed: Observations) -> Problem:
    """Return the problem of a study without two candidates."""
    left = "; ".join(f"{run}: {why}" for run, why in list(observed.left_out.items())[:5])
    return Problem(
        f"study {observed.study!r}",
        "a verdict compares at least two candidates with scores",
        found=f"{len(observed.candidates)} ({left})" if left else len(observed.candidates),
        do="run more trials of it",
    )
