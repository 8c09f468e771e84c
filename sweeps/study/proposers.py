"""Who proposes points once the design is run: the surrogate, an Optuna sampler, or chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.search.space import SearchSpace
from sweeps.study.confirm import Pick
from sweeps.study.samplers import optuna_proposer, random_proposer
from sweeps.study.specs import SearchSpec
from sweeps.study.strategy import Propose
from sweeps.study.surrogate_proposer import surrogate_pick, surrogate_proposer

__all__ = ["Proposals", "proposals_of"]


@dataclass(frozen=True)
class Proposals:
    """The proposer of a search, and its own optimum where it has one."""

    propose: Propose
    pick: Pick | None = None


def proposals_of(spec: SearchSpec, space: SearchSpace, config: Mapping[str, Any]) -> Proposals:
    """The proposer named in ``search.strategy.proposer``.

    Args:
        spec: The search.
        space: Where it looks.
        config: The runs' composed config: its score rule tells the surrogate what a score is made of.
    """
    kind, seed = spec.strategy.proposer, spec.strategy.seed
    if kind == "random":
        return Proposals(random_proposer(space, seed))
    if kind == "surrogate":
        rule = (config.get("evaluation") or {}).get("score") or {}
        return Proposals(surrogate_proposer(space, seed, rule), surrogate_pick(space, seed, rule))
    return Proposals(optuna_proposer(space, kind, seed))
