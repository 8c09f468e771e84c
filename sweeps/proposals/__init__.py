"""Proposals: which points to run next, and which to recommend at the end."""

from sweeps.proposals.choose import Preferred, prefer
from sweeps.proposals.evidence import Evidence, Limit
from sweeps.proposals.optimum import Goal, optimise
from sweeps.proposals.propose import (
    Pick,
    ProposalOptions,
    pick,
    propose,
    search_families,
    trust_pick,
)
from sweeps.proposals.trust import Difference, Skill, Trust

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
