"""Run ``ablate fit``: surrogates of a study or of any swarm, their leaderboard, the optimum."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ablations.config.schema import validate
from ablations.documents import Answer
from ablations.errors import ConfigError, Problem
from ablations.record.run_record import RunRecord
from sweeps.commands.command_options import FitSubject, read_options
from sweeps.search.surrogates.leaderboard import Entry
from sweeps.study.definition import load_definition
from sweeps.study.run_results import trial_fields
from sweeps.swarm.fit_swarm import FitOptions, SwarmFit, fit_swarm, write_fit
from sweeps.swarm.swarm_tables import Swarm, read_pair, read_study

__all__ = ["FitResult", "answer", "declared", "describe", "main"]

_OF_COMMAND = (*(field.name for field in fields(FitSubject)), "config_dirs")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Surrogates of a swarm, and the optimum of one."""

    surrogate: str
    """Family whose optimum is given."""
    metrics: tuple[str, ...]
    """Metrics that the score is the mean of."""
    leaderboard: tuple[Entry, ...]
    """Families on left-out runs, best first."""
    dropped: tuple[Entry, ...]
    """Families whose predictions leave the data."""
    skill: float
    """Rank correlation of the surrogate on left-out runs."""
    skill_needed: float
    """Smallest rank correlation that is accepted."""
    optimum: Mapping[str, float] | None
    """Source → weight; None without enough evidence."""
    reasons: tuple[str, ...]
    """Why there is no optimum; empty if there is one."""
    more_runs: int | None
    """Runs more that may settle it."""
    score: float
    """Predicted score at the optimum of the fitted surface."""
    low: float
    """Lower bound of a new run's score there, at 90%."""
    high: float
    """Upper bound."""
    ranges: Mapping[str, tuple[float, float]]
    """Source → 5th and 95th percentile of its weight over resampled runs."""
    best_run: str
    """Run with the best score."""
    best_run_score: float
    notes: tuple[str, ...]
    """Remarks on runs and metrics that were left out."""
    files: tuple[str, ...]
    """Files that were written."""


