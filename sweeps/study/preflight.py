"""Checks of a search before anything trains: its values, its metrics, every trial known beforehand.

    config ──▶ read_search ──▶ measured ──▶ trials composed and planned ──▶ first launch

A single run and its plan check the search of their config too, because the same config would start
that study.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.program_names import program_kind
from ablations.config.removed import removed_problems
from ablations.config.schema import validate
from ablations.errors import ConfigError, Problem, UserError
from sweeps.launchers.nodes import node_problems
from sweeps.study.resources import is_run_config, naming_every_source, require_paths
from sweeps.study.specs import SearchSpec

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig
    from ablations.plan import Plan

__all__ = [
    "Compose",
    "Planned",
    "check_search",
    "directed",
    "launches_runs_itself",
    "measured_problems",
    "read_search",
    "require_measured",
    "require_ready",
    "require_trials",
]

Compose = Callable[[Sequence[str]], Mapping[str, Any]]
"""Function: task overrides → config of a job as plain values."""


def check_search(config: Mapping[str, Any]) -> None:
    """Check the search in the config of a single run.

    Raises:
        ConfigError: a value out of range, an unknown key, or a searched path that is not in the config.
    """
    spec = read_search(config)
    if spec.space is not None:
        require_paths(config, spec.space)


def read_search(config: Mapping[str, Any]) -> SearchSpec:
    """Return the search of a composed config.

    Raises:
        ConfigError: every value that breaks a rule, with its key.
    """
    try:
        return validate(SearchSpec, _without_nulls(config.get("search") or {}))
    except ConfigError as error:
        raise ConfigError([_in_search(problem) for problem in error.problems]) from None


def _in_search(problem: Problem) -> Problem:
    fields = {field.name for field in dataclasses.fields(SearchSpec)}
    first = problem.where.partition(".")[0]
    # Problems found by a part of the space have that part's own names.
    if first not in fields and not problem.what.startswith("unknown key"):
        return problem
    return replace(problem, where=f"search.{problem.where}")


def _without_nulls(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the search without objectives and constraints that a config set to null."""
    named = {key: search[key] for key in ("objectives", "constraints") if search.get(key)}
    kept = {
        key: {n: v for n, v in entries.items() if v is not None} for key, entries in named.items()
    }
    return {**search, **kept}


def measured_problems(spec: SearchSpec, run: RunConfig) -> list[Problem]:
    """Return a problem for each objective and constraint that the runs do not measure, or cannot judge."""
    from ablations.evaluation.metric_matching import metric_names, unseen

    sources = run.scored_sources()
    names = metric_names(run.evaluation, sources)
    patterns_of = {f"search.objectives.{name}": o.metrics for name, o in spec.objectives.items()}
    patterns_of |= {f"search.constraints.{name}": c.metrics for name, c in spec.constraints.items()}
    problems = [
        problem
        for where, patterns in patterns_of.items()
        for pattern in patterns
        if (problem := _unmeasured(f"{where}.metrics", pattern, names, run)) is not None
    ]
    for name, objective in spec.objectives.items():
        where = f"search.objectives.{name}.metrics"
        for pattern in objective.metrics:  # the score's own terms are checked with the evaluation
            problems += unseen(where, pattern, run.evaluation, sources)
    return problems


def _unmeasured(where: str, pattern: str, names: Sequence[str], run: RunConfig) -> Problem | None:
    from ablations.evaluation.metric_matching import unmatched

    if pattern != "score":
        return unmatched(where, pattern, names, run.evaluation)
    if run.evaluation.score is not None:
        return None
    return Problem(
        where, "the runs have no score", do="set evaluation.score, or name metrics of the suite"
    )


def require_measured(
    base: Mapping[str, Any], spec: SearchSpec, config_dirs: Sequence[Path]
) -> None:
    """Refuse a search if its runs do not measure its score, objectives and constraints.

    Raises:
        ConfigError: every metric that the runs will not measure.
    """
    if spec.space is None or not is_run_config(base):
        return
    # Imported here: studies of other applications have no schema.
    from ablations.config.schema import load
    from ablations.evaluation.metric_matching import score_problems

    run = load(naming_every_source(base, spec.space), config_dirs)
    sources = run.scored_sources()
    if problems := [*score_problems(run.evaluation, sources), *measured_problems(spec, run)]:
        raise ConfigError(problems)


