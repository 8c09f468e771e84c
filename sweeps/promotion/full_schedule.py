"""Turn a proxy's config into the full run's schedule: stages keep their shares of the budget.

    proxy     3M tokens   stable 60%  math 25%  decay 15%     weights that the study found
    full     11T tokens   stable 60%  math 25%  decay 15%     the same weights, the target's rate

A mixture that was searched without stages is used in every stage of the full run's config. A stage's
``add`` reserves a share for the sources that it names (SmolLM2 keeps its best math and code for the
end); the searched mixture fills the rest.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.config.schema import dump, validate
from ablations.errors import ConfigError, Problem
from ablations.evaluation.specs import HELDOUT_PREFIX
from ablations.mixture.mixture import Mixture
from ablations.mixture.specs import MixtureSpec, ScheduleSpec
from sweeps.promotion.specs import FullSpec

__all__ = ["FrozenSchedule", "freeze"]

FrozenSchedule = dict[str, Any]
"""Plain values of a :class:`ScheduleSpec` in which every stage has its own weights."""


def freeze(proxy: Mapping[str, Any], full: FullSpec, metrics: Sequence[str] = ()) -> FrozenSchedule:
    """Return the full run's schedule.

    Args:
        proxy: The resolved config of a run of the picked candidate.
        full: The full run.
        metrics: Patterns of the metrics that the full run's score is made of. A source that the candidate
            does not read stays with weight 0 if its held-out text is one of them.

    Raises:
        ConfigError: The added shares of a stage sum to more than the whole stage.
    """
    mixture = validate(MixtureSpec, proxy["mixture"])
    schedule = validate(ScheduleSpec, proxy["schedule"])
    budgets = schedule.budgets()
    total = math.fsum(budgets.values())
    weights = {name: _weights(stage.weights, mixture) for name, stage in schedule.stages.items()}
    scored = _scored_unread(mixture, schedule, weights, metrics)
    stages: dict[str, Any]
    if len(budgets) == 1 and full.stages is not None:
        (found,) = weights.values()
        stages = {
            name: {"share": stage.share, "weights": _with(found, stage.add, name)}
            for name, stage in full.stages.items()
        }
    else:
        stages = {
            name: {"share": budget / total, "weights": weights[name]}
            for name, budget in budgets.items()
        }
    first = next(iter(stages.values()))
    first["weights"] |= {name: 0.0 for name in scored if name not in first["weights"]}
    return {
        "total_tokens": full.total_tokens,
        "stages": stages,
        "lr": dump(full.lr),
        "full_tokens": None,
    }


def _scored_unread(
    mixture: MixtureSpec,
    schedule: ScheduleSpec,
    read: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
) -> list[str]:
    """Return the sources of weight 0 whose held-out text the score needs."""
    used = {name for weights in read.values() for name in weights}
    named = [mixture.weights, *(stage.weights or {} for stage in schedule.stages.values())]
    return [
        name
        for name in dict.fromkeys(name for weights in named for name in weights)
        if name not in used
        and any(fnmatch.fnmatchcase(f"{HELDOUT_PREFIX}{name}/bpb", one) for one in metrics)
    ]


def _weights(stage: Mapping[str, float] | None, mixture: MixtureSpec) -> dict[str, float]:
    weights = mixture.weights if stage is None else stage
    return _rounded(Mixture(weights, normalize=mixture.normalize))


def _rounded(mixture: Mapping[str, float]) -> dict[str, float]:
    """Round weights to nine digits, for readability, and keep their sum at one."""
    rounded = {name: round(weight, 9) for name, weight in mixture.items() if weight > 0.0}
    largest = max(rounded, key=lambda name: rounded[name])
    rounded[largest] = round(rounded[largest] + 1.0 - math.fsum(rounded.values()), 9)
    return rounded


def _with(found: Mapping[str, float], add: Mapping[str, float], stage: str) -> dict[str, float]:
    if not add:
        return dict(found)
    reserved = math.fsum(add.values())
    if reserved > 1.0 + 1e-9:
        raise ConfigError(
            Problem(
                f"promotion.full.stages.{stage}.add", "more than the whole stage", found=reserved
            )
        )
    names = dict.fromkeys([*found, *add])
    mixed = {n: (1.0 - reserved) * found.get(n, 0.0) + add.get(n, 0.0) for n in names}
    return _rounded(Mixture(mixed, normalize=True))
