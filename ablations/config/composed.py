"""Check a composed config once, before any command looks at it: keys, names, numbers, text, sections.

The dataclasses check what each field may hold. What they cannot see is checked here: keys that YAML read
as a number, names that no override could reach again, values that no record can hold, a word where a
section belongs, and secrets of the environment, which a record would keep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.config.environment_secrets import secret_problems
from ablations.errors import ConfigError, Problem

__all__ = ["LONGEST_NAME", "composed_problems", "name_problem", "require_composed"]

LONGEST_NAME = 100
"""Characters of a name: with a suffix it stays within every file system's 255."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|[0-9]+(?:_[0-9]+)*")
"""Keys that Hydra's override grammar reads back as they are, and that make a folder."""

_NAMED: tuple[tuple[str, ...], ...] = (
    ("source",),
    ("mixture", "weights"),
    ("schedule", "stages"),
    ("schedule", "stages", "*", "weights"),
    ("evaluation", "tasks"),
    ("program", "arms"),
    ("program", "arms", "*"),
    ("program", "trials"),
    ("search", "objectives"),
    ("search", "constraints"),
    ("search", "strategy", "mixtures"),
    ("search", "strategy", "mixtures", "*"),
    ("search", "space", "mixtures", "*", "groups"),
)
"""Sections whose keys are names of the user's choice: sources, stages, tasks, arms, groups."""

_SECTIONS: tuple[tuple[str, ...], ...] = (
    *_NAMED,
    *((name,) for name in ("tokenizer", "mixture", "schedule", "model", "training", "execution")),
    *(
        (name,)
        for name in ("evaluation", "warm_start", "labels", "search", "prepare", "price", "program")
    ),
    *((name,) for name in ("after", "promotion", "low", "high", "fixed", "caps", "prior")),
    ("source", "*"),
    ("source", "*", "origin"),
    ("source", "*", "buckets"),
    ("source", "*", "select"),
    ("source", "*", "clean"),
    ("method",),
    ("method", "vision"),
    ("schedule", "lr"),
    ("schedule", "stages", "*"),
    ("evaluation", "tasks", "*"),
    ("evaluation", "score"),
    ("promotion", "limits"),
    ("promotion", "override"),
    *(("search", name) for name in ("space", "strategy", "budget", "confirm", "task_quality")),
    ("search", "space", "mixtures"),
    ("search", "space", "parameters"),
    ("caps", "tokens"),
    ("prepare", "slurm"),
)
"""Places that hold a section, or null."""

_NUMBERED: tuple[tuple[str, ...], ...] = (
    ("source", "*", "score_shares"),
    ("source", "*", "select", "keep"),
)
"""Sections whose keys are numbers."""

_MOST_DEPTH = 64
_LARGEST_INT = 2**63 - 1
"""The largest whole number that tables and tensors take."""


def require_composed(config: Mapping[str, Any]) -> None:
    """Refuse a composed config that breaks a rule of this module.

    Raises:
        ConfigError: every problem found.
    """
    if problems := composed_problems(config):
        raise ConfigError(problems)


def composed_problems(config: Mapping[str, Any]) -> list[Problem]:
    """Return all that is wrong with a composed config, as plain values.

    Args:
        config: The config; ``config_dirs`` in it, where Hydra found it, is left out.
    """
    own = {key: value for key, value in config.items() if key != "config_dirs"}
    source = own.get("source")
    if isinstance(source, Mapping) and isinstance(source.get("domain"), str):
        own["source"] = {
            "source": source
        }  # `ablate split` composes one source, not several by name
    return [*_walk(own, ()), *secret_problems(own)]


def name_problem(where: str, name: str) -> Problem | None:
    """Return what keeps ``name`` from naming a source, a stage, a task or a group; None if nothing."""
    if len(name) <= LONGEST_NAME and _NAME.fullmatch(name):
        return None
    return Problem(
        where,
        "not a name that an override can reach",
        found=repr(name if len(name) <= LONGEST_NAME else f"{name[:40]}… ({len(name)} characters)"),
        allowed="letters, digits, '_' and '-', a letter or '_' first (or digits alone), at most "
        f"{LONGEST_NAME}",
    )


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    where = ".".join(path)
    if len(path) > _MOST_DEPTH:
        yield Problem(
            ".".join(path[:4]) + "…", "nested too deeply", allowed=f"{_MOST_DEPTH} levels"
        )
    elif isinstance(value, Mapping):
        named = _matches(path, _NAMED)
        for key, inner in value.items():
            if isinstance(key, int) and _matches(path, _NUMBERED):
                yield from _walk(inner, (*path, str(key)))
            elif not isinstance(key, str):
                yield _unquoted(where, key)
            elif key == "":
                yield Problem(where, "an empty key", do="give it a name, or take it out")
            else:
                if named and (problem := name_problem(where, key)):
                    yield problem
                yield from _walk(inner, (*path, key))
    elif value is not None and _matches(path, _SECTIONS) and not _is_folder(path, value):
        yield Problem(
            where, "not a section", found=repr(value)[:60], allowed=f"{path[-1]}.KEY=VALUE, or null"
        )
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _walk(inner, (*path, str(place)))
    elif (problem := _value_problem(where, value)) is not None:
        yield problem


def _is_folder(path: tuple[str, ...], value: Any) -> bool:
    """Return whether it is the promotion that ``ablate export`` names: a folder, and no section."""
    return path == ("promotion",) and isinstance(value, str)


def _matches(path: tuple[str, ...], patterns: tuple[tuple[str, ...], ...]) -> bool:
    return any(
        len(path) == len(pattern)
        and all(wanted in ("*", key) for wanted, key in zip(pattern, path, strict=True))
        for pattern in patterns
    )


def _unquoted(where: str, key: Any) -> Problem:
    kinds = ((bool, "true or false"), (int, "a number"), (float, "a number"))
    kind = next((word for type_, word in kinds if isinstance(key, type_)), "no text")
    example = "'no'" if key is False else "'yes'" if key is True else f"'{key}'"
    return Problem(
        where or "config",
        f"a key that YAML reads as {kind}",
        found=f"{key!r}",
        do=f"quote the key: {example} as it was typed",
    )


def _value_problem(where: str, value: Any) -> Problem | None:
    if isinstance(value, float) and not math.isfinite(value):
        return Problem(where, "not a finite number", found=value)
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        return Problem(where, "too large a number", found=f"about {_magnitude(value)}")
    if isinstance(value, str):
        if "\0" in value:
            return Problem(where, "holds a NUL character", found=repr(value)[:60])
        if any("\ud800" <= character <= "\udfff" for character in value):
            return Problem(
                where, "holds half of a surrogate pair, which no file can", found=ascii(value)[:60]
            )
        return None
    if value is None or isinstance(value, bool | int | float):
        return None
    return Problem(
        where,
        f"a {type(value).__name__}, which no record holds",
        found=str(value)[:60],
        do="quote it",
    )


def _magnitude(value: int) -> str:
    """Return a whole number of any length in a few digits: Python prints none of over 4,300."""
    return f"2^{abs(value).bit_length() - 1}"
