"""Check a search before anything trains: its own values, what it measures, every trial that is known.

    config ──▶ read_search ──▶ measured ──▶ trials composed and planned ──▶ first launch

A single run and its plan check the search of their config too: it is the one of the study that the
same config begins.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.removed import removed_problems
from ablations.config.schema import validate
from ablations.errors import ConfigError, Problem, UserError
from sweeps.study.resources import is_run_config, require_paths
from sweeps.study.specs import SearchSpec

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig

__all__ = ["Compose", "check_search", "measured_problems", "read_search", "require_trials"]

Compose = Callable[[Sequence[str]], Mapping[str, Any]]
"""Task overrides → the plain config of a job."""


def check_search(config: Mapping[str, Any]) -> None:
    """Check the search that stands in the config of a single run.

    Raises:
        ConfigError: a value out of range, an unknown key, or a searched path that the config lacks.
    """
    spec = read_search(config)
    if spec.space is not None:
        require_paths(config, spec.space)


def read_search(config: Mapping[str, Any]) -> SearchSpec:
    """Return the search of a composed config.

    Raises:
        ConfigError: every value that breaks a rule, by its key.
    """
    try:
        return validate(SearchSpec, _without_nulls(config.get("search") or {}))
    except ConfigError as error:
        raise ConfigError([_in_search(problem) for problem in error.problems]) from None


def _in_search(problem: Problem) -> Problem:
    fields = {field.name for field in dataclasses.fields(SearchSpec)}
    first = problem.where.partition(".")[0]
    # Problems that a part of the space found itself carry the part's own names.
    if first not in fields and not problem.what.startswith("unknown key"):
        return problem
    return replace(problem, where=f"search.{problem.where}")


def _without_nulls(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the search without objectives and constraints that a config took back with null."""
    named = {key: search[key] for key in ("objectives", "constraints") if search.get(key)}
    kept = {
        key: {n: v for n, v in entries.items() if v is not None} for key, entries in named.items()
    }
    return {**search, **kept}


def measured_problems(spec: SearchSpec, run: RunConfig) -> list[Problem]:
    """Return every objective and constraint that the runs will not measure."""
    from ablations.evaluation.metric_matching import metric_names

    names = metric_names(run.evaluation, run.build_schedule().sources)
    asked = {f"search.objectives.{name}": o.metrics for name, o in spec.objectives.items()}
    asked |= {f"search.constraints.{name}": c.metrics for name, c in spec.constraints.items()}
    return [
        problem
        for where, patterns in asked.items()
        for pattern in patterns
        if (problem := _unmeasured(f"{where}.metrics", pattern, names, run)) is not None
    ]


def _unmeasured(where: str, pattern: str, names: Sequence[str], run: RunConfig) -> Problem | None:
    from ablations.evaluation.metric_matching import unmatched

    if pattern != "score":
        return unmatched(where, pattern, names, run.evaluation)
    if run.evaluation.score is not None:
        return None
    return Problem(
        where, "the runs have no score", do="set evaluation.score, or name metrics of the suite"
    )


def require_trials(
    trials: Iterable[tuple[str, Sequence[str]]],
    compose: Compose,
    config_dirs: Sequence[Path],
    spec: SearchSpec,
) -> None:
    """Compose and plan every trial that is known beforehand.

    Args:
        trials: What people call each, and its task overrides.
        compose: Makes a config of overrides.
        config_dirs: Folders of the user's own configs.
        spec: The search.

    Raises:
        ConfigError: every trial that could not be run, by its name.
    """
    found: dict[str, Problem] = {}
    more: Counter[str] = Counter()
    for name, overrides in trials:
        for problem in _problems(compose(overrides), config_dirs, spec):
            if (said := str(problem)) in found:
                more[said] += 1
            else:
                found[said] = replace(problem, where=f"{name}: {problem.where}")
    if found:
        raise ConfigError(
            [
                replace(p, what=f"{p.what}, in {more[said]} more trials too") if more[said] else p
                for said, p in found.items()
            ]
        )


def _problems(
    plain: Mapping[str, Any], config_dirs: Sequence[Path], spec: SearchSpec
) -> list[Problem]:
    """Return all that keeps one composed config from being run; sources need not be prepared."""
    if not is_run_config(plain):
        return []
    # Imported here: a study of another application needs no schema.
    from ablations.config.schema import load
    from ablations.plan import make_plan

    if removed := removed_problems(plain):
        return removed
    try:
        run = load(plain, config_dirs)
        return [*make_plan(run).problems, *measured_problems(spec, run)]
    except UserError as error:
        return list(error.problems)
