"""Definition of a study (``study.json``), written once; a command that differs from it is refused.

The definition consists of search space, strategy, objectives, constraints, seeds and the config that
the runs share. Budget, confirmation, workers, allowed failures, launcher and devices are not part of
it, and may change from one command to the next.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.config.removed import MOVED
from ablations.errors import ConfigError, DamagedError, Problem
from ablations.files import write_sealed
from ablations.record.stored import stored_as, stored_object
from ablations.run_identity import without_picture_fields

__all__ = [
    "DEFINITION_FILE",
    "FORMAT",
    "Definition",
    "differences",
    "is_searched",
    "load_definition",
    "record_decision",
    "settle_definition",
    "shared_config",
    "stored_definition",
]

DEFINITION_FILE = "study.json"

FORMAT = 3
"""Version of ``study.json``; readers refuse a newer one. Since 2 ``config.source`` contains every source
that the runs name, not only overridden ones; since 3 there is ``task_quality``."""

_WITH_SOURCES = 2
_WITH_QUALITY = 3
_COMPARED = ("space", "strategy", "objectives", "constraints", "task_quality", "seeds", "config")
_ELSEWHERE = ("runs_dir", "data_dir", "study", "trial", "seed", "execution", "labels", "progress")
"""Top-level config keys of place and execution; ``seed`` differs between the runs of a trial."""
_OTHER = (
    *("search", "hydra", "experiment", "config_dirs", "out", "promotion", "prepare", "price"),
    *("json", "retry"),  # how a command is carried out; not in the definitions of older studies
    *MOVED,  # options of prepare, which older versions kept here
)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Content of ``study.json``."""

    study: str
    question: str
    space: Mapping[str, Any] | None
    """Search space as plain values; None for a study of plain Hydra sweeps."""
    strategy: Mapping[str, Any]
    objectives: Mapping[str, Any]
    constraints: Mapping[str, Any]
    seeds: Sequence[int]
    """Seeds of every explored trial."""
    config: Mapping[str, Any]
    """Config that all runs share: the composed config without searched values, place and execution."""
    arguments: Sequence[str]
    """Arguments of the command that began the study."""
    created: float = 0.0
    format: int = FORMAT
    task_quality: Mapping[str, Any] = field(default_factory=dict)
    """``search.task_quality`` as plain values, and under ``decision`` the decision and its time."""

    @property
    def decision(self) -> Mapping[str, Any] | None:
        """Return the decision on task quality; None if none was made."""
        return self.task_quality.get("decision")


def shared_config(plain: Mapping[str, Any], searched: Sequence[str]) -> dict[str, Any]:
    """Return the part of a composed config that all runs of a study share."""
    kept = {key: value for key, value in plain.items() if key not in (*_ELSEWHERE, *_OTHER)}
    return {
        key: _without(value, key, set(searched)) for key, value in _without_unused(kept).items()
    }


