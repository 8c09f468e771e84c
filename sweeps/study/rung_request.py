"""Low rung of one command: read from the config, or as the study keeps it, with the plan of its budget."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem, unknown_name
from sweeps.search.proposals.rung_policy import FEWEST_PAIRS, RungPlan
from sweeps.search.space import SearchSpace
from sweeps.study.confirm import Pick
from sweeps.study.proposers import Proposals
from sweeps.study.resources import Resources, is_run_config, naming_every_source
from sweeps.study.rung_scheduler import RungScheduler
from sweeps.study.rungs import Rung, affordable_units, budget_plan, kept_rung, rung_of, settle_rung
from sweeps.study.specs import SearchSpec
from sweeps.study.strategy import History, Strategy
from sweeps.study.surrogate_proposer import Ranking

__all__ = ["RungRequest", "rung_request", "settle_request"]


@dataclass(frozen=True, kw_only=True)
class RungRequest:
    """Low rung of one command."""

    rung: Rung
    plan: RungPlan | None = None
    """Numbers of runs; None if the rung is off."""
    units: float | None = None
    """Full runs that tokens, FLOPs and hours pay for exploring; None without such a limit."""
    state_bytes: float = 0.0
    """Checkpoints and exports that one paused run keeps on disk."""
    rank: Callable[[History], Ranking] | None = None
    """Predicts trials at the top."""

    def scheduler(self, strategy: Strategy, pick: Pick | None) -> RungScheduler:
        """Return the scheduler of a search whose runs pause."""
        assert self.plan is not None
        assert self.rank is not None
        return RungScheduler(strategy, pick, self.rank, self.plan, self.units)

    @property
    def note(self) -> str:
        """Return why the rung is off, or that it runs without a guard; empty otherwise."""
        if self.plan is None:
            return f"no run pauses: {self.rung.off}"
        if self.plan.guarded:
            return ""
        return (
            f"the budget does not pay {FEWEST_PAIRS} pairs of paused and full runs, so the low rung "
            "runs unguarded: the verdict on full runs is the only check"
        )


def rung_request(
    spec: SearchSpec,
    base: Mapping[str, Any],
    folder: Path,
    space: SearchSpace,
    resources: Resources,
    proposals: Proposals,
    config_dirs: Sequence[Path],
) -> RungRequest | None:
    """Return the low rung of a command; None if it asks for none.

    Args:
        spec: Specification of the search.
        base: Config that the runs share.
        folder: Folder of the study; its ``rungs.json`` takes precedence.
        space: Search space.
        resources: Planned price of a run, and tokens for the baselines.
        proposals: Proposer of the search.
        config_dirs: Folders of the user's own configs.

    Raises:
        ConfigError: the runs are not those of this platform.
    """
    if spec.fidelity.share is None or spec.space is None:
        return None
    if not is_run_config(base):
        raise ConfigError(
            Problem("search.fidelity.share", "these runs cannot pause", allowed="null")
        )
    # Imported here: studies of other applications have no schema.
    from ablations.config.schema import load
    from ablations.plan import checkpoint_bytes
    from ablations.precision import with_precision

    run = with_precision(load(naming_every_source(base, spec.space), config_dirs))
    model = _model_of(spec, config_dirs)
    units = affordable_units(spec, resources.run_price)
    sources = len(space.unit_names) + len(space.mixtures)
    rung = kept_rung(folder, rung_of(spec, run, units, sources, model))
    if rung is None or not rung.used:
        return None if rung is None else RungRequest(rung=rung)
    baselines = len(spec.strategy.baselines) + len(spec.strategy.mixtures)
    plan = budget_plan(spec, rung, units, sources, baselines)
    run = replace(run, model=replace(run.model, **(rung.model or {})))
    tokens = rung.checkpoints or [
        step * run.training.tokens_per_step
        for step in run.training.checkpoint_steps(run.build_schedule().total_steps)
    ]
    reached = sum(one <= rung.tokens for one in tokens)
    kept = reached if run.training.keep_checkpoints == "all" else 1
    return RungRequest(
        rung=rung,
        plan=plan,
        units=units,
        state_bytes=kept * checkpoint_bytes(run),
        rank=proposals.rank,
    )


def _model_of(spec: SearchSpec, config_dirs: Sequence[Path]) -> dict[str, Any] | None:
    """Return the values of the smaller model; of a named one, those of its file but the vocabulary.

    Raises:
        ConfigError: no folder of configs has the name.
    """
    from ablations.config.schema import conf_dir
    from ablations.yaml_files import read_yaml

    named = spec.fidelity.model
    if not isinstance(named, str):
        return None if named is None else dict(named)
    folders = [folder / "model" for folder in (*config_dirs, conf_dir())]
    for folder in folders:
        if (path := folder / f"{named}.yaml").is_file():
            values = dict(read_yaml(path) or {})
            # The vocabulary is the tokenizer's, which both models share.
            return {key: value for key, value in values.items() if key != "vocab_size"}
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(unknown_name("search.fidelity.model", "model", named, known))


def settle_request(folder: Path, study: str, request: RungRequest | None, *, begun: bool) -> None:
    """Write the low rung before the first trial, and print why it is off or not guarded.

    Raises:
        ConfigError: the study was begun with another rung, or without one.
    """
    settle_rung(folder, None if request is None else request.rung, begun=begun)
    if request is not None and (note := request.note):
        print(f"study {study!r}: {note}", file=sys.stderr, flush=True)
