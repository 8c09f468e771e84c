"""Check plain values against a dataclass with pydantic: all problems at once, in the keys of the config.

pydantic names the member of a union that it tried beside the keys (``origin.HubOrigin.repo``,
``share.float``). :func:`validate` leaves these names out, and makes one problem of a value that no member
of a union takes.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ablations.errors import ConfigError, Problem, nearest, unknown_name

__all__ = ["one_or_many", "validate"]

T = TypeVar("T")

_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")

_NO_SECTION = (
    "dataclass_type",
    "dataclass_exact_type",
    "mapping_type",
    "dict_type",
    "model_attributes_type",
)


def validate(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Return plain values as a dataclass.

    Args:
        kind: The dataclass; ``__pydantic_config__`` in it may forbid other keys.
        values: The values by field.
        where: Key of the config that the values stand at; "" = the whole config.

    Raises:
        ConfigError: every problem found.
    """
    # Imported here: the commands that only list need no schema.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        problems = list(_problems(error.errors(), kind, where))
    raise ConfigError(problems)


def one_or_many(value: Any) -> Any:
    """Return a text as a list of it, anything else as it is: for fields that hold a list of texts."""
    return [value] if isinstance(value, str) else value


@dataclasses.dataclass(frozen=True)
class _Place:
    """A field of a config, read from the location that pydantic gives."""

    keys: tuple[str, ...]
    """The keys that lead to it."""
    container: Any
    """Dataclass that the last key belongs to, if it is one."""
    tried: str | None
    """Name of the member of a union that was tried, if the field is a union of plain values."""
    kind: Any
    """Type of the field; None if it is not known."""

    def names(self) -> list[str]:
        """Return the fields of the container."""
        return [] if self.container is None else _names(self.container)


def _problems(errors: Iterable[Any], kind: type, where: str) -> Iterator[Problem]:
    """Yield one problem for each field at fault."""
    tried: dict[str, list[Any]] = {}
    missing: dict[str, Problem] = {}
    mistyped: set[str] = set()
    for error in errors:
        place = _place(error["loc"], kind)
        key = _joined(where, *place.keys)
        cause = (error.get("ctx") or {}).get("error")
        if isinstance(cause, ConfigError):
            yield from (_full(problem, place, where) for problem in cause.problems)
        elif place.tried is not None:
            tried.setdefault(key, []).append(error)
        elif error["type"] in _MISSING:
            missing[key] = Problem(key, "missing", do="give it a value")
        elif error["type"] == "unexpected_keyword_argument":
            names = place.names()
            mistyped.update(
                _joined(where, *place.keys[:-1], n) for n in nearest(place.keys[-1], names)
            )
            yield unknown_name(key, "key", place.keys[-1], names)
        else:
            yield _problem(error, key)
    # A key that is needed and that another key nearly names: that one's problem tells both.
    yield from (problem for key, problem in missing.items() if key not in mistyped)
    for key, alternatives in tried.items():
        allowed = " or ".join(dict.fromkeys(_demand(error) for error in alternatives))
        found = _short(alternatives[0].get("input"))
        yield Problem(key, "not a value that it takes", found=found, allowed=allowed)


def _joined(*keys: str) -> str:
    return ".".join(key for key in keys if key)


def _full(problem: Problem, place: _Place, where: str) -> Problem:
    """Return a problem that a dataclass found itself, with all keys that lead to it.

    A dataclass knows its own fields ("metrics"), or the group that it is of ("source.max_bytes"), and not
    under which name it stands.
    """
    if where:
        return dataclasses.replace(problem, where=_joined(where, problem.where.partition(".")[2]))
    first, _, rest = problem.where.partition(".")
    keys = _joined(*place.keys)
    if not keys or f"{keys}." in f"{problem.where}.":
        return problem
    if place.keys[0] == first == "source":
        return dataclasses.replace(problem, where=_joined(*place.keys, rest))
    if place.keys[-1] == first:
        return dataclasses.replace(problem, where=_joined(keys, rest))
    if dataclasses.is_dataclass(place.kind) and first in _names(place.kind):
        return dataclasses.replace(problem, where=_joined(keys, problem.where))
    return problem


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _problem(error: Mapping[str, Any], key: str) -> Problem:
    kind, context = error["type"], error.get("ctx") or {}
    if kind == "union_tag_not_found":
        tag = str(context["discriminator"]).strip("'")
        return Problem(f"{key}.{tag}", "missing", do="give it a value")
    if kind == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
        tag = str(context["discriminator"]).strip("'")
        return unknown_name(f"{key}.{tag}", tag, str(context["tag"]), tags)
    given = error.get("input")
    if kind in _NO_SECTION:
        name = key.rpartition(".")[2]
        return Problem(key, "not a section", found=_short(given), allowed=f"{name}.KEY=VALUE")
    quote = kind == "string_type" and isinstance(given, bool | int | float)
    do = f"quote it: {key}=\"'{given}'\"" if quote else None
    return Problem(key, error["msg"], found=_short(given), do=do)


def _demand(error: Mapping[str, Any]) -> str:
    """Return what a member of a union asks for: "a valid number", "'rest'"."""
    return str(error["msg"]).removeprefix("Input should be ").partition(",")[0]


def _place(location: tuple[Any, ...], kind: Any) -> _Place:
    """Return the keys of a location, without the names of members of unions that it holds."""
    keys: list[str] = []
    container: Any = None
    tried = None
    for part in location:
        kind = _without_none(kind)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            keys.append(str(part))
            container = kind
            kind = typing.get_type_hints(kind).get(str(part))
        elif origin in (collections.abc.Mapping, dict, tuple, list) and part != "[key]":
            keys.append(str(part))
            container = None
            kind = arguments[-1] if origin in (collections.abc.Mapping, dict) else arguments[0]
        else:
            member = _member(arguments, str(part))
            if not dataclasses.is_dataclass(member):
                tried = str(part)
            kind = member
    return _Place(tuple(keys), container, tried, _without_none(kind))


def _without_none(kind: Any) -> Any:
    """Return ``X`` of ``X | None``: pydantic adds no name to a location for it."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    members = [member for member in typing.get_args(kind) if member is not types.NoneType]
    return members[0] if len(members) == 1 else typing.Union[tuple(members)]  # noqa: UP007


def _member(members: Iterable[Any], name: str) -> Any:
    """Return the dataclass of a union that has a name, or a field ``kind`` of that value."""
    for member in members:
        if not dataclasses.is_dataclass(member):
            continue
        kinds = typing.get_args(typing.get_type_hints(member).get("kind"))
        if getattr(member, "__name__", None) == name or name in kinds:
            return member
    return None


def _short(given: Any) -> str:
    """Return a value as it is shown: a whole number of any length is cut."""
    if isinstance(given, int) and given.bit_length() > 128:
        return f"about 2^{given.bit_length() - 1}"
    shown = repr(given)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
