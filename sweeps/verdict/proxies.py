"""Arms: the proxy sizes and token horizons that the mixtures of a study were run at.

A verdict is made inside one arm; the others tell whether its ranking transfers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.verdict.transfer import Transfer, transfer

__all__ = ["Arm", "arm_of", "choose_arm", "mixture_of", "transfers"]

_SHARED = 2
"""Mixtures that two arms must share: fewer make no pair to decide between."""


@dataclass(frozen=True, order=True)
class Arm:
    """One proxy: a model at a token horizon; arms order by what they cost."""

    cost: float
    """Depth x width squared x tokens: in proportion to the FLOPs of its blocks."""
    name: str
    """For people: width x depth and tokens."""
    model: str
    """The model's config, canonical."""


def arm_of(config: Mapping[str, Any]) -> Arm:
    """The arm of a run."""
    model = config.get("model") or {}
    tokens = _tokens(config)
    width, depth = model.get("hidden_size", 1), model.get("num_hidden_layers", 1)
    return Arm(
        cost=float(depth * width**2 * tokens),
        name=f"width {width}, depth {depth}, {tokens:.3g} tokens",
        model=json.dumps(model, sort_keys=True, default=str),
    )


def mixture_of(config: Mapping[str, Any]) -> str:
    """What a run's mixture is, whatever the proxy: weights, and weights and shares of its stages."""
    schedule = config.get("schedule") or {}
    total = _tokens(config)
    stages = [
        (stage.get("weights"), stage.get("share") or (stage.get("tokens") or 0.0) / (total or 1.0))
        for stage in (schedule.get("stages") or {}).values()
    ]
    weights = (config.get("mixture") or {}).get("weights")
    return json.dumps([weights, stages], sort_keys=True, default=str)


def choose_arm(arms: Sequence[Arm], mixtures: Sequence[str]) -> Arm | None:
    """The arm that decides: the costliest that shares mixtures with another.

    None where the study has one arm, or where no two arms share mixtures: its candidates then
    differ in the proxy itself, and all are compared.
    """
    held = {arm: {m for a, m in zip(arms, mixtures, strict=True) if a == arm} for arm in set(arms)}
    sharing = [
        arm
        for arm in held
        if any(len(held[arm] & held[other]) >= _SHARED for other in held if other != arm)
    ]
    return max(sharing) if sharing else None


def transfers(means: Mapping[Arm, Mapping[str, float]], chosen: Arm) -> tuple[Transfer, ...]:
    """Agreement of every other arm with the one that decides, cheapest first."""
    return tuple(
        transfer(means[arm], means[chosen], small=arm.name, large=chosen.name)
        for arm in sorted(means)
        if arm != chosen and len(set(means[arm]) & set(means[chosen])) >= _SHARED
    )


def _tokens(config: Mapping[str, Any]) -> float:
    schedule = config.get("schedule") or {}
    if schedule.get("total_tokens"):
        return float(schedule["total_tokens"])
    return float(sum((s.get("tokens") or 0.0) for s in (schedule.get("stages") or {}).values()))
