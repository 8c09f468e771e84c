"""Run ``ablate fit``: surrogates of a study, a swarm or several sizes, their leaderboard, the optimum."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
from sweeps.swarm.fit_sizes import SizeEntry, SizesFit, fit_sizes, size_name, write_sizes_fit
from sweeps.swarm.fit_swarm import FitOptions, SwarmFit, fit_swarm, write_fit
from sweeps.swarm.sized_swarm import SizedSwarm, join_sizes, read_sizes
from sweeps.swarm.swarm_tables import Swarm, read_pair, read_study

__all__ = ["FitResult", "answer", "declared", "describe", "describe_sizes", "main"]

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
    """Reason why there is no optimum; empty if there is one."""
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
    sizes: tuple[SizeEntry, ...] = ()
    """Model sizes, each predicted from the others, in a fit over sizes."""


def main(config: Mapping[str, Any]) -> int:
    """Fit, print, and write ``fit.json`` beside the tables that it was made from."""
    if _has_sizes(config):
        sizes, written = _fit_sizes(config)
        print(describe_sizes(sizes))
        for path in written:
            print(f"wrote {path}")
        return 0
    swarm, fit, written = _fit(config)
    print(describe(swarm, fit))
    for path in written:
        print(f"wrote {path}")
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Fit and write as :func:`main` does, and return the fit for a program."""
    if _has_sizes(config):
        return Answer(result=_sizes_result(*_fit_sizes(config)))
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
    swarm, folder = _swarm(read_options(FitSubject, config))
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
    lines += [best, *_weights(fit.optimum, fit.ranges)]
    return "\n".join(lines)


def _weights(optimum: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return lines with the weights of the optimum and their ranges, the largest first."""
    width = max(len(name) for name in optimum)
    lines = [f"{'source':<{width}}  optimum  over resampled runs (5–95%)"]
    for name, weight in sorted(optimum.items(), key=lambda item: -item[1]):
        low, high = ranges.get(name, (weight, weight))
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


def _swarm(subject: FitSubject) -> tuple[Swarm, Path]:
    """Return the swarm of the options, and the folder of its fit."""
    study, ratios, metrics = subject.study, subject.ratios, subject.metrics
    lists = isinstance(ratios, tuple) or isinstance(metrics, tuple)
    if lists or (study is None) == (ratios is None) or (ratios is None) != (metrics is None):
        raise ConfigError(
            Problem(
                "study",
                "name a study, or a pair of tables",
                found=f"study={study}, ratios={ratios}, metrics={metrics}",
                allowed="study=NAME, or ratios=RATIOS.csv metrics=METRICS.csv; over sizes: "
                "table=TABLE.csv, or lists of ratios, metrics and sizes",
            )
        )
    if study is not None:
        runs_dir = Path(subject.runs_dir)
        return read_study(runs_dir, study), Path(subject.out or runs_dir / study / "fit")
    swarm = read_pair(Path(str(ratios)), Path(str(metrics)), subject.bad_rows)
    return swarm, Path(subject.out or "fit")


def _has_sizes(config: Mapping[str, Any]) -> bool:
    """Return whether the options ask for a fit over sizes."""
    subject = read_options(FitSubject, config)
    return subject.table is not None or bool(subject.sizes)


def _fit_sizes(config: Mapping[str, Any]) -> tuple[SizesFit, list[Path]]:
    """Fit several sizes together, and write the leaderboard and the fit."""
    own = {key: value for key, value in config.items() if key not in _OF_COMMAND}
    options = validate(FitOptions, own)
    subject = read_options(FitSubject, config)
    fit = fit_sizes(_sized(subject), options, progress=_progress)
    return fit, write_sizes_fit(Path(subject.out or "fit"), fit)


def _sizes_result(fit: SizesFit, written: Sequence[Path]) -> FitResult:
    """Return a fit over sizes for a program."""
    return FitResult(
        surrogate="gp-rungs",
        metrics=fit.metrics,
        leaderboard=(),
        dropped=(),
        skill=fit.skill.correlation,
        skill_needed=fit.skill.needed,
        optimum=fit.optimum,
        reasons=fit.reasons,
        more_runs=None,
        score=fit.score,
        low=fit.low,
        high=fit.high,
        ranges=fit.ranges,
        best_run=fit.best_run,
        best_run_score=fit.best_run_score,
        notes=fit.notes,
        files=tuple(map(str, written)),
        sizes=fit.leaderboard,
    )


def _sized(subject: FitSubject) -> SizedSwarm:
    """Return the runs of all sizes, of one table or of a pair of tables for each size."""
    given = (subject.study, subject.ratios, subject.metrics)
    if subject.table is not None:
        if any(value is not None for value in given) or subject.sizes:
            raise ConfigError(_one_of(subject))
        return read_sizes(
            Path(subject.table),
            size=subject.size,
            tokens=subject.tokens,
            weights=subject.weights,
            bad_rows=subject.bad_rows,
        )
    ratios, metrics = subject.ratios, subject.metrics
    if not isinstance(ratios, tuple) or not isinstance(metrics, tuple) or subject.study:
        raise ConfigError(_one_of(subject))
    if len(ratios) != len(metrics):
        raise ConfigError(
            Problem(
                "metrics", "not one for each of ratios", found=len(metrics), allowed=len(ratios)
            )
        )
    swarms = [
        read_pair(Path(left), Path(right), subject.bad_rows)
        for left, right in zip(ratios, metrics, strict=True)
    ]
    tokens = subject.trained_tokens or (1.0,) * len(subject.sizes)
    return join_sizes(swarms, subject.sizes, tokens)


def _one_of(subject: FitSubject) -> Problem:
    return Problem(
        "table",
        "a fit over sizes needs one table, or a pair of tables for each size",
        found=f"study={subject.study}, table={subject.table}, ratios={subject.ratios}, "
        f"metrics={subject.metrics}, sizes={list(subject.sizes)}",
        allowed="table=TABLE.csv, or ratios=[A.csv,B.csv] metrics=[A.csv,B.csv] sizes=[1e6,6e7]",
    )


def describe_sizes(fit: SizesFit) -> str:
    """Return the answer of a fit over sizes, for a terminal."""
    lines = [*fit.notes]
    lines += [f"{count} runs at {size_name(size)} parameters" for size, count in fit.sizes]
    lines += [
        "",
        "one size left out, predicted from the others",
        f"{'size':>10} {'own runs':>8} {'rank corr of the':>18}    regret  90% intervals",
        f"{'':>10} {'in fit':>8} {'score':>8} {'metrics':>9}               hold",
    ]
    for entry in fit.leaderboard:
        held = "–" if entry.coverage is None else f"{entry.coverage:.2f}"
        lines.append(
            f"{size_name(entry.size):>10} {entry.kept:>8} {entry.score_rank_correlation:>8.3f} "
            f"{entry.rank_correlation:>9.3f}    {entry.regret:>6.3f}  {held:>8}"
        )
    lines.append("")
    if fit.guard is not None:
        lines.append(
            f"rank correlation of the score between sizes, for {fit.guard.pairs} mixtures: "
            f"{fit.guard.correlation:.2f}"
        )
    if fit.optimum is None:
        return "\n".join(
            [*lines, "not enough evidence for an optimum:", *map("  - {}".format, fit.reasons)]
        )
    lines.append(
        f"optimum at {size_name(fit.sizes[-1][0])} parameters: score {fit.score:.4g}, a run there is "
        f"expected in [{fit.low:.4g}, {fit.high:.4g}] (90%)"
    )
    return "\n".join([*lines, *_weights(fit.optimum, fit.ranges)])
