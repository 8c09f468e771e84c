"""Measure in a study how a difference between mixtures changes with scale.

    checkpoints   the pick's and the baseline's own runs, at a third of their tokens and at the end
    other sizes   mixtures that were also run at another proxy size or token horizon, in the same study
                  or in a second one

A slope is fitted over all metrics at once, each in units of its spread between mixtures, because one
metric alone is mostly noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.config.schema import validate
from ablations.mixture.specs import ScheduleSpec
from ablations.record.run_record import RunRecord, list_runs
from ablations.training.specs import ModelSpec
from sweeps.promotion.scale_transfer import Measured
from sweeps.verdict.verdict_record import Verdict

__all__ = ["checkpoint_slope", "other_scales", "slope_of", "tokens_of"]

Floats = NDArray[np.float64]

_EARLIER = 1.0 / 3.0
"""Share of the tokens at which the earlier checkpoint should be."""
_OWN_SLOPES = 0.2
"""Spread of the slopes of single metrics: without any noise, all metrics have the same weight."""
_NEAREST = (0.1, 0.7)
"""Range of shares for the earlier checkpoint: nearer to the end, the slope does not reflect scale."""


def tokens_of(config: Mapping[str, Any]) -> float:
    """Return the tokens that a run is trained on."""
    schedule: ScheduleSpec = validate(ScheduleSpec, config["schedule"])
    return math.fsum(schedule.budgets().values())


def checkpoint_slope(
    pick: Sequence[RunRecord], baseline: Sequence[RunRecord]
) -> tuple[Measured, ...]:
    """Return the slope between an earlier checkpoint and the last; nothing if there is no earlier one."""
    paths = [[_path(record) for record in records] for records in (pick, baseline)]
    shared = set.intersection(*(set(path) for path in (*paths[0], *paths[1])))
    if len(shared) < 2:
        return ()
    last = max(shared)
    near = [t for t in shared if _NEAREST[0] <= t / last <= _NEAREST[1]]
    if not near:
        return ()
    early = min(near, key=lambda t: abs(t / last - _EARLIER))
    keys = set.intersection(*(set(path[t]) for p in paths for path in p for t in (early, last)))
    if not keys:
        return ()
    means: list[Floats] = []
    errors: list[Floats] = []
    for at in (early, last):
        tables = [np.array([[path[at][key] for key in sorted(keys)] for path in p]) for p in paths]
        means.append(tables[0].mean(axis=0) - tables[1].mean(axis=0))
        errors.append(_pooled_error(tables))
    found = slope_of(means[0][None, :], means[1][None, :], errors[1][None, :])
    if found is None:
        return ()
    where = f"the proxies at {early:.3g} and {last:.3g} tokens"
    return (
        Measured(
            where=where,
            tokens=last / early,
            parameters=1.0,
            slope=found[0],
            error=found[1],
        ),
    )


def _path(record: RunRecord) -> dict[float, dict[str, float]]:
    """Return tokens of a checkpoint → ``task/metric`` → value."""
    return {
        float(row["tokens"]): {
            f"{task}/{metric}": float(value["value"])
            for task, of_task in row["metrics"].items()
            for metric, value in of_task.items()
            if value.get("value") is not None
        }
        for row in record.scores()
        if row.get("tokens")
    }


def _pooled_error(tables: Sequence[Floats]) -> Floats:
    """Return the standard error of the difference of two means for each column; inf without replicates."""
    freedom = sum(len(table) - 1 for table in tables)
    if freedom < 1:
        return np.full(tables[0].shape[1], math.inf)
    squares = sum(((table - table.mean(axis=0)) ** 2).sum(axis=0) for table in tables)
    error: Floats = np.sqrt(squares / freedom * sum(1.0 / len(table) for table in tables))
    return error


def slope_of(small: Floats, large: Floats, error: Floats) -> tuple[float, float] | None:
    """Return the slope of ``large`` on ``small`` and its standard error; rows are differences.

    Each column is scaled by its own size. None if nothing differs, or if the noise of the differences is
    not known.
    """
    size = np.sqrt((small**2 + large**2).mean(axis=0))
    kept = (size > 0.0) & np.isfinite(error).all(axis=0)
    if not kept.any():
        return None
    x, y, e = small[:, kept] / size[kept], large[:, kept] / size[kept], error[:, kept] / size[kept]
    # Weight by inverse variance: a column whose differences are noise would pull the slope to zero.
    weight = 1.0 / (_OWN_SLOPES**2 + e**2)
    below = float((weight * x * x).sum())
    if below <= 0.0:
        return None
    slope = float((weight * x * y).sum()) / below
    # Assume equal noise on both sides: the noise of y enters directly, that of x times the slope.
    noise = math.sqrt(float((weight**2 * x**2 * e**2).sum()) * (1.0 + slope**2)) / below
    return slope, noise


@dataclass(frozen=True)
class _Proxy:
    """Proxy scale: its tokens, its parameters, and mixture → metrics of its runs."""

    tokens: float
    parameters: float
    runs: dict[str, list[dict[str, float]]]


def other_scales(
    runs_dir: Path, study: str, second: Verdict | None, own: RunRecord
) -> tuple[Measured, ...]:
    """Return a slope for each other scale that shares two or more mixtures with the study's own scale."""
    found = dict(_proxies(list_runs(runs_dir, study)))
    if second is not None:
        for key, proxy in _proxies(list_runs(runs_dir, second.study)):
            if key in found:
                for mixture, runs in proxy.runs.items():
                    found[key].runs.setdefault(mixture, []).extend(runs)
            else:
                found[key] = proxy
    config = own.manifest.config
    near = found.get(_scale(config))
    if near is None:
        return ()
    return tuple(
        one
        for key, other in sorted(found.items())
        if other is not near and (one := _between(near, other)) is not None
    )


