"""Low rung of a study: whether it pays, where runs pause, and how the budget is shared.

    search.fidelity.share ──▶ settle_rung ──▶ rungs.json (once) ──▶ RungScheduler

``rungs.json`` is written before the first trial and contains what must not change while the study runs:
the tokens at which runs pause, the checkpoints of all runs, or the reason why rungs are off. The result
of the guard is added to it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablations.errors import ConfigError, Problem, unknown_name
from ablations.files import write_sealed
from ablations.record.stored import stored_as, stored_object
from sweeps.search.proposals.rung_policy import (
    FEWEST_PAIRS,
    GUARD_PAIRS,
    Guard,
    RungPlan,
    plan_rungs,
)
from sweeps.study.specs import SearchSpec

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig

__all__ = [
    "RUNGS_FILE",
    "Chosen",
    "Rung",
    "affordable_units",
    "budget_plan",
    "kept_rung",
    "read_rung",
    "rung_of",
    "settle_rung",
    "write_chosen",
    "write_guard",
]

RUNGS_FILE = "rungs.json"

Chosen = Literal["pairs", "finalists", "picked"]
"""Reason why a trial that paused goes on."""

_EARLY_SHARE = 0.3
"""Share of the tokens whose distance from the top is one."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Low rung of one study."""

    share: float
    """Share of a run's tokens, after rounding to a whole step."""
    tokens: float
    """Trained tokens at which runs pause."""
    checkpoints: tuple[int, ...] = ()
    """``training.checkpoints`` of all runs of the study, in tokens; empty = as configured."""
    model: Mapping[str, Any] | None = None
    """Values of ``model`` that differ in runs of the rung; None = they have the model of all runs."""
    size: float = 0.0
    """Decimal logarithm of the parameters of a full run over those of a run of the rung."""
    cost: float | None = None
    """Price of a run of the rung in full runs; None = ``share``."""
    off: str = ""
    """Reason why the rung is not used; empty = it is used."""
    guard: Mapping[str, Any] | None = None
    """Pairs and rank correlation of the guard, once they are known."""
    pairs: tuple[int, ...] = ()
    """Trials that were chosen to go on for the guard."""
    finalists: tuple[int, ...] = ()
    """Trials that were chosen to go on by their predicted value at the top."""
    picked: tuple[int, ...] = ()
    """Paused trial that goes on because the surrogate's optimum is its mixture; empty or one."""

    @property
    def continued(self) -> frozenset[int]:
        """Return the trials that go on to their end; a smaller model's runs never do."""
        return frozenset() if self.model is not None else frozenset(self.chosen)

    @property
    def chosen(self) -> tuple[int, ...]:
        """Return the trials whose mixtures are run in full, in the order of the choice."""
        return (*self.pairs, *self.finalists, *self.picked)

    @property
    def price(self) -> float:
        """Return the price of a run of the rung, in full runs."""
        return self.share if self.cost is None else self.cost

    @property
    def used(self) -> bool:
        """Return whether runs pause at this rung."""
        return not self.off

    @property
    def judged(self) -> Guard | None:
        """Return the result of the guard; None before it, and in a study without it."""
        return None if self.guard is None else Guard(**self.guard)

    @property
    def distance(self) -> tuple[float, float] | None:
        """Return the distance from the top in size and tokens; None if the rung left the fit."""
        if self.off or (self.judged is not None and not self.judged.holds):
            return None
        return self.size, math.log(1.0 / self.share) / math.log(1.0 / _EARLY_SHARE)

    @property
    def overrides(self) -> list[str]:
        """Return the overrides of every run of the study: full runs pass the rung of their own model."""
        return [] if self.off or self.model is not None else self._checkpoints

    @property
    def low_overrides(self) -> list[str]:
        """Return the further overrides of the runs of a smaller model, which are labelled; else none."""
        if self.off or self.model is None:
            return []
        values = [f"++model.{name}={value}" for name, value in self.model.items()]
        return [*values, "++labels.rung=smaller_model", *self._checkpoints]

    @property
    def _checkpoints(self) -> list[str]:
        tokens = ",".join(map(str, self.checkpoints))
        return [f"training.checkpoints=[{tokens}]"] if tokens else []


