"""Proposals: points to run next, and the point to recommend at the end."""

from sweeps.search.proposals.known_runs import Evidence, Limit
from sweeps.search.proposals.model_averaging import Preferred, prefer
from sweeps.search.proposals.optimum import Goal, optimise
from sweeps.search.proposals.optimum_tests import Difference, Skill, Trust
from sweeps.search.proposals.propose import (
    Pick,
    ProposalOptions,
    pick,
    propose,
    search_families,
    trust_pick,
)

__all__ = [
    "Difference",
    "Evidence",
    "Goal",
    "Limit",
    "Pick",
    "Preferred",
    "ProposalOptions",
    "Skill",
    "Trust",
    "optimise",
    "pick",
    "prefer",
    "propose",
    "search_families",
    "trust_pick",
]
