"""Entry point of ``ablate run --multirun``: run a study from a composed config and its arguments.

Hydra's sweeper plugin imports only this module of the study, and only this module uses both Hydra's
objects and the study's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.composed import require_composed
from ablations.config.removed import removed_problems
from ablations.config.schema import dump, source_values
from ablations.errors import ConfigError, Problem
from ablations.record.identity import folder_problem
from ablations.terminal import override_word, runs_dir_words
from sweeps.launchers.local.suite_modules import preload_of
from sweeps.launchers.nodes import node_problems
from sweeps.search.space import SearchSpace
from sweeps.study.budget import affordable_trials
from sweeps.study.composing import Composer
from sweeps.study.config_snapshot import Pinned, keep_as_latest, pin_config, pinned_before
from sweeps.study.confirm import Pick
from sweeps.study.definition import Definition, is_searched, settle_definition, shared_config
from sweeps.study.driver import Driver, StudyError
from sweeps.study.driver_lock import drive
from sweeps.study.edited_study import refuse_edited
from sweeps.study.evidence_request import (
    designed_for,
    evidence_request,
    settle_old_runs,
    strategy_with,
)
from sweeps.study.executor import Executor, launching_of
from sweeps.study.job_overrides import Command, job_overrides, read_command
from sweeps.study.old_runs import Evidence
from sweeps.study.preflight import (
    Compose,
    Planned,
    directed,
    launches_runs_itself,
    read_search,
    require_measured,
    require_ready,
    require_trials,
)
from sweeps.study.progress_table import view_for
from sweeps.study.proposers import proposals_of
from sweeps.study.pruning import Pruner
from sweeps.study.resources import (
    Resources,
    is_run_config,
    naming_every_source,
    own_values,
    require_paths,
    resources_of,
)
from sweeps.study.rung_request import RungRequest, rung_request, settle_request
from sweeps.study.scheduler import Scheduler, SearchScheduler, SweepScheduler
from sweeps.study.specs import SearchSpec
from sweeps.study.stopping import ending_on_sigterm
from sweeps.study.strategy import History, Strategy, plan_strategy
from sweeps.study.study_state import DecideQuality, Run, StudyState
from sweeps.study.trial import TrialSpec
from sweeps.study.trunks import Trunks, find_trunks, waits_for_trunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.core.config_loader import ConfigLoader
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig

__all__ = ["Hydra", "Request", "read_request", "run_study"]


@dataclass(frozen=True, kw_only=True)
class Hydra:
    """Hydra's objects from which a multirun's jobs are made."""

    loader: ConfigLoader
    """Loader that reads the user's config folders."""
    config: DictConfig
    """Config of the multirun itself."""
    make_launcher: Callable[[ConfigLoader, DictConfig], Launcher]
    """Function: loader and config of a multirun → launcher whose jobs that loader composes."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Checked request of one command, before anything is written."""

    study: str
    folder: Path
    seed: int
    """Seed of the run config."""
    spec: SearchSpec
    command: Command
    resources: Resources
    affordable: int | None
    """Number of trials within the budget; None if the budget does not limit them."""
    strategy: Strategy | None
    """None for a plain sweep."""
    pick: Pick | None = None
    progress: bool = True
    retry: bool = False
    """Also try runs again that diverged."""
    data_dir: str = "data"
    launcher: Mapping[str, Any] | None = None
    """Options of ``hydra.launcher``."""
    rungs: RungRequest | None = None
    """Low rung that the command asks for; None if it asks for none."""
    evidence: Evidence | None = None
    """Runs of earlier studies; None if the command names none."""
    judge: Callable[[History], Mapping[str, Any]] | None = None
    """Measures what the runs of earlier studies are worth."""

    def trunks(self, compose: Compose, config_dirs: Sequence[Path]) -> Trunks:
        """Return which trials share their first steps; none unless ``search.trunks`` is set."""
        if not self.spec.trunks:
            return Trunks()
        search = self.strategy is not None
        return find_trunks(self.known_trials(), compose, config_dirs, search=search)

    def known_trials(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield name and overrides of each trial known beforehand, and of the ends of each range."""
        fixed = self.fixed
        if self.strategy is None:
            for swept in self.command.combinations:
                yield " ".join(swept) or "the run", (*fixed, *swept)
            return
        points = [
            *self.strategy.baselines.items(),
            *((f"design {i}", point) for i, point in enumerate(self.strategy.design, 1)),
            *self.strategy.space.extremes(),
        ]
        for number, (name, point) in enumerate(points):
            spec = TrialSpec(number=number, phase="design", point=point)
            yield name, job_overrides(spec, self.seed, self.study, fixed)

    @property
    def fixed(self) -> tuple[str, ...]:
        """Return the overrides that all runs share; a low rung adds its checkpoint."""
        return (*self.command.fixed, *(self.rungs.rung.overrides if self.rungs is not None else ()))

    def scheduler(self, decide: DecideQuality | None = None) -> Scheduler:
        """Return the scheduler of a search or of a plain sweep."""
        if self.strategy is not None:
            apply = self.spec.task_quality.apply
            made = SearchScheduler(self.strategy, self.pick, decide if apply else None)
            if self.rungs is not None and self.rungs.plan is not None:
                made = self.rungs.scheduler(self.strategy, self.pick)
            made.judge = self.judge
            return made
        fixed = self.command.fixed
        combinations = [(*fixed, *swept) for swept in self.command.combinations]
        return SweepScheduler(combinations, self.spec.seeds or (self.seed,))


def read_request(
    base: Mapping[str, Any],
    arguments: Sequence[str],
    config_dirs: Sequence[Path] = (),
    launcher: Mapping[str, Any] | None = None,
) -> Request:
    """Read and check a command.

    Args:
        base: Config that the runs share, composed from the arguments that are not swept.
        arguments: Task overrides of the command.
        config_dirs: Folders of the user's own configs.
        launcher: Options of ``hydra.launcher``.

    Raises:
        ConfigError: the command contradicts itself, or a value is not allowed.
    """
    require_composed(base)
    if wrong := [*removed_problems(base, launcher), *node_problems(base, launcher)]:
        raise ConfigError(wrong)
    spec = directed(read_search(base), base)
    command = read_command(arguments)
    _refuse_contradictions(spec, command)
    if base.get("program"):
        raise ConfigError(launches_runs_itself(base))
    if command.seeds:
        spec = replace(spec, seeds=command.seeds)
    study = str(base.get("study", "study"))
    if problem := folder_problem("study", study):
        raise ConfigError(problem)
    request = Request(
        study=study,
        folder=Path(str(base.get("runs_dir", "runs"))) / study,
        seed=int(base.get("seed", 0)),
        spec=spec,
        command=command,
        resources=Resources(),
        affordable=None,
        strategy=None,
        progress=bool(base.get("progress", True)),
        retry=bool(base.get("retry", False)),
        data_dir=str(base.get("data_dir", "data")),
        launcher=launcher,
    )
    return request if spec.space is None else _with_strategy(request, base, config_dirs)


def _with_strategy(request: Request, base: Mapping[str, Any], dirs: Sequence[Path]) -> Request:
    """Return the request of a search: what its budget pays, its trials, and runs of earlier studies."""
    spec = request.spec
    assert spec.space is not None
    require_paths(base, spec.space)
    require_measured(base, spec, dirs)
    resources = resources_of(base, spec.space, tuple(dirs))
    space = SearchSpace.build(spec.space, resources.caps)
    affordable = affordable_trials(spec.budget, resources.run_price, len(spec.seeds) or 1)
    proposals = proposals_of(spec, space, base)
    own = own_values(base, spec.space)
    evidence = evidence_request(spec, base, request.folder, resources, dirs)
    given = strategy_with(evidence, spec.strategy)
    strategy = plan_strategy(given, space, resources, affordable, proposals.propose, own)
    rungs = rung_request(spec, base, request.folder, space, resources, proposals, dirs)
    if rungs is not None and rungs.plan is not None:
        designed = replace(spec.strategy, design_trials=rungs.plan.design)
        strategy = plan_strategy(designed, space, resources, None, proposals.propose, own)
    return replace(
        request,
        resources=resources,
        affordable=affordable,
        strategy=designed_for(strategy, evidence),
        evidence=evidence,
        judge=proposals.judge,
        pick=proposals.pick,
        rungs=rungs,
    )


def run_study(
    request: Request,
    arguments: Sequence[str],
    hydra: Hydra,
    decide: DecideQuality | None = None,
) -> StudyState:
    """Run the study of one command until all its runs have ended.

    Args:
        request: Checked request of the command.
        arguments: Task overrides of the command.
        hydra: Hydra's objects from which the jobs are made.
        decide: Decides which metrics make the score, if ``search.task_quality.apply`` is set.

    Raises:
        HeldError: another driver runs the study.
        ConfigError: the study has another definition, or its config files were edited since.
        StudyError: runs failed or have no score.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    with drive(request.folder, request.study):
        pinned = _pin(request, hydra)
        base = pinned.compose(request.command.fixed)
        compose = Composer(pinned.loader, pinned.config)
        planned = _require_known(request, compose, pinned.config_dirs)
        if request.strategy is not None:
            begun = is_searched(request.folder)
            settle_request(request.folder, request.study, request.rungs, begun=begun)
            settle_old_runs(request.folder, request.spec, request.evidence, begun=begun)
        settle_definition(request.folder, _definition(request, base, arguments, pinned))
        state = StudyState(request.folder, request.study, request.spec, request.seed)
        before = pinned_before(hydra.loader, hydra.config, request.folder, pinned)
        if before is not None:
            refuse_edited(state, before, pinned)
        keep_as_latest(pinned)
        trunks = request.trunks(compose, pinned.config_dirs)
        launcher, spec = hydra.make_launcher(pinned.loader, pinned.config), request.spec
        launching = launching_of(launcher, spec.workers, spec.runs_per_job, preload_of(base))
        require_ready(planned)
        driver = Driver(
            state,
            request.scheduler(decide),
            launching,
            overrides=lambda run: _overrides(state, run, request.fixed, trunks),
            check=pinned.compose,
            view=view_for(request.progress),
            pruner=_pruner(request.spec, launching),
            retry_diverged=request.retry,
            waits=waits_for_trunk(state, trunks),
        )
        try:
            with ending_on_sigterm():
                driver.run()
        except StudyError:
            _print_next(request, state)  # the runs that ended can be compared
            raise
        _print_next(request, state)
    return state


def _require_known(
    request: Request, compose: Compose, config_dirs: Sequence[Path]
) -> list[Planned]:
    """Check the trials known beforehand; of a search that was begun, one, because the others were checked."""
    begun = request.strategy is not None and (request.folder / "study.json").exists()
    trials = itertools.islice(request.known_trials(), 1 if begun else None)
    return require_trials(trials, compose, config_dirs, request.spec, request.launcher)


def _print_next(request: Request, state: StudyState) -> None:
    """Print the command for the verdict, if the study has a finished trial."""
    if request.progress and state.history().done:
        study = override_word("study", request.study)
        print(f"next: ablate verdict {study}{runs_dir_words(request.folder.parent)}", flush=True)


def _pin(request: Request, hydra: Hydra) -> Pinned:
    outside = [request.folder.parent, Path(request.data_dir)]
    return pin_config(hydra.loader, hydra.config, request.folder, outside=outside)


def _overrides(state: StudyState, run: Run, fixed: Sequence[str], trunks: Trunks) -> list[str]:
    trial = state.trial(run.number)
    shared = trunks.tokens_of(trial.spec.overrides)
    pauses = trial.spec.pauses and not trial.continued and run.seed in trial.spec.seeds
    low = state.rung.low_overrides if state.rung is not None and trial.spec.pauses else []
    return job_overrides(
        trial.spec, run.seed, state.study, fixed, pauses=pauses, low=low, trunk_tokens=shared
    )


def _pruner(spec: SearchSpec, launching: Executor) -> Pruner | None:
    if spec.strategy.pruner == "none":
        return None
    if not launching.can_end:
        raise ConfigError(
            Problem(
                "search.strategy.pruner",
                "needs a launcher that can end a single run",
                allowed="hydra/launcher=slots",
            )
        )
    return Pruner()


def _refuse_contradictions(spec: SearchSpec, command: Command) -> None:
    if spec.space is not None and spec.space.mixtures and spec.strategy.pruner != "none":
        raise ConfigError(
            Problem(
                "search.strategy.pruner",
                "compares training losses, which do not compare between mixtures",
                found=spec.strategy.pruner,
                allowed="none if a mixture is searched",
            )
        )
    if spec.space is not None and command.sweeps:
        raise ConfigError(
            Problem(
                " ".join(o for o in command.combinations[0]),
                "cannot combine a swept value with a search",
                allowed="seed=0,1,2 (replicates of every trial)",
                do="put it under search.space.parameters, or set search=none for a plain sweep",
            )
        )


def _definition(
    request: Request, base: Mapping[str, Any], arguments: Sequence[str], pinned: Pinned
) -> Definition:
    plain, space = dump(request.spec), request.spec.space
    searched = [*space.mixtures, *space.parameters] if space else []
    if is_run_config(base):
        named = naming_every_source(base, space) if space else base
        base = {**base, "source": source_values(named, pinned.config_dirs)}
    return Definition(
        study=request.study,
        question=request.spec.question,
        space=plain["space"],
        strategy=plain["strategy"],
        objectives=plain["objectives"],
        constraints=plain["constraints"],
        task_quality=plain["task_quality"],
        seeds=plain["seeds"],
        config=shared_config(base, searched),
        arguments=list(arguments),
    )
