"""``ablate run --multirun``: from a composed config and its arguments to a study driven to its end.

The only module of the study that Hydra's sweeper plugin imports, and the only one that knows both
Hydra's objects and the study's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import ConfigError, Problem
from ablations.schema import dump, validate
from sweeps.space import SearchSpace
from sweeps.study.agenda import Agenda, SearchAgenda, SweepAgenda
from sweeps.study.budget import affordable_trials
from sweeps.study.definition import Definition, settle_definition, shared_config
from sweeps.study.driver import Driver
from sweeps.study.job import Command, job_overrides, read_command
from sweeps.study.launching import launching_of
from sweeps.study.lease import drive
from sweeps.study.proposers import pick_of, proposer_of
from sweeps.study.resources import Resources, resources_of
from sweeps.study.spec import SearchSpec
from sweeps.study.state import Run, StudyState
from sweeps.study.strategy import plan_strategy
from sweeps.study.view import view_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.plugins.launcher import Launcher

__all__ = ["run_study"]


def run_study(
    base: Mapping[str, Any],
    arguments: Sequence[str],
    launcher: Launcher,
    check: Callable[[list[str]], None],
    config_dirs: Sequence[Path] = (),
) -> StudyState:
    """Run the study of one command; returns when everything asked for has ended.

    Args:
        base: The config that the runs share, composed from the arguments that are not swept.
        arguments: The command's task overrides.
        launcher: Hydra's, set up.
        check: Raises where a job's overrides do not compose.
        config_dirs: Folders of the user's own configs.

    Raises:
        HeldError: another driver runs the study.
        ConfigError: the study was begun otherwise, or cannot be done as said.
        StudyError: too many trials failed.
    """
    spec = _directed(validate(SearchSpec, _without_nulls(base.get("search") or {})), base)
    command = read_command(arguments)
    _refuse_both(spec, command)
    study = str(base.get("study", "study"))
    folder = Path(str(base.get("runs_dir", "runs"))) / study
    seed = int(base.get("seed", 0))
    if command.seeds:
        spec = replace(spec, seeds=command.seeds)
    resources = _resources(spec, base, config_dirs)
    agenda = _agenda(spec, command, resources, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with drive(folder, study):
        settle_definition(folder, _definition(study, spec, base, arguments))
        state = StudyState(folder, study, spec, seed)
        driver = Driver(
            state,
            agenda,
            launching_of(launcher, spec.workers),
            overrides=lambda run: _overrides(state, run, command.fixed),
            check=check,
            view=view_for(bool(base.get("progress", True))),
        )
        driver.run()
    return state


def _overrides(state: StudyState, run: Run, fixed: Sequence[str]) -> list[str]:
    return job_overrides(state.trial(run.number).ask, run.seed, state.study, fixed)


def _refuse_both(spec: SearchSpec, command: Command) -> None:
    if spec.space is not None and command.sweeps:
        raise ConfigError(
            Problem(
                " ".join(o for o in command.combinations[0]),
                "a swept value beside a search",
                allowed="seed=0,1,2 (replicates of every trial)",
                do="put it under search.space.parameters, or say search=none for a plain sweep",
            )
        )


def _without_nulls(search: Mapping[str, Any]) -> dict[str, Any]:
    """The search without objectives and constraints that a config took back by saying null."""
    named = {key: search[key] for key in ("objectives", "constraints") if search.get(key)}
    kept = {
        key: {n: v for n, v in entries.items() if v is not None} for key, entries in named.items()
    }
    return {**search, **kept}


def _directed(spec: SearchSpec, base: Mapping[str, Any]) -> SearchSpec:
    """The spec with a direction for every objective: the run's own where the search says none."""
    rule = (base.get("evaluation") or {}).get("score") or {}
    told = rule.get("direction")
    problems = [
        Problem(
            f"search.objectives.{name}.direction",
            "does not say which way is better",
            allowed="minimize, maximize",
        )
        for name, objective in spec.objectives.items()
        if objective.direction is None and (told is None or objective.metrics != ("score",))
    ]
    if problems:
        raise ConfigError(problems)
    directed = {
        name: replace(objective, direction=objective.direction or told)
        for name, objective in spec.objectives.items()
    }
    return replace(spec, objectives=directed)


def _resources(spec: SearchSpec, base: Mapping[str, Any], config_dirs: Sequence[Path]) -> Resources:
    if spec.space is None:
        return Resources()
    return resources_of(base, spec.space, tuple(config_dirs))


def _agenda(spec: SearchSpec, command: Command, resources: Resources, seed: int) -> Agenda:
    """The phases of a search, or the combinations of a plain sweep."""
    if spec.space is None:
        combinations = [(*command.fixed, *combination) for combination in command.combinations]
        return SweepAgenda(combinations, spec.seeds or (seed,))
    space = SearchSpace.build(spec.space, resources.caps)
    affordable = affordable_trials(spec.budget, resources.run_price, len(spec.seeds) or 1)
    propose = proposer_of(spec.strategy, space)
    strategy = plan_strategy(spec.strategy, space, resources, affordable, propose)
    return SearchAgenda(strategy, pick_of(spec.strategy, space))


def _definition(
    study: str, spec: SearchSpec, base: Mapping[str, Any], arguments: Sequence[str]
) -> Definition:
    plain = dump(spec)
    searched = [*spec.space.mixtures, *spec.space.parameters] if spec.space else []
    return Definition(
        study=study,
        question=spec.question,
        space=plain["space"],
        strategy=plain["strategy"],
        objectives=plain["objectives"],
        constraints=plain["constraints"],
        seeds=plain["seeds"],
        config=shared_config(base, searched),
        arguments=list(arguments),
    )