def launches_runs_itself(base: Mapping[str, Any]) -> Problem:
    """Return the problem of a study whose config is an experiment of many runs."""
    return Problem(
        f"study {base.get('study')!r}",
        "an experiment that launches its runs itself",
        found=f"program.kind={program_kind(base['program'])}",
        do="use `ablate run` without --multirun",
    )


def directed(spec: SearchSpec, base: Mapping[str, Any]) -> SearchSpec:
    """Return the spec with a direction for every objective; the default is the run's own.

    Raises:
        ConfigError: an objective without a direction.
    """
    rule = (base.get("evaluation") or {}).get("score") or {}
    default = rule.get("direction")
    problems = [
        Problem(
            f"search.objectives.{name}.direction",
            "no direction is given",
            allowed="minimize, maximize",
        )
        for name, objective in spec.objectives.items()
        if objective.direction is None and (default is None or objective.metrics != ("score",))
    ]
    if problems:
        raise ConfigError(problems)
    directed = {
        name: replace(objective, direction=objective.direction or default)
        for name, objective in spec.objectives.items()
    }
    return replace(spec, objectives=directed)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A trial that is known beforehand and can be run as configured."""

    name: str
    run: RunConfig
    plan: Plan


def require_trials(
    trials: Iterable[tuple[str, Sequence[str]]],
    compose: Compose,
    config_dirs: Sequence[Path],
    spec: SearchSpec,
    launcher: Mapping[str, Any] | None = None,
) -> list[Planned]:
    """Check every trial that is known beforehand by composing and planning it.

    Args:
        trials: Name for people, and task overrides, of each trial.
        compose: Composes a config from overrides.
        config_dirs: Folders of the user's own configs.
        spec: Specification of the search.
        launcher: Options of ``hydra.launcher``; None = not compared with the trials.

    Returns:
        The trials with their plans; none for studies of other applications.

    Raises:
        ConfigError: every problem, with the name of the first trial that has it.
    """
    found, planned = _Found(), []
    for name, overrides in trials:
        composed = compose(overrides)
        problems = [*node_problems(composed, launcher)]
        if is_run_config(composed):
            checked = _checked(composed, config_dirs, spec)
            if isinstance(checked, list):
                problems += checked
            else:
                planned.append(Planned(name=name, run=checked[0], plan=checked[1]))
        found.add(name, problems)
    found.require()
    return planned


def require_ready(planned: Iterable[Planned]) -> None:
    """Check that every known trial could begin now: its sources are prepared, its checkpoint is there.

    A job finds this too, but only after it has waited in the queue.

    Raises:
        ConfigError: every problem, with the name of the first trial that has it.
    """
    # Imported here: studies of other applications have no runs.
    from ablations.execute import require_startable

    found = _Found()
    for trial in planned:
        try:
            require_startable(trial.run, trial.plan)
        except UserError as error:
            found.add(trial.name, error.problems)
    found.require()


class _Found:
    """Problems of several trials, each text once."""

    def __init__(self) -> None:
        self._first: dict[str, Problem] = {}
        self._more: Counter[str] = Counter()

    def add(self, name: str, problems: Iterable[Problem]) -> None:
        """Add the problems of the trial ``name``."""
        for problem in problems:
            if (text := str(problem)) in self._first:
                self._more[text] += 1
            else:
                self._first[text] = replace(problem, where=f"{name}: {problem.where}")

    def require(self) -> None:
        """Raise a ConfigError with all problems, if there are any."""
        if not self._first:
            return
        raise ConfigError(
            [
                replace(p, what=f"{p.what}, in {more} more trials too") if more else p
                for text, p in self._first.items()
                for more in [self._more[text]]
            ]
        )


def _checked(
    plain: Mapping[str, Any], config_dirs: Sequence[Path], spec: SearchSpec
) -> tuple[RunConfig, Plan] | list[Problem]:
    """Return the run and the plan of a composed config, or its problems; sources need not be prepared."""
    # Imported here: studies of other applications have no schema.
    from ablations.config.schema import carry_out, load
    from ablations.plan import make_plan

    if removed := removed_problems(plain):
        return removed
    try:
        run = load(plain, config_dirs)
        plan = make_plan(run, mirror=carry_out(plain).prepare.mirror)
        problems = [*plan.problems, *measured_problems(spec, run)]
    except UserError as error:
        problems = list(error.problems)
    return problems or (run, plan)
