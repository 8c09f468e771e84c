"""Families of surrogates by the names in configs, leaderboards and reports."""

from __future__ import annotations

from collections.abc import Callable

from ablations.errors import ConfigError, unknown_name
from sweeps.search.surrogates.base import Family
from sweeps.search.surrogates.combined import StackFamily
from sweeps.search.surrogates.gaussian_process import ProcessFamily
from sweeps.search.surrogates.linear import linear, ridge_sqrt, scheffe
from sweeps.search.surrogates.mixing_laws import log_linear, mixed_law, mixing_law, power_law
from sweeps.search.surrogates.trees import TreesFamily

__all__ = ["FAMILIES", "family"]


def _stack() -> StackFamily:
    smoother = ProcessFamily(name="gp-52", kernel="matern52")
    members = (ProcessFamily(), smoother, power_law(), TreesFamily(fold_count=2))
    return StackFamily(name="stack", members=members)


def _choice() -> StackFamily:
    members = (linear(), scheffe(), ridge_sqrt(), log_linear(), power_law(), ProcessFamily())
    return StackFamily(name="choice", members=members, rule="choose")


FAMILIES: dict[str, Callable[[], Family]] = {
    "linear": linear,
    "scheffe": scheffe,
    "ridge-sqrt": ridge_sqrt,
    "log-linear": log_linear,
    "mixing-law": mixing_law,
    "power-law": power_law,
    "mixed-law": mixed_law,
    "gp": ProcessFamily,
    "lightgbm": TreesFamily,
    "stack": _stack,
    "choice": _choice,
}
"""Name → function that returns the family with the settings that cross-validation chose."""


def family(name: str) -> Family:
    """Return the family called ``name``.

    Raises:
        ConfigError: no such family; the message contains the nearest names.
    """
    if name not in FAMILIES:
        raise ConfigError(unknown_name("search.surrogate", "surrogate", name, FAMILIES))
    return FAMILIES[name]()