def rung_of(
    spec: SearchSpec,
    run: RunConfig,
    units: float | None,
    sources: int,
    model: Mapping[str, Any] | None = None,
) -> Rung | None:
    """Return the low rung of a search; None if it asks for none.

    Args:
        spec: Specification of the search.
        run: A run of the study with all sources.
        units: Full runs that the exploring share of the budget pays, baselines included; None if the
            budget limits the number of trials alone.
        sources: Number of searched sources and other parameters.
        model: Values of ``model`` that differ in runs of the rung; None = the model of all runs.

    Raises:
        ConfigError: the model of the rung is not smaller, or no model.
    """
    if spec.fidelity.share is None or spec.space is None:
        return None
    schedule = run.build_schedule()
    total, tokens = schedule.total_steps, schedule.tokens_per_step
    step = max(1, round(spec.fidelity.share * total))
    rate = run.build_learning_rate(schedule)
    steps = run.training.checkpoint_steps(total)
    rung = Rung(share=step / total, tokens=float(step * tokens))
    if model is not None:
        rung = _with_model(rung, run, model)
    off = ""
    if not rate.warmup_steps < step <= rate.decay_start or step >= total:
        off = (
            f"step {step} of {total} is not on the plateau of the learning rate "
            f"(steps {rate.warmup_steps + 1} to {rate.decay_start})"
        )
    elif moved := [p for p in spec.space.parameters if p.startswith(("schedule.", "training."))]:
        off = f"the searched {moved[0]} changes the schedule"
    elif late := _late_stage(spec, schedule, step):
        off = f"the searched stage {late} begins after step {step}, at which runs would pause"
    elif run.warm_start.checkpoint is not None:
        off = "runs that start from a checkpoint of another run do not pause"
    elif units is not None:
        off = plan_rungs(units, rung.price, sources, same_model=model is None).off
    if step not in steps:
        kept = sorted({*steps, step} - {total})
        rung = replace(rung, checkpoints=tuple(tokens * one for one in [*kept, total]))
    return replace(rung, off=off)


def _with_model(rung: Rung, run: RunConfig, model: Mapping[str, Any]) -> Rung:
    """Return the rung with a smaller model, its distance in size, and its price."""
    where = "search.fidelity.model"
    known = {field.name for field in fields(run.model)}
    if unknown := sorted(set(model) - known):
        raise ConfigError(unknown_name(where, "key", unknown[0], known))
    small = replace(run.model, **model)
    length = run.training.sequence_length
    ratio = small.flops_per_token(length) / run.model.flops_per_token(length)
    if ratio >= 1.0:
        raise ConfigError(
            Problem(
                where,
                "not smaller than the model of full runs",
                found=f"{small.parameters:,} parameters",
                allowed=f"fewer FLOPs a token than {run.model.parameters:,} parameters take",
            )
        )
    return replace(
        rung,
        model=dict(model),
        size=math.log10(run.model.parameters / small.parameters),
        cost=rung.share * ratio,
    )


def _late_stage(spec: SearchSpec, schedule: Any, step: int) -> str | None:
    """Return the first searched stage that a paused run has not begun; None if there is none."""
    assert spec.space is not None
    prefix, suffix = "schedule.stages.", ".weights"
    for path in spec.space.mixtures:
        name = path.removeprefix(prefix).removesuffix(suffix)
        for number, stage in enumerate(schedule.stages):
            if (
                path.startswith(prefix)
                and stage.name == name
                and schedule.first_step(number) >= step
            ):
                return name
    return None


