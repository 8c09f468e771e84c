"""Fields that a config may hold, read from the dataclasses and the docstrings under their fields.

dataclass ──sections()──▶ Section(prefix, summary, options) ──▶ docs/config.md, ``ablate COMMAND --help``
"""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import importlib
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ablations.ranges import Interval

__all__ = ["Option", "Section", "field_docs", "sections"]


@dataclass(frozen=True)
class Option:
    """One key of a config."""

    key: str
    """The key, with ``<name>`` where a name of the user's choice stands."""
    type: str
    """Words for its type and range."""
    default: str
    """Its default as it is written; "needed" = none, "" = a section's own defaults."""
    text: str
    """Explanation: the docstring under the field."""
    is_section: bool
    """True if its own keys are listed in a section of their own."""


@dataclass(frozen=True)
class Section:
    """Keys that stand side by side."""

    prefix: str
    """Key that they stand at; "" = the top of the config."""
    summary: str
    """Their purpose, in one sentence."""
    options: tuple[Option, ...]


def sections(prefix: str, kind: type | str) -> Iterator[Section]:
    """Yield a dataclass of options, and each dataclass within it.

    Args:
        prefix: Key of the config that the fields stand at.
        kind: The dataclass, or ``module:name`` of one in a package that is not imported from here.
    """
    if isinstance(kind, str):
        module, _, name = kind.partition(":")
        kind = getattr(importlib.import_module(module), name)
    assert isinstance(kind, type)
    docs, hints = field_docs(kind), typing.get_type_hints(kind, include_extras=True)
    nested: list[tuple[str, type]] = []
    options = []
    for field in dataclasses.fields(kind):
        where = f"{prefix}.{field.name}" if prefix else field.name
        below, key = _inside(hints[field.name], where)
        nested += [(key, one) for one in below]
        options.append(
            Option(
                key=where,
                type=_type(hints[field.name]),
                default=_default(field),
                text=docs.get(field.name, ""),
                is_section=bool(below),
            )
        )
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    yield Section(prefix, summary, tuple(options))
    for where, one in nested:
        yield from sections(where, one)


def field_docs(kind: type) -> dict[str, str]:
    """Field → the docstring under it, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if is_text and isinstance(below.value.value, str):  # type: ignore[attr-defined]
                docs[field.target.id] = " ".join(below.value.value.split())  # type: ignore[attr-defined]
    return docs


def _inside(hint: Any, where: str) -> tuple[list[type], str]:
    """Return the dataclasses within a field's type, and the key that they stand at."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint], where
    arguments = typing.get_args(hint)
    key = f"{where}.<name>" if typing.get_origin(hint) is collections.abc.Mapping else where
    found: list[type] = []
    for argument in arguments:
        inner, _ = _inside(argument, where)
        found += inner
    return found, key


def _type(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "see below"
    if typing.get_origin(hint) is typing.Annotated:
        limits = [limit for limit in hint.__metadata__ if isinstance(limit, Interval)]
        return ", ".join([_type(hint.__origin__), *map(_range, limits)])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(str(value) for value in arguments)
    if origin is None:
        return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is collections.abc.Mapping:
        return f"name → {_type(arguments[1])}"
    return " or ".join(dict.fromkeys(_type(argument) for argument in arguments))


def _range(limits: Any) -> str:
    """Return the words for a range of :mod:`ablations.ranges`."""
    least = limits.ge if limits.ge is not None else limits.gt
    most = limits.le if limits.le is not None else limits.lt
    if most is None or most >= 2**63:
        return f"above {least:,}" if limits.ge is None else f"{least:,} or more"
    return f"{least:,} to {most:,}"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
        return (
            "null"
            if value is None
            else str(value).lower()
            if isinstance(value, bool)
            else f"{value}"
        )
    return "" if field.default_factory is not dataclasses.MISSING else "needed"
