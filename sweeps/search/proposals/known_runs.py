"""Data that proposals are made from: finished runs, and points that are running.

Each column of values is a metric that a surrogate is fitted to. An objective is a weighted sum of
columns, with signs such that less is better. Each metric of an objective gets its own law, because
the losses of six domains contain more information than their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, Problem
from sweeps.search.space import Floats, SearchSpace

__all__ = ["Evidence", "Limit"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Bound on a measured quantity: ``values @ weights <= bound``."""

    weights: Floats
    """Weight of each metric, ``[t]``."""
    bound: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Runs and their measurements; made by :meth:`of`."""

    coordinates: Floats
    """Coordinates ``[n, d]`` of finished runs."""
    values: Floats
    """Metrics ``[n, t]``; NaN if a metric is missing."""
    objectives: Floats
    """Weights ``[o, t]``: the losses are ``values @ objectives.T``, less is better."""
    pending: Floats
    """Coordinates ``[p, d]`` of runs that have not finished."""
    noise: Floats | None = None
    """Standard errors of the values, ``[n, t]``, if they are known."""
    limits: tuple[Limit, ...] = field(default=())
    """Bounds on measured quantities."""
    rungs: Floats | None = None
    """Distance ``[n, q]`` of each run's rung from the top, which has zeros; None = all at the top."""
    dropped: Floats | None = None
    """Weights ``[n, e]`` of sources that old runs have read and the space lacks; None = no such source."""

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
        rungs: Floats | None = None,
        dropped: Floats | None = None,
    ) -> Self:
        """Return the evidence of points.

        Args:
            space: Search space; points may lie outside its bounds (baselines, foreign runs).
            points: Points of finished runs.
            values: Metrics ``[n, t]``, or ``[n]`` for a single loss.
            objectives: Weights ``[o, t]`` or ``[t]`` of metrics in each loss; the mean if None.
            pending: Points that are running.
            noise: Standard errors ``[n, t]`` of the values.
            limits: Bounds on measured quantities.
            rungs: Distance ``[n, q]`` of each run's rung from the top; None = all at the top.
            dropped: Weights ``[n, e]`` of sources that the space lacks; None = no such source.

        Raises:
            ConfigError: shapes that do not fit together.
        """
        table = np.asarray(values, dtype=np.float64)
        if table.ndim == 1:
            table = table[:, None]
        if len(table) != len(points):
            raise ConfigError(
                Problem("values", "not one row per point", found=table.shape, allowed=len(points))
            )
        width = table.shape[1]
        default = np.full((1, width), 1.0 / max(1, width))
        weights = default if objectives is None else np.atleast_2d(np.asarray(objectives, float))
        if weights.shape[1] != width:
            raise ConfigError(
                Problem(
                    "objectives", "not one weight per metric", found=weights.shape, allowed=width
                )
            )
        return cls(
            coordinates=space.coordinates(points, check=False),
            values=table,
            objectives=weights,
            pending=space.coordinates(pending, check=False),
            noise=noise,
            limits=tuple(limits),
            rungs=None if rungs is None or not rungs.any() else rungs,
            dropped=None if dropped is None or not dropped.any() else dropped,
        )

    def first(self, count: int) -> Self:
        """Return the evidence of the first ``count`` runs alone."""
        cut = {
            name: None if (rows := getattr(self, name)) is None else rows[:count]
            for name in ("noise", "rungs", "dropped")
        }
        for name in ("rungs", "dropped"):
            if (rows := cut[name]) is not None and not rows.any():
                cut[name] = None
        return replace(
            self,
            coordinates=self.coordinates[:count],
            values=self.values[:count],
            noise=cut["noise"],
            rungs=cut["rungs"],
            dropped=cut["dropped"],
        )

    def inputs(self, space: SearchSpace) -> Floats:
        """Return the inputs ``[n, m]`` of a fit; dropped sources and rungs are their last columns."""
        parts = [space.inputs(self.coordinates), self.dropped, self.rungs]
        return np.concatenate([part for part in parts if part is not None], axis=1)

    @property
    def rung_columns(self) -> int:
        """Return the number of rung columns of the inputs."""
        return 0 if self.rungs is None else self.rungs.shape[1]

    @property
    def columns(self) -> int:
        """Return the number of input columns that new points have at zero."""
        return self.rung_columns + (0 if self.dropped is None else self.dropped.shape[1])

    @property
    def at_top(self) -> NDArray[np.bool_]:
        """Return a mask ``[n]`` of the runs at the top."""
        if self.rungs is None:
            return np.ones(len(self.coordinates), dtype=bool)
        return np.asarray((self.rungs == 0.0).all(axis=1))

    @property
    def losses(self) -> Floats:
        """Return the losses ``[n, o]``, less is better."""
        losses: Floats = self.values @ self.objectives.T
        return losses
