"""Read records that the platform wrote: a file that holds something else is named, with what to do.

A record may be damaged by a disk, or edited by a person. Its JSON is read and its fields' kinds are
compared before anything is made of them, so that no reader meets a number where it expects a text.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ablations.errors import DamagedError, Problem
from ablations.files import read_json

__all__ = ["damaged", "result_fault", "stored_as", "stored_object"]

T = TypeVar("T")


def stored_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it cannot be read, is no JSON, or no object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise damaged(path, f"a {type(content).__name__} in the place of an object")
    return content


def stored_as(kind: type[T], values: Mapping[str, Any], path: Path) -> T:
    """Return a record's values as the dataclass they were written from.

    Args:
        kind: The dataclass. Only the outermost kind of each field is compared.
        values: The JSON object.
        path: Its file, for the message.

    Raises:
        DamagedError: a field is missing, unknown, or of another kind.
    """
    hints = _hints(cast("Any", kind))
    if unknown := sorted(set(values) - set(hints)):
        raise damaged(path, f"the unknown key {unknown[0]!r}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            if not _fits(values[field.name], hints[field.name]):
                raise damaged(path, f"{field.name} = {str(values[field.name])[:40]!r}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise damaged(path, f"no {field.name}")
    return kind(**values)


_RESULT: dict[str, Any] = {
    "status": str,
    "reason": str | None,
    "score": float | None,
    "direction": str | None,
    "metrics": Mapping[str, Any] | None,
    "step": int | None,
    "tokens": float | None,
    "cost": Mapping[str, Any] | None,
}
"""Keys of ``result.json`` that readers count with, and their kinds."""


def result_fault(values: Mapping[str, Any]) -> str | None:
    """Return what a result holds that no run wrote; None where its kinds are right."""
    for key, kind in _RESULT.items():
        if key in values and not _fits(values[key], kind):
            return f"{key} = {str(values[key])[:40]!r}"
    for name, value in (values.get("metrics") or {}).items():
        # Thousands of results with dozens of metrics: what json makes of a number is compared first.
        if type(value) is not float and not _fits(value, float | None):
            return f"metrics.{name} = {str(value)[:40]!r}"
    return None


def damaged(path: Path, found: object) -> DamagedError:
    """Return the error of a record that is not what was written."""
    return DamagedError(
        Problem(
            str(path),
            "damaged: not what the platform wrote",
            found=found,
            do="restore it from a copy, or move it away",
        )
    )


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return field → type; a type that its module imports for the type checker alone is Any."""
    known = vars(sys.modules[kind.__module__])
    found: dict[str, Any] = {}
    for field in fields(kind):
        one = SimpleNamespace(__annotations__={field.name: field.type})
        try:
            found |= get_type_hints(one, globalns=known)
        except NameError:
            found[field.name] = Any
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is of the outermost kind that ``hint`` names."""
    kinds, literals = _kinds(hint)
    return kinds is None or type(value) in kinds or value in literals


@cache
def _kinds(hint: Any) -> tuple[frozenset[type] | None, tuple[Any, ...]]:
    """Return the types of JSON values that ``hint`` names, None = any, and single values beside them.

    A verdict on thousands of runs compares dozens of fields of each: hints are taken apart once.
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        members = [_kinds(member) for member in get_args(hint)]
        literals = tuple(value for _, values in members for value in values)
        if any(kinds is None for kinds, _ in members):
            return None, literals
        return frozenset(kind for kinds, _ in members for kind in kinds or ()), literals
    if origin is Literal:
        return frozenset(), get_args(hint)
    if hint in _EXACT:
        return _EXACT[hint], ()
    outer = origin or hint
    if isinstance(outer, type) and issubclass(outer, Mapping):
        return frozenset({dict}), ()
    if isinstance(outer, type) and issubclass(outer, Collection):
        return frozenset({list, tuple}), ()
    return None, ()


_EXACT: dict[Any, frozenset[type]] = {
    None: frozenset({type(None)}),
    type(None): frozenset({type(None)}),
    bool: frozenset({bool}),
    int: frozenset({int}),
    float: frozenset({int, float}),
    str: frozenset({str}),
}
