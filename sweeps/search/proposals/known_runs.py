"""What is known when points are proposed: runs that finished, and points that are running.

Every column of values is a metric that a surrogate is fitted to; an objective is a weighted sum of
columns, turned so that less is better. Giving the metrics of an objective rather than the objective
alone lets each have its own law: the losses of six domains say more than their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ablations.errors import ConfigError, Problem
from sweeps.search.space import Floats, SearchSpace

__all__ = ["Evidence", "Limit"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A bound on something measured: ``values @ weights <= bound``."""

    weights: Floats
    """Weight of every metric, ``[t]``."""
    bound: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Runs and what they measured; made by :meth:`of`."""

    coordinates: Floats
    """``[n, d]`` of finished runs."""
    values: Floats
    """``[n, t]``; NaN where a metric is missing."""
    objectives: Floats
    """``[o, t]``: the losses are ``values @ objectives.T``, less is better."""
    pending: Floats
    """``[p, d]`` of runs that have not finished."""
    noise: Floats | None = None
    """Standard errors of the values, ``[n, t]``, where they are known."""
    limits: tuple[Limit, ...] = field(default=())
    """Bounds on measured things."""

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        points: Sequence[Mapping[str, Any]],
        values: Floats,
        *,
        objectives: Floats | None = None,
        pending: Sequence[Mapping[str, Any]] = (),
        noise: Floats | None = None,
        limits: Sequence[Limit] = (),
    ) -> Self:
        """Evidence from points.

        Args:
            space: The search space; points may lie outside its bounds (baselines, foreign runs).
            points: Points of finished runs.
            values: ``[n, t]`` metrics, or ``[n]`` for a single loss.
            objectives: ``[o, t]`` or ``[t]`` weights of metrics in each loss; the plain mean when
                None.
            pending: Points that are running.
            noise: Standard errors of the values.
            limits: Bounds on measured things.

        Raises:
            ConfigError: shapes that do not fit together.
        """
        table = np.asarray(values, dtype=np.float64)
        if table.ndim == 1:
            table = table[:, None]
        if len(table) != len(points):
            raise ConfigError(
                Problem("values", "not one row a point", found=table.shape, allowed=len(points))
            )
        width = table.shape[1]
        default = np.full((1, width), 1.0 / max(1, width))
        weights = default if objectives is None else np.atleast_2d(np.asarray(objectives, float))
        if weights.shape[1] != width:
            raise ConfigError(
                Problem("objectives", "not one weight a metric", found=weights.shape, allowed=width)
            )
        return cls(
            coordinates=space.coordinates(points, check=False),
            values=table,
            objectives=weights,
            pending=space.coordinates(pending, check=False),
            noise=noise,
            limits=tuple(limits),
        )

    @property
    def losses(self) -> Floats:
        """``[n, o]``, less is better."""
        losses: Floats = self.values @ self.objectives.T
        return losses