def _proxies(records: Sequence[RunRecord]) -> Iterator[tuple[tuple[float, float], _Proxy]]:
    found: dict[tuple[float, float], _Proxy] = {}
    for record in records:
        manifest, result = record.manifest, record.result()
        if manifest.status != "done" or not result:
            continue
        key = _scale(manifest.config)
        proxy = found.setdefault(key, _Proxy(tokens=key[0], parameters=key[1], runs={}))
        metrics = {k: float(v) for k, v in result["metrics"].items() if v is not None}
        proxy.runs.setdefault(_mixture(manifest.config), []).append(metrics)
    yield from found.items()


def _scale(config: Mapping[str, Any]) -> tuple[float, float]:
    model: ModelSpec = validate(ModelSpec, config["model"])
    return tokens_of(config), float(model.parameters)


def _mixture(config: Mapping[str, Any]) -> str:
    """Return the weights of every stage as a key that does not depend on the scale."""
    weights = config["mixture"]["weights"]
    stages = [
        {n: round(w, 6) for n, w in (stage.get("weights") or weights).items() if w > 0.0}
        for stage in config["schedule"]["stages"].values()
    ]
    return json.dumps(stages, sort_keys=True)


def _between(first: _Proxy, second: _Proxy) -> Measured | None:
    """Return the slope from the smaller of two scales to the larger."""
    small, large = sorted((first, second), key=lambda p: (p.tokens * p.parameters, p.tokens))
    shared = [mixture for mixture in small.runs if mixture in large.runs]
    if len(shared) < 2:
        return None
    runs = [run for proxy in (small, large) for m in shared for run in proxy.runs[m]]
    keys = sorted(set.intersection(*(set(run) for run in runs)))
    if not keys:
        return None
    means, squares, freedom, seeds = [], np.zeros(len(keys)), 0, []
    for proxy in (small, large):
        tables = [np.array([[run[k] for k in keys] for run in proxy.runs[m]]) for m in shared]
        of_mixture = np.array([table.mean(axis=0) for table in tables])
        means.append(of_mixture - of_mixture.mean(axis=0))
        squares += sum(((t - t.mean(axis=0)) ** 2).sum(axis=0) for t in tables)
        freedom += sum(len(table) - 1 for table in tables)
        seeds += [len(table) for table in tables]
    if freedom < 1:
        return None
    run_error = np.sqrt(squares / freedom / (len(seeds) / math.fsum(1.0 / n for n in seeds)))
    found = slope_of(means[0], means[1], np.tile(run_error, (len(shared), 1)))
    if found is None:
        return None
    return Measured(
        where=f"{len(shared)} mixtures at {small.parameters:.3g} parameters and {small.tokens:.3g} "
        f"tokens and at {large.parameters:.3g} and {large.tokens:.3g}",
        tokens=large.tokens / small.tokens,
        parameters=large.parameters / small.parameters,
        slope=found[0],
        error=found[1],
    )
