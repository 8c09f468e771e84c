"""Surrogates: fitted models mixture → metric, one interface, calibrated intervals, a leaderboard."""

from sweeps.search.surrogates.base import Family, Surrogate, TaskModel
from sweeps.search.surrogates.combined import StackFamily
from sweeps.search.surrogates.gaussian_process import ProcessFamily
from sweeps.search.surrogates.leaderboard import Entry, Leaderboard, leaderboard
from sweeps.search.surrogates.linear import LinearFamily, linear, ridge_sqrt, scheffe
from sweeps.search.surrogates.mixing_laws import (
    LawFamily,
    log_linear,
    mixed_law,
    mixing_law,
    power_law,
)
from sweeps.search.surrogates.registry import FAMILIES, family
from sweeps.search.surrogates.trees import TreesFamily

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
