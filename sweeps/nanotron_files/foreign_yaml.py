"""Read a YAML file from an untrusted source: return one mapping or raise one error.

The bytes may not be UTF-8. Aliases may expand to a thousand million nodes ("a billion laughs"), and
brackets may be nested 5,000 deep. A pass over the parser's events, which neither recurses nor expands
an alias, finds both before anything is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ablations.errors import ConfigError, Problem

__all__ = [
    "MOST_BYTES",
    "MOST_DEPTH",
    "MOST_NODES",
    "load_yaml",
    "read_text",
    "root_node",
    "value_problems",
]

MOST_BYTES = 8 << 20
"""Largest size of a file, in bytes; the largest published one has 31 KB."""

MOST_NODES = 200_000
"""Largest number of values, with aliases expanded; the largest published file has 1,000."""

MOST_DEPTH = 64
"""Deepest nesting; the published files are 6 deep."""

_MOST_DIGITS = 18
"""Most digits of a whole number: counters of steps and tokens are 64 bits wide (2**63 has 19)."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a repeated key; PyYAML would keep the last value."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(Problem(f"line {line}", "a key that is a list or a mapping"))
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(Problem(f"line {line}", f"the key {key!r} occurs twice"))
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_text(path: Path) -> str:
    """Return the text of the file at ``path``.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(Problem(str(path), "cannot be read", found=error.strerror)) from None
    if len(content) > MOST_BYTES:
        raise ConfigError(Problem(str(path), "too large", allowed=f"{MOST_BYTES:,} bytes"))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(
            Problem(
                f"{path}:{line}:{column}",
                "not UTF-8 text",
                found=f"byte 0x{content[error.start]:02x} at {error.start:,}",
                do="convert it: iconv -f latin1 -t utf-8",
            )
        ) from None


def load_yaml(text: str, where: str = "file") -> dict[str, Any]:
    """Return the mapping that ``text`` contains.

    Raises:
        ConfigError: it is not YAML, not a mapping, has a repeated key or too many values, or is
            nested too deeply.
    """
    try:
        _require_small(text, where)
        document = yaml.load(text, Loader=_Loader)
    except ConfigError:  # a ValueError too, so it must come first
        raise
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error, where)) from None
    except ValueError as error:  # a date with month 13, a number of 5,000 digits
        raise ConfigError(Problem(where, "a value that YAML cannot read", found=error)) from None
    if not isinstance(document, dict):
        raise ConfigError(
            Problem(where, "not a mapping", found=type(document).__name__, allowed="key: value")
        )
    return document


def root_node(text: str, where: str = "file") -> yaml.Node | None:
    """Return the root of the nodes of ``text``, which hold their lines and columns; None if it is empty.

    Raises:
        ConfigError: it is not YAML, has too many values, or is nested too deeply.
    """
    try:
        _require_small(text, where)
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error, where)) from None
    return node


def _not_yaml(error: yaml.YAMLError, where: str) -> Problem:
    """Return the problem of a text that the parser refuses, with its line and column."""
    mark = getattr(error, "problem_mark", None)
    place = where if mark is None else f"{where}:{mark.line + 1}:{mark.column + 1}"
    return Problem(place, "not YAML", found=" ".join(str(error).split()))


def _require_small(text: str, where: str) -> None:
    """Refuse aliases that multiply and nesting that is too deep, in one pass."""
    open_at: list[tuple[str | None, int]] = []  # anchor, and the number of nodes before it
    sizes: dict[str, int] = {}
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ConfigError(
                    Problem(where, "an alias inside the value that it names, or of no value")
                )
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_at.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_at.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if len(open_at) > MOST_DEPTH:
            raise ConfigError(Problem(where, "nested too deeply", allowed=f"{MOST_DEPTH} levels"))
        if nodes > MOST_NODES:
            raise ConfigError(
                Problem(
                    where,
                    "too many values",
                    allowed=f"{MOST_NODES:,}, with aliases expanded",
                )
            )


def value_problems(value: Any, where: str = "") -> Iterator[Problem]:
    """Yield a problem for each value that a config cannot contain.

    These are numbers that are not finite or have too many digits, keys that are not text, and dates
    and bytes, which YAML makes from unquoted text.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield Problem(where or "file", "a key that is not text", found=repr(key))
            yield from value_problems(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from value_problems(item, f"{where}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(where, "not a finite number", found=value)
    elif isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        yield Problem(where, "too large a number", allowed=f"at most {_MOST_DIGITS} digits")
    elif value is not None and not isinstance(value, str | int | float):
        yield Problem(
            where, f"read as a {type(value).__name__}", found=value, do="quote it if it is text"
        )