def budget_plan(
    spec: SearchSpec, rung: Rung, units: float | None, sources: int, baselines: int
) -> RungPlan:
    """Return the numbers of runs that a budget pays.

    Args:
        spec: Specification of the search.
        rung: The low rung.
        units: Full runs that the exploring share of the budget pays, baselines included; None if the
            budget limits the number of trials alone.
        sources: Number of searched sources and other parameters.
        baselines: Number of baselines, which run in full.
    """
    trials = None if spec.budget.trials is None else max(0, spec.budget.trials - baselines)
    finalists = max(1, spec.confirm.finalists)
    if units is not None:
        plan = plan_rungs(
            max(0.0, units - baselines),
            rung.price,
            sources,
            same_model=rung.model is None,
            finalists=finalists,
        )
        if trials is None or plan.low_runs <= trials:
            return plan
        return _within(plan, trials)
    low = trials or 0
    pairs = min(GUARD_PAIRS, low // 2)
    return RungPlan(
        low_runs=low,
        design=math.ceil(0.6 * low),
        pairs=pairs if pairs >= FEWEST_PAIRS else 0,
        finalists=min(finalists, max(1, low // 3)),
        batch=max(2, low // 5),
    )


def _within(plan: RungPlan, trials: int) -> RungPlan:
    design = min(plan.design, math.ceil(0.6 * trials))
    pairs = plan.pairs if plan.pairs <= design else 0
    return replace(plan, low_runs=trials, design=design, pairs=pairs)


def affordable_units(spec: SearchSpec, run_price: Mapping[str, float]) -> float | None:
    """Return the full runs that the exploring share pays; None if tokens, FLOPs and hours have no limit."""
    limits = [
        limit * (1.0 - spec.budget.confirm_share) / price
        for name in ("tokens", "flops", "gpu_hours")
        if (limit := getattr(spec.budget, name)) is not None
        and (price := run_price.get(name, 0.0)) > 0
    ]
    return min(limits, default=None)


def read_rung(folder: Path) -> Rung | None:
    """Return the low rung of the study in ``folder``; None if it has none or it is off.

    Raises:
        DamagedError: ``rungs.json`` is not what was written.
    """
    rung = _stored(folder)
    return rung if rung is not None and rung.used else None


def _stored(folder: Path) -> Rung | None:
    path = folder / RUNGS_FILE
    if not os.path.lexists(path):
        return None
    stored = stored_as(Rung, stored_object(path), path)
    return replace(
        stored,
        checkpoints=tuple(stored.checkpoints),
        pairs=tuple(stored.pairs),
        finalists=tuple(stored.finalists),
        picked=tuple(stored.picked),
    )


def kept_rung(folder: Path, given: Rung | None) -> Rung | None:
    """Return the low rung that a command on the study in ``folder`` works with; nothing is written."""
    stored = _stored(folder)
    if stored is None or given is None or _at(stored) != _at(given):
        return given
    return stored


def settle_rung(folder: Path, given: Rung | None, begun: bool) -> Rung | None:
    """Return the low rung that the study keeps: the stored one, or ``given`` if the study begins.

    Args:
        folder: Folder of the study.
        given: Rung of this command; None if it asks for none.
        begun: Whether a search of the study was begun.

    Raises:
        ConfigError: the study was begun with another rung, or without one.
    """
    if not begun:
        if given is not None:
            write_sealed(folder / RUNGS_FILE, asdict(given))
        else:
            (folder / RUNGS_FILE).unlink(missing_ok=True)
        return given
    stored = _stored(folder)
    if stored is None and given is None:
        return None
    same = stored is not None and given is not None and _at(stored) == _at(given)
    if not same:
        raise ConfigError(
            Problem(
                f"study {folder.name!r}: search.fidelity",
                "not what the study was begun with",
                found=_named(given),
                allowed=_named(stored),
                do="restore it, or name a new study=",
            )
        )
    return stored


def _named(rung: Rung | None) -> str | None:
    if rung is None:
        return None
    model = "" if rung.model is None else f" of {dict(rung.model)}"
    return f"share {rung.share:.3g}{model}"


def write_guard(folder: Path, guard: Guard) -> Rung:
    """Add the result of the guard to ``rungs.json``, once; return the rung."""
    stored = _stored(folder)
    assert stored is not None, "a rung is settled before it is judged"
    if stored.guard is not None:
        return stored
    judged = replace(stored, guard=asdict(guard))
    write_sealed(folder / RUNGS_FILE, asdict(judged))
    return judged


def write_chosen(folder: Path, kind: Chosen, numbers: Sequence[int]) -> Rung:
    """Add trials that go on to ``rungs.json``, all at once; return the rung."""
    stored = _stored(folder)
    assert stored is not None, "a rung is settled before trials pause"
    if kind == "pairs":
        chosen = replace(stored, pairs=(*stored.pairs, *numbers))
    elif kind == "picked":
        chosen = replace(stored, picked=tuple(numbers))
    else:
        chosen = replace(stored, finalists=(*stored.finalists, *numbers))
    write_sealed(folder / RUNGS_FILE, asdict(chosen))
    return chosen


def _at(rung: Rung) -> tuple[float, Sequence[int], Mapping[str, Any] | None]:
    return rung.tokens, rung.checkpoints, rung.model
