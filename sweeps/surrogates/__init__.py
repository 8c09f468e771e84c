"""Surrogates: fitted models mixture → metric, one interface, calibrated intervals, a leaderboard."""

from sweeps.surrogates.base import Family, Surrogate, TaskModel
from sweeps.surrogates.laws import LawFamily
from sweeps.surrogates.leaderboard import Entry, Leaderboard, leaderboard
from sweeps.surrogates.linear import LinearFamily
from sweeps.surrogates.process import ProcessFamily
from sweeps.surrogates.registry import FAMILIES, family
from sweeps.surrogates.stack import StackFamily
from sweeps.surrogates.trees import TreesFamily

__all__ = [
    "FAMILIES",
    "Entry",
    "Family",
    "LawFamily",
    "Leaderboard",
    "LinearFamily",
    "ProcessFamily",
    "StackFamily",
    "Surrogate",
    "TaskModel",
    "TreesFamily",
    "family",
    "leaderboard",
]
