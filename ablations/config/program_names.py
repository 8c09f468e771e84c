"""The programs that a config may name: a closed list of words, for no config names code to be imported.

    program: {kind: annealing, …}        # an experiment of many runs (conf/experiment/*_arms.yaml)
    after: {kind: comparison, …}         # what looks at a finished run (written by a promotion)

A config may come from somebody else. Configs that were recorded or promoted before named a module; the
modules that were written then stand for their words.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ablations.errors import ConfigError, Problem, unknown_name

__all__ = ["after_module", "program_kind", "program_module", "require_after"]

_PROGRAMS = {
    "annealing": "sweeps.programs.annealing",
    "stagewise": "sweeps.programs.stagewise",
    "chain": "sweeps.programs.chain",
}
_AFTER = {"comparison": "sweeps.promotion.compare"}


def program_module(program: Any) -> Any:
    """Return the module that gives out the runs of an experiment; it has ``main`` and ``show_plan``.

    Raises:
        ConfigError: the config names no program of the list.
    """
    return importlib.import_module(_PROGRAMS[program_kind(program)])


def program_kind(program: Any) -> str:
    """Return the word of a ``program:`` section.

    Raises:
        ConfigError: it names no program of the list.
    """
    return _kind("program", program, _PROGRAMS)


def require_after(after: Any) -> None:
    """Check an ``after:`` section before the run that it follows is trained.

    Raises:
        ConfigError: it names nothing of the list, or no promotion.
    """
    _kind("after", after, _AFTER)
    if not isinstance(after.get("promotion"), str):
        raise ConfigError(
            Problem(
                "after.promotion", "not a promotion's folder", found=repr(after.get("promotion"))
            )
        )


def after_module(after: Any) -> Any:
    """Return the module that looks at a finished run; it has ``after_run``.

    Raises:
        ConfigError: the config names none of the list.
    """
    require_after(after)
    return importlib.import_module(_AFTER[_kind("after", after, _AFTER)])


def _kind(section: str, values: Any, known: Mapping[str, str]) -> str:
    if not isinstance(values, Mapping):
        raise ConfigError(
            Problem(section, "not a section", found=repr(values)[:60], allowed=f"{section}.kind=…")
        )
    if values.get("kind") is None and "module" in values:
        for word, module in known.items():
            if values["module"] == module:
                return word
        raise ConfigError(
            Problem(
                f"{section}.module",
                "no config names code to be imported",
                found=repr(values["module"])[:60],
                allowed=f"{section}.kind= one of {', '.join(known)}",
            )
        )
    kind = values.get("kind")
    if kind is None:
        raise ConfigError(Problem(f"{section}.kind", "missing", allowed=", ".join(known)))
    if kind not in list(known):
        raise ConfigError(unknown_name(f"{section}.kind", "word", str(kind), known))
    return str(kind)
