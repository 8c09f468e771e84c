"""Proposals: which points to run next, and which to recommend at the end."""

from sweeps.proposals.choose import Preferred, prefer
from sweeps.proposals.evidence import Evidence, Limit
from sweeps.proposals.optimum import Goal, optimise
from sweeps.proposals.propose import Pick, ProposalOptions, pick, propose, search_families

__all__ = [
    "Evidence",
    "Goal",
    "Limit",
    "Pick",
    "Preferred",
    "ProposalOptions",
    "optimise",
    "pick",
    "prefer",
    "propose",
    "search_families",
]
