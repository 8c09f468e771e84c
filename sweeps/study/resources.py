"""Resources known before the first run: tokens of sources, epoch caps, cost of a run.

They come from the plan of the composed config. Other Hydra applications have no plan: their studies
have no natural weights and no epoch caps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import ConfigError, Problem, unknown_name
from sweeps.search.space.caps import EpochCaps
from sweeps.search.space.specs import SearchSpaceSpec
from sweeps.study.thresholds import Threshold, least_of, thresholds_of

if TYPE_CHECKING:
    from ablations.mixture.specs import ScheduleSpec

__all__ = [
    "Resources",
    "boundaries",
    "is_run_config",
    "naming_every_source",
    "own_values",
    "require_paths",
    "resources_of",
]

_STAGES = "schedule.stages."
_MIXTURE = "mixture.weights"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Tokens, caps and costs, each of which may be unknown."""

    tokens: Mapping[str, float] | None = None
    """Tokens available per source."""
    caps: EpochCaps | None = None
    """Epoch caps at the full budget."""
    run_price: Mapping[str, float] = field(default_factory=dict)
    """Planned cost of one run: ``tokens``, ``flops``, ``gpu_hours``; ``usd`` if its devices have a price."""
    thresholds: tuple[Threshold, ...] = ()
    """Thresholds of the sources with buckets, searched or as configured."""


def resources_of(
    config: Mapping[str, Any], space: SearchSpaceSpec, config_dirs: tuple[Path, ...] = ()
) -> Resources:
    """Return the resources of a composed run config.

    Raises:
        ConfigError: the config breaks a rule, or a mixture of the space omits sources of the run.
    """
    if not is_run_config(config):
        return Resources()
    # Imported here: studies of other applications have no schema.
    from ablations.config.schema import carry_out, load
    from ablations.plan import make_plan

    run = load(naming_every_source(config, space), config_dirs)
    options = carry_out(config)
    plan = make_plan(run, mirror=options.prepare.mirror, price=options.price)
    possible = boundaries(run.schedule, space)
    exempt = run.mixture.epoch_cap_exempt
    thresholds = thresholds_of(run, plan, space)
    available = {**plan.available_tokens, **least_of(thresholds)}
    caps = EpochCaps(
        tokens={name: n for name, n in available.items() if name not in exempt},
        full_tokens=run.schedule.full_tokens or float(plan.schedule.total_tokens),
        max_epochs=run.mixture.most_epochs,
        shares=_most(_shares(space, s.budgets(), s.stages) for s in possible),
        outside=_outside(space, plan, _longer(run.schedule, possible)),
    )
    cost = {
        # A warm start pays for the steps after its checkpoint alone, as its FLOPs do.
        "tokens": float(
            plan.schedule.total_tokens - plan.first_step * plan.schedule.tokens_per_step
        ),
        "flops": plan.flops,
        "gpu_hours": plan.cost.device_hours,
    }
    if plan.cost.usd is not None:
        cost["usd"] = plan.cost.usd
    return Resources(tokens=available, caps=caps, run_price=cost, thresholds=thresholds)


def is_run_config(config: Mapping[str, Any]) -> bool:
    """Return whether a composed config is that of a run of this platform."""
    return config.keys() >= {"schedule", "model", "mixture", "evaluation"}


def naming_every_source(config: Mapping[str, Any], space: SearchSpaceSpec) -> dict[str, Any]:
    """Return the config with every searched source in its mixture at equal weight, for the plan."""
    plain: dict[str, Any] = {key: value for key, value in config.items() if key != "search"}
    problems = []
    for path, simplex in space.mixtures.items():
        *parents, last = path.split(".")
        node = _opened(plain, parents)
        if node is None:
            problems.append(Problem(f"search.space.mixtures.{path}", "not in the run's config"))
            continue
        if extra := sorted(set(node.get(last) or ()) - set(simplex.sources)):
            problems.append(_left_out(path, extra, simplex.sources))
        node[last] = dict.fromkeys(simplex.sources, 1.0 / len(simplex.sources))
    if problems:
        raise ConfigError(problems)
    return plain


