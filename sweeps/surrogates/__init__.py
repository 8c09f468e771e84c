"""Surrogates: fitted models mixture → metric, one interface, calibrated intervals, a leaderboard."""

from sweeps.surrogates.base import Family, Surrogate, TaskModel
from sweeps.surrogates.laws import LawFamily, log_linear, mixed_law, mixing_law, power_law
from sweeps.surrogates.leaderboard import Entry, Leaderboard, leaderboard
from sweeps.surrogates.linear import LinearFamily, linear, ridge_sqrt, scheffe
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
    "linear",
    "log_linear",
    "mixed_law",
    "mixing_law",
    "power_law",
    "ridge_sqrt",
    "scheffe",
]