def _without_unused(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that were added after studies had been begun, where they have no effect."""
    kept = dict(config)
    if (kept.get("method") or {}).get("kind") == "pretrain":
        del kept["method"]
    elif kept.get("method") and kept["method"].get("vision") is None:
        kept["method"] = {key: v for key, v in kept["method"].items() if key != "vision"}
    for section, added in (("evaluation", "guards"), ("training", "float8")):
        values = kept.get(section)
        if isinstance(values, Mapping) and not values.get(added):
            kept[section] = {key: value for key, value in values.items() if key != added}
    return without_picture_fields(kept)


def _without(value: Any, path: str, searched: set[str]) -> Any:
    if path in searched:
        return "searched"
    if isinstance(value, Mapping):
        return {key: _without(inner, f"{path}.{key}", searched) for key, inner in value.items()}
    return value


def load_definition(folder: Path) -> Definition | None:
    """Return the definition in ``folder``; None for a folder of plain runs.

    Raises:
        ConfigError: a newer version of the platform wrote it.
        DamagedError: it is not what was written, or missing although the study has a journal.
    """
    if _lost(folder):
        raise DamagedError(
            Problem(
                str(folder / DEFINITION_FILE),
                "missing, although the journal of the study exists",
                do="restore it from a copy, or run the study's command again, which writes it",
            )
        )
    return stored_definition(folder)


def _lost(folder: Path) -> bool:
    """Return whether the folder contains a study whose definition is missing."""
    return not os.path.lexists(folder / DEFINITION_FILE) and (folder / "journal.log").exists()


def stored_definition(folder: Path) -> Definition | None:
    """Return the definition in ``folder``; None if there is no such file.

    Raises:
        ConfigError: a newer version of the platform wrote it.
        DamagedError: it is not what was written.
    """
    path = folder / DEFINITION_FILE
    if not os.path.lexists(path):
        return None
    stored = stored_object(path)
    if isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
        raise ConfigError(
            Problem(
                str(path),
                "written by a newer version of the platform",
                found=f"study format {stored['format']}",
                allowed=f"at most {FORMAT}",
            )
        )
    return stored_as(Definition, stored, path)


def is_searched(folder: Path) -> bool:
    """Return whether a search of the study in ``folder`` was begun; plain sweeps do not count."""
    stored = stored_definition(folder)
    return stored is not None and stored.space is not None


def settle_definition(folder: Path, given: Definition) -> Definition:
    """Return the definition that the study keeps: the stored one, or ``given`` if there is none yet.

    A plain sweep adds trials to any study with the same objectives. A search takes over a study that
    contained only plain sweeps.

    Raises:
        ConfigError: the stored definition differs; every difference is named.
    """
    stored = stored_definition(folder)
    if _lost(folder):
        print(
            f"{folder / DEFINITION_FILE}: missing; written again from this command", file=sys.stderr
        )
    if stored is None or (stored.space is None and given.space is not None):
        kept = given if stored is None else _with_objectives_of(stored, given)
        write_sealed(folder / DEFINITION_FILE, {**vars(kept), "created": time.time()})
        return kept
    compared = ("objectives",) if given.space is None else _COMPARED
    changes = [
        change
        for name in compared
        for change in differences(_part(stored, name), _part(given, name), name)
        if stored.format >= _WITH_SOURCES or not change[0].startswith("config.source")
        if stored.format >= _WITH_QUALITY or not change[0].startswith("task_quality")
    ]
    if changes:
        raise ConfigError(
            [
                Problem(
                    f"study {given.study!r}: {where}",
                    "not what the study was begun with",
                    found=repr(new),
                    allowed=repr(old),
                    do="restore it, or name a new study=" if i == 0 else None,
                )
                for i, (where, old, new) in enumerate(changes)
            ]
        )
    return stored


def _part(definition: Definition, name: str) -> Any:
    """Return a part of a definition without what is not compared: the decision, options of commands."""
    value = getattr(definition, name)
    if name == "config":
        return _without_unused({key: inner for key, inner in value.items() if key not in _OTHER})
    if name == "task_quality":
        return {key: inner for key, inner in value.items() if key != "decision"}
    return value


def record_decision(folder: Path, decision: Mapping[str, Any]) -> Definition:
    """Write the decision on task quality to ``study.json``, once.

    Returns:
        The definition with its decision; an earlier decision takes precedence.
    """
    stored = load_definition(folder)
    assert stored is not None, "a study is defined before its score is decided"
    if stored.decision is not None:
        return stored
    quality = {**stored.task_quality, "decision": dict(decision)}
    kept = replace(stored, task_quality=quality, format=FORMAT)
    write_sealed(folder / DEFINITION_FILE, vars(kept))
    return kept


def _with_objectives_of(stored: Definition, given: Definition) -> Definition:
    if changes := list(differences(stored.objectives, given.objectives, "objectives")):
        where, old, new = changes[0]
        raise ConfigError(
            Problem(
                f"study {given.study!r}: {where}",
                "its plain sweeps were scored otherwise",
                found=repr(new),
                allowed=repr(old),
                do="restore it, or name a new study=",
            )
        )
    return given


def differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old value and new value of each difference between two plain values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}")
    elif isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str):
        if list(old) != list(new):
            yield where, old, new
    elif old != new:
        yield where, old, new
