"""Proxies: the model sizes and token horizons that the mixtures of a study were run at.

A verdict compares the runs of one proxy. The others show whether its ranking transfers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.verdict.canonical import canonical
from sweeps.verdict.transfer import Transfer, transfer

__all__ = ["ProxyConfig", "choose_proxy", "mixture_of", "proxy_of", "transfers"]

_SHARED = 2
"""Mixtures that two proxies must share: fewer make no pair to decide between."""


@dataclass(frozen=True, order=True)
class ProxyConfig:
    """One model at one token horizon; proxies are ordered by cost."""

    cost: float
    """Depth x width squared x tokens: in proportion to the FLOPs of its blocks."""
    name: str
    """Width, depth and tokens, for people."""
    model: str
    """Config of the model as canonical JSON."""


def proxy_of(config: Mapping[str, Any]) -> ProxyConfig:
    """Return the proxy of a run from its config."""
    model = config.get("model") or {}
    tokens = _tokens(config)
    width, depth = model.get("hidden_size", 1), model.get("num_hidden_layers", 1)
    return ProxyConfig(
        cost=float(depth * width**2 * tokens),
        name=f"width {width}, depth {depth}, {tokens:.3g} tokens",
        model=canonical(model),
    )


def mixture_of(config: Mapping[str, Any]) -> str:
    """Return a key of a run's mixture that does not depend on the proxy.

    It contains the weights, and the weights and shares of the stages.
    """
    schedule = config.get("schedule") or {}
    total = _tokens(config)
    stages = [
        (stage.get("weights"), stage.get("share") or (stage.get("tokens") or 0.0) / (total or 1.0))
        for stage in (schedule.get("stages") or {}).values()
    ]
    weights = (config.get("mixture") or {}).get("weights")
    return canonical([weights, stages])


def choose_proxy(proxies: Sequence[ProxyConfig], mixtures: Sequence[str]) -> ProxyConfig | None:
    """Return the proxy that decides: the costliest that shares mixtures with another.

    Return None if the study has one proxy, or if no two proxies share mixtures: its candidates then
    differ in the proxy itself, and all are compared.

    Args:
        proxies: Proxy of each run.
        mixtures: Mixture of each run (:func:`mixture_of`).
    """
    run_with: dict[ProxyConfig, set[str]] = {}
    for proxy, mixture in zip(proxies, mixtures, strict=True):
        run_with.setdefault(proxy, set()).add(mixture)
    sharing = [
        proxy
        for proxy, own in run_with.items()
        if any(len(own & run_with[other]) >= _SHARED for other in run_with if other != proxy)
    ]
    return max(sharing) if sharing else None


def transfers(
    means: Mapping[ProxyConfig, Mapping[str, float]], chosen: ProxyConfig
) -> tuple[Transfer, ...]:
    """Return the agreement of each other proxy with the one that decides, cheapest first."""
    return tuple(
        transfer(means[proxy], means[chosen], small=proxy.name, large=chosen.name)
        for proxy in sorted(means)
        if proxy != chosen and len(set(means[proxy]) & set(means[chosen])) >= _SHARED
    )


def _tokens(config: Mapping[str, Any]) -> float:
    schedule = config.get("schedule") or {}
    stated = schedule.get("total_tokens") or schedule.get("total_samples")
    if stated:
        return float(stated)
    return float(sum((s.get("tokens") or 0.0) for s in (schedule.get("stages") or {}).values()))
