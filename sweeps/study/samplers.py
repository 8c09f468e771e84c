"""Proposers: an Optuna sampler over the unit box, or random draws.

Optuna gets an in-memory study that mirrors the finished and running trials, so a proposal depends on
the trials alone and the journal never contains a half-suggested trial. The number of trials is part
of the seed, because a seeded sampler would repeat its stream after a restart.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeps.search.space import Point, SearchSpace
from sweeps.study.specs import Proposer
from sweeps.study.strategy import History, Propose
from sweeps.study.trial import Trial

if TYPE_CHECKING:
    import optuna

__all__ = ["optuna_proposer", "random_proposer"]


def random_proposer(space: SearchSpace, seed: int) -> Propose:
    """Return a proposer that draws uniformly from the space."""

    def propose(history: History, count: int) -> list[Point]:
        rng = np.random.default_rng((seed, len(history.trials)))
        return space.points(space.sample(count, rng))

    return propose


def optuna_proposer(space: SearchSpace, kind: Proposer, seed: int) -> Propose:
    """Return a proposer that uses an Optuna sampler: ``tpe``, ``gp``, ``cmaes`` or ``qmc``."""

    def propose(history: History, count: int) -> list[Point]:
        mirror = _mirror(space, kind, seed, history)
        points = []
        for _ in range(count):
            with warnings.catch_warnings():
                # Optuna warns at each use that some of its samplers are experimental.
                warnings.simplefilter("ignore")
                trial = mirror.ask(_distributions(space))
            box = np.array([[trial.params[name] for name in space.unit_names]])
            points += space.points(space.from_unit(box))
        return points

    return propose


def _mirror(space: SearchSpace, kind: Proposer, seed: int, history: History) -> optuna.study.Study:
    import optuna

    directions = [o.direction or "minimize" for o in history.objectives.values()]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = _sampler(kind, seed, len(history.trials))
        mirror = optuna.create_study(directions=directions, sampler=sampler)
        for trial in history.searched:
            mirror.add_trial(_frozen(space, history, trial))
    return mirror


def _sampler(kind: Proposer, seed: int, trials: int) -> Any:
    from optuna import samplers

    fresh = int(np.random.SeedSequence((seed, trials)).generate_state(1)[0])
    if kind == "tpe":
        return samplers.TPESampler(seed=fresh, n_startup_trials=0)
    if kind == "gp":
        return samplers.GPSampler(seed=fresh, n_startup_trials=0)
    if kind == "cmaes":
        return samplers.CmaEsSampler(seed=fresh, n_startup_trials=0)
    if kind == "qmc":
        # A new scramble for each batch: each batch is spread evenly, and restarts repeat nothing.
        return samplers.QMCSampler(seed=fresh, scramble=True)
    raise AssertionError(kind)


def _distributions(space: SearchSpace) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution

    return {name: FloatDistribution(0.0, 1.0) for name in space.unit_names}


def _frozen(space: SearchSpace, history: History, trial: Trial) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial

    box = space.to_unit(space.coordinates([trial.spec.point], check=False))[0]
    values = history.values(trial) if trial.state == "done" else None
    state = TrialState.RUNNING if trial.state == "running" else TrialState.FAIL
    return create_trial(
        state=TrialState.COMPLETE if values is not None else state,
        values=values,
        params={n: float(v) for n, v in zip(space.unit_names, np.clip(box, 0, 1), strict=True)},
        distributions=_distributions(space),
        constraints=(history.feasibility(trial) or None) if values is not None else None,
    )
