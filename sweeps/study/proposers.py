"""Choice of the proposer that follows the design: the surrogate, an Optuna sampler, or random draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.search.space import SearchSpace
from sweeps.study.confirm import Pick
from sweeps.study.samplers import optuna_proposer, random_proposer
from sweeps.study.specs import SearchSpec
from sweeps.study.strategy import History, Propose
from sweeps.study.surrogate_proposer import (
    Ranking,
    judge_old_runs,
    predicted_losses,
    surrogate_pick,
    surrogate_proposer,
)

__all__ = ["Proposals", "proposals_of"]


@dataclass(frozen=True)
class Proposals:
    """Proposer of a search, with the function that returns its optimum if it has one."""

    propose: Propose
    pick: Pick | None = None
    rank: Callable[[History], Ranking] | None = None
    """Function that predicts trials at the top, for a search with rungs."""
    judge: Callable[[History], Mapping[str, Any]] | None = None
    """Function that measures what runs of earlier studies are worth."""


def proposals_of(spec: SearchSpec, space: SearchSpace, config: Mapping[str, Any]) -> Proposals:
    """Return the proposer named in ``search.strategy.proposer``.

    Args:
        spec: Specification of the search.
        space: Search space.
        config: Composed config of the runs; the surrogate reads its score rule.
    """
    kind, seed = spec.strategy.proposer, spec.strategy.seed
    if kind == "random":
        return Proposals(random_proposer(space, seed))
    if kind == "surrogate":
        rule = (config.get("evaluation") or {}).get("score") or {}
        return Proposals(
            surrogate_proposer(space, seed, rule),
            surrogate_pick(space, seed, rule),
            lambda history: predicted_losses(space, history, rule, seed),
            lambda history: judge_old_runs(space, history, rule, seed),
        )
    return Proposals(optuna_proposer(space, kind, seed))