def main(config: Mapping[str, Any]) -> int:
    """Fit, print, and write ``fit.json`` beside the tables that it was made from."""
    swarm, fit, written = _fit(config)
    print(describe(swarm, fit))
    for path in written:
        print(f"wrote {path}")
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Fit and write as :func:`main` does, and return the fit for a program."""
    _, fit, written = _fit(config)
    return Answer(
        result=FitResult(
            surrogate=fit.surrogate,
            metrics=fit.metrics,
            leaderboard=fit.leaderboard.entries,
            dropped=fit.leaderboard.dropped,
            skill=fit.evidence.skill.correlation,
            skill_needed=fit.evidence.skill.needed,
            optimum=fit.optimum,
            reasons=fit.evidence.reasons,
            more_runs=fit.evidence.more_runs,
            score=fit.score,
            low=fit.low,
            high=fit.high,
            ranges=fit.ranges,
            best_run=fit.best_run,
            best_run_score=fit.best_run_score,
            notes=fit.notes,
            files=tuple(map(str, written)),
        )
    )


def _fit(config: Mapping[str, Any]) -> tuple[Swarm, SwarmFit, list[Path]]:
    """Fit, and write the tables and the fit."""
    own = {key: value for key, value in config.items() if key not in _OF_COMMAND}
    validate(FitOptions, own)  # before tables are read, which may take long
    swarm, folder = _swarm(config)
    options = validate(FitOptions, {**own, **declared(config, swarm)})
    fit = fit_swarm(swarm, options, progress=_progress)
    return swarm, fit, write_fit(folder, swarm, fit)


def _progress(line: str) -> None:
    """Print a line to standard error: standard output is for the answer alone."""
    print(line, file=sys.stderr, flush=True)


def describe(swarm: Swarm, fit: SwarmFit) -> str:
    """Return the answer of a fit, for a terminal."""
    lines = [*fit.notes, str(fit.leaderboard), ""]
    known = fit.evidence.skill
    lines.append(
        f"skill of {fit.surrogate} on left-out runs: rank correlation {known.correlation:.2f}, "
        f"needed {known.needed:.2f} (chance among shuffled scores {known.chance:.2g})"
    )
    best = f"best run so far: {fit.best_run}, score {fit.best_run_score:.4g}"
    if fit.optimum is None:
        lines.append("not enough evidence for an optimum:")
        lines += [f"  - {reason}" for reason in fit.evidence.reasons]
        lines.append(f"about {fit.evidence.more_runs} runs more may settle it; {best}")
        return "\n".join(lines)
    for found in (fit.evidence.baseline, fit.evidence.best_run):
        if found is not None:
            lines.append(
                f"optimum against {found.to}: {found.value:+.3g} "
                f"(90% {found.low:+.3g} to {found.high:+.3g}; below 0 is better)"
            )
    lines.append(
        f"optimum of {fit.surrogate}: score {fit.score:.4g}, a run there is expected in "
        f"[{fit.low:.4g}, {fit.high:.4g}] (90%)"
    )
    lines += [best, *_weights(swarm, fit, fit.optimum)]
    return "\n".join(lines)


def _weights(swarm: Swarm, fit: SwarmFit, optimum: Mapping[str, float]) -> list[str]:
    """Return lines with the weights of the optimum and their ranges, the largest first."""
    width = max(len(name) for name in swarm.sources)
    lines = [f"{'source':<{width}}  optimum  over resampled runs (5–95%)"]
    for name, weight in sorted(optimum.items(), key=lambda item: -item[1]):
        low, high = fit.ranges.get(name, (weight, weight))
        if max(weight, high) >= 0.005:
            lines.append(f"{name:<{width}}  {weight:>7.3f}  {low:.3f} – {high:.3f}")
    return lines


def declared(config: Mapping[str, Any], swarm: Swarm) -> dict[str, Any]:
    """Return options that a study declares and the command does not: its objective and its baseline."""
    if config.get("study") is None:
        return {}
    folder = Path(config.get("runs_dir") or "runs") / str(config["study"])
    study = load_definition(folder)
    if study is None:
        return {}
    found: dict[str, Any] = {}
    if list(config.get("target") or ["*"]) == ["*"] and study.objectives:
        objective = next(iter(study.objectives.values()))
        rule = (study.config.get("evaluation") or {}).get("score") or {}
        direction = objective.get("direction") or rule.get("direction")
        found["target"] = list(objective.get("metrics") or ["score"])
        found |= {"direction": direction} if direction else {}
    name = study.strategy.get("baseline")
    for run in swarm.runs if config.get("baseline") is None else ():
        spec = trial_fields(RunRecord(folder / run))
        if spec.get("phase") == "baseline" and spec.get("name") == name:
            return {**found, "baseline": run}
    return found


def _swarm(config: Mapping[str, Any]) -> tuple[Swarm, Path]:
    """Return the swarm of the options, and the folder of its fit."""
    subject = read_options(FitSubject, config)
    study, ratios, metrics = subject.study, subject.ratios, subject.metrics
    if (study is None) == (ratios is None) or (ratios is None) != (metrics is None):
        raise ConfigError(
            Problem(
                "study",
                "name a study, or a pair of tables",
                found=f"study={study}, ratios={ratios}, metrics={metrics}",
                allowed="study=NAME, or ratios=RATIOS.csv metrics=METRICS.csv",
            )
        )
    if study is not None:
        runs_dir = Path(subject.runs_dir)
        return read_study(runs_dir, study), Path(subject.out or runs_dir / study / "fit")
    swarm = read_pair(Path(str(ratios)), Path(str(metrics)), subject.bad_rows)
    return swarm, Path(subject.out or "fit")