def _opened(plain: dict[str, Any], parents: list[str]) -> dict[str, Any] | None:
    """Return a copy of the mapping at ``parents``; its parents in ``plain`` become copies too."""
    node = plain
    for key in parents:
        if not isinstance(node.get(key), Mapping):
            return None
        node[key] = dict(node[key])
        node = node[key]
    return node


def require_paths(config: Mapping[str, Any], space: SearchSpaceSpec) -> None:
    """Check that the runs' config has every searched path.

    Raises:
        ConfigError: every path that is missing, with the nearest existing key.
    """
    problems = []
    for path in space.parameters:
        where = f"search.space.parameters.{path}"
        *parents, last = path.split(".")
        node = _opened(dict(config), parents)
        if node is None:
            problems.append(Problem(where, "not in the run's config"))
        elif last not in node:
            problems.append(unknown_name(where, "key", last, node))
    if problems:
        raise ConfigError(problems)


def own_values(config: Mapping[str, Any], space: SearchSpaceSpec) -> dict[str, Any]:
    """Return config path of a searched parameter → value in the config itself."""
    found = {}
    for path in space.parameters:
        *parents, last = path.split(".")
        node = _opened(dict(config), parents)
        if node is not None and last in node:
            found[path] = node[last]
    return found


def _left_out(path: str, extra: list[str], sources: tuple[str, ...]) -> Problem:
    return Problem(
        f"search.space.mixtures.{path}.sources",
        "leaves out sources that the run's mixture names",
        found=", ".join(extra),
        allowed=", ".join(sources),
        do="add them, with fixed weights if they are not to be searched",
    )


def _shares(
    space: SearchSpaceSpec, budgets: Mapping[str, float], stages: Mapping[str, Any]
) -> dict[str, float]:
    """Return searched path → share of all tokens that it governs."""
    total = sum(budgets.values())
    shares = {}
    for path in space.mixtures:
        governed = [
            budget
            for stage, budget in budgets.items()
            if path == f"{_STAGES}{stage}.weights"
            or (path == _MIXTURE and stages[stage].weights is None)
        ]
        if governed:
            shares[path] = sum(governed) / total
    return shares


def boundaries(schedule: ScheduleSpec, space: SearchSpaceSpec) -> list[ScheduleSpec]:
    """Return the schedules with each searched share of a stage at either end of its range.

    Combinations that no schedule can have (shares that do not add up) are left out; their trials are
    refused by name. Without a searched share the result is the schedule alone.
    """
    ends = {
        name: (spec.low, spec.high)
        for name, stage in schedule.stages.items()
        if (spec := space.parameters.get(f"{_STAGES}{name}.share")) is not None
        and stage.share is not None
        and spec.kind in ("float", "log")
    }
    found = []
    for shares in itertools.product(*ends.values()):
        stages = {
            name: replace(schedule.stages[name], share=share)
            for name, share in zip(ends, shares, strict=True)
        }
        with suppress(ConfigError):
            found.append(replace(schedule, stages={**schedule.stages, **stages}))
    return found or [schedule]


def _most(shares: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the largest share that each path can govern; a cap kept there is always kept."""
    most: dict[str, float] = {}
    for found in shares:
        most |= {path: max(share, most.get(path, 0.0)) for path, share in found.items()}
    return most


def _longer(schedule: ScheduleSpec, possible: Iterable[ScheduleSpec]) -> dict[str, float]:
    """Return stage → largest possible length relative to its length in ``schedule``."""
    most, base = _most(s.budgets() for s in possible), schedule.budgets()
    return {name: most[name] / base[name] for name in base}


def _outside(space: SearchSpaceSpec, plan: Any, longer: Mapping[str, float]) -> dict[str, float]:
    """Return source → largest share of all tokens that the stages outside the search read of it."""
    searched = {
        path.removeprefix(_STAGES).removesuffix(".weights")
        for path in space.mixtures
        if path.startswith(_STAGES)
    }
    if _MIXTURE in space.mixtures:
        return {}
    total = float(plan.schedule.total_tokens)
    outside: dict[str, float] = {}
    for row in plan.rows:
        if row.stage not in searched:
            share = longer.get(row.stage, 1.0) * row.tokens / total
            outside[row.source] = outside.get(row.source, 0.0) + share
    return outside
