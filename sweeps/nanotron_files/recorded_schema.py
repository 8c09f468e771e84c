"""Recorded config classes of nanotron's branches: their keys, types and defaults.

``benchmarks/record_nanotron_schema.py`` makes ``recorded/<branch>.json`` from a checkout. It contains
each config class with fields, types and defaults, and the commit. Tests compare the typed sections
of this package and the files that it writes with it::

    >>> recorded("main").default("Qwen2Config", "_fused_rms_norm")
    True
    >>> recorded("smollm3").default("Qwen2Config", "_fused_rms_norm")
    False

Nanotron loads strictly: it refuses a key that its classes do not have, and a null if the type does
not allow it.
"""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from ablations.errors import Problem

__all__ = [
    "BRANCHES",
    "REQUIRED",
    "Branch",
    "Recorded",
    "foreign_keys",
    "recorded",
    "schema_problems",
    "used",
    "without",
]

Branch = Literal["main", "smollm3"]
"""Branches of huggingface/nanotron whose files are read and written."""

BRANCHES: tuple[Branch, ...] = get_args(Branch)

REQUIRED: Any = object()
"""Marker for a field without a default."""

_MODELS = ("LlamaConfig", "Starcoder2Config", "Qwen2Config")
"""Members of ``NanotronConfigs``, in the order in which nanotron tries them."""

_NO_FACTORY: Mapping[str, Any] = {"list": [], "dict": {}}

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Recorded:
    """The config classes of one branch."""

    branch: Branch
    commit: str
    date: str
    """Day of the commit."""
    constants: Mapping[str, Any]
    """Module constants that defaults refer to."""
    classes: Mapping[str, Mapping[str, Mapping[str, str]]]
    """Class → field → ``type`` and, if it has one, ``default``, as source text."""

    def __str__(self) -> str:
        return f"nanotron {self.branch}, commit {self.commit[:12]} ({self.date})"

    def default(self, owner: str, name: str) -> Any:
        """Return the default of a field as a YAML value; ``REQUIRED`` if it has none.

        Raises:
            KeyError: the branch has no such class or field.
        """
        text = self.classes[owner][name].get("default")
        if text is None:
            return REQUIRED
        if text in self.constants:
            return self.constants[text]
        factory = re.fullmatch(r"field\(default_factory=(?:lambda: )?(.+)\)", text)
        if factory and factory[1] in _NO_FACTORY:
            return _NO_FACTORY[factory[1]]
        path = re.fullmatch(r"Path\((.+)\)", text)
        inner = factory or path
        try:
            return ast.literal_eval(inner[1] if inner else text)
        except ValueError:  # a member of an enumeration, written by its name
            return text.rpartition(".")[2]

    def nullable(self, owner: str, name: str) -> bool:
        """Return True if the field may be null."""
        kind = self.classes[owner][name]["type"]
        return kind.startswith("Optional[") or kind in ("Any", "NanotronConfigs")

    def members(self, owner: str, name: str) -> tuple[str, ...]:
        """Return the config classes that the field's type names, in order."""
        kind = self.classes[owner][name]["type"]
        if kind == "NanotronConfigs":
            return _MODELS
        return tuple(word for word in re.findall(r"\w+", kind) if word in self.classes)


@cache
def recorded(branch: Branch) -> Recorded:
    """Return the record of ``branch``."""
    path = Path(__file__).parent / "recorded" / f"{branch}.json"
    plain = json.loads(path.read_text())
    classes = {name: facts["fields"] for name, facts in plain["classes"].items()}
    return Recorded(branch, plain["commit"], plain["date"], plain["constants"], classes)


def schema_problems(document: Mapping[str, Any], branch: Branch) -> Iterator[Problem]:
    """Yield a problem for each unknown key and each null that the branch's loader would refuse."""
    record = recorded(branch)
    for path, owner, name, value in _entries(document, "Config", record, ()):
        where = ".".join(map(str, path))
        if name not in record.classes[owner]:
            other = next((b for b in BRANCHES if name in recorded(b).classes[owner]), None)
            do = f"leave it out, or take nanotron={other}, which has it" if other else None
            yield Problem(where, f"nanotron {branch} has no such key", do=do)
        elif value is None and not record.nullable(owner, name):
            kind = record.classes[owner][name]["type"]
            yield Problem(where, "cannot be null", found="null", allowed=kind, do="leave it out")


def foreign_keys(document: Mapping[str, Any], branch: Branch) -> dict[KeyPath, bool]:
    """Return path → is default, for each key that ``branch`` lacks and another recorded branch has.

    If the value is the other branch's default (True), leaving the key out changes nothing.
    """
    record = recorded(branch)
    found: dict[KeyPath, bool] = {}
    for path, owner, name, value in _entries(document, "Config", record, ()):
        if name in record.classes[owner]:
            continue
        for other in map(recorded, BRANCHES):
            if name in other.classes[owner]:
                found[path] = value == other.default(owner, name)
    return found


def without(document: Mapping[str, Any], paths: Iterable[KeyPath]) -> dict[str, Any]:
    """Return a copy of ``document`` without the keys at ``paths``."""
    kept = copy.deepcopy(dict(document))
    for *parents, last in paths:
        section: Any = kept
        for key in parents:
            section = section[key]
        del section[last]
    return kept


def used(document: Mapping[str, Any], branch: Branch) -> dict[str, Any]:
    """Return ``document`` without the keys of another branch that have its default."""
    unused = [path for path, default in foreign_keys(document, branch).items() if default]
    return without(document, unused) if unused else dict(document)


def _entries(
    section: Mapping[str, Any], owner: str, record: Recorded, path: KeyPath
) -> Iterator[tuple[KeyPath, str, str, Any]]:
    """Yield path, class, key and value of each key of a section and of the sections below it."""
    for key, value in section.items():
        name = str(key)
        yield (*path, name), owner, name, value
        if name not in record.classes[owner]:
            continue
        members = record.members(owner, name)
        if not members:
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, item in items:
            if isinstance(item, Mapping):
                below = (*path, name) if index is None else (*path, name, index)
                yield from _entries(item, _chosen(item, members, record), record, below)


def _chosen(section: Mapping[str, Any], members: tuple[str, ...], record: Recorded) -> str:
    """Return the union's class that fits a section: the first that lacks the fewest of its keys."""
    tagged = [m for m in members if any(k in section for k in record.classes[m] if k[:3] == "is_")]
    found = tagged or members
    return min(found, key=lambda member: len(set(section) - set(record.classes[member])))
