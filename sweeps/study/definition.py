"""``study.json``: what a study is. Written once; a command that says something else is refused.

What a study asks (space, strategy, objectives, constraints, seeds, the config its runs share) is
its definition. What it may spend and how it is run (budget, confirmation, workers, tolerance for
failures, launcher, devices) is not: those may change from one command to the next.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, DamagedError, Problem
from ablations.files import write_sealed
from ablations.record.stored import stored_as, stored_object

__all__ = [
    "DEFINITION_FILE",
    "FORMAT",
    "Definition",
    "differences",
    "load_definition",
    "record_decision",
    "settle_definition",
    "shared_config",
    "stored_definition",
]

DEFINITION_FILE = "study.json"

FORMAT = 3
"""Version of ``study.json``; a reader refuses a newer one. From 2 on ``config.source`` holds every
source that the runs name, not the overrides alone; from 3 on ``task_quality`` is there."""

_WITH_SOURCES = 2
_WITH_QUALITY = 3
_COMPARED = ("space", "strategy", "objectives", "constraints", "task_quality", "seeds", "config")
_ELSEWHERE = ("runs_dir", "data_dir", "study", "trial", "seed", "execution", "labels", "progress")
"""Top-level config keys that say where and how runs are executed; ``seed`` is the replicates'."""
_OTHER = ("search", "hydra", "experiment", "config_dirs", "out", "promotion")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What ``study.json`` holds."""

    study: str
    question: str
    space: Mapping[str, Any] | None
    """The search space, plain; None for a study of plain Hydra sweeps."""
    strategy: Mapping[str, Any]
    objectives: Mapping[str, Any]
    constraints: Mapping[str, Any]
    seeds: Sequence[int]
    """Replicates of every explored trial."""
    config: Mapping[str, Any]
    """What all runs share: the composed config without what is searched and where it runs."""
    arguments: Sequence[str]
    """The command that began the study."""
    created: float = 0.0
    format: int = FORMAT
    task_quality: Mapping[str, Any] = field(default_factory=dict)
    """``search.task_quality``, plain, and under ``decision`` what was decided and when."""

    @property
    def decision(self) -> Mapping[str, Any] | None:
        """Return the decision on task quality; None where none was made."""
        return self.task_quality.get("decision")


def shared_config(plain: Mapping[str, Any], searched: Sequence[str]) -> dict[str, Any]:
    """The part of a composed config that all runs of a study have in common."""
    kept = {key: value for key, value in plain.items() if key not in (*_ELSEWHERE, *_OTHER)}
    return {key: _without(value, key, set(searched)) for key, value in kept.items()}


def _without(value: Any, path: str, searched: set[str]) -> Any:
    if path in searched:
        return "searched"
    if isinstance(value, Mapping):
        return {key: _without(inner, f"{path}.{key}", searched) for key, inner in value.items()}
    return value


def load_definition(folder: Path) -> Definition | None:
    """Return the definition in ``folder``, None for a folder of plain runs.

    Raises:
        ConfigError: a newer version of the platform wrote it.
        DamagedError: it is not what was written, or missing beside the journal of a study.
    """
    if _lost(folder):
        raise DamagedError(
            Problem(
                str(folder / DEFINITION_FILE),
                "missing: the journal of the study is there",
                do="restore it from a copy, or give the study's command again, which writes it",
            )
        )
    return stored_definition(folder)


def _lost(folder: Path) -> bool:
    """Return whether the folder is a study's and its definition is gone."""
    return not os.path.lexists(folder / DEFINITION_FILE) and (folder / "journal.log").exists()


def stored_definition(folder: Path) -> Definition | None:
    """Return the definition in ``folder``, None where there is no such file.

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


def settle_definition(folder: Path, asked: Definition) -> Definition:
    """The definition that the study keeps: the stored one, or ``asked`` where there is none yet.

    A plain sweep adds trials to any study that scores in the same way. A search takes over a study
    that held plain sweeps alone.

    Raises:
        ConfigError: the study was defined otherwise; every difference is named.
    """
    stored = stored_definition(folder)
    if _lost(folder):
        print(
            f"{folder / DEFINITION_FILE}: missing; written again from this command", file=sys.stderr
        )
    if stored is None or (stored.space is None and asked.space is not None):
        kept = asked if stored is None else _with_objectives_of(stored, asked)
        write_sealed(folder / DEFINITION_FILE, {**vars(kept), "created": time.time()})
        return kept
    compared = ("objectives",) if asked.space is None else _COMPARED
    changes = [
        change
        for name in compared
        for change in differences(_asked(stored, name), _asked(asked, name), name)
        if stored.format >= _WITH_SOURCES or not change[0].startswith("config.source")
        if stored.format >= _WITH_QUALITY or not change[0].startswith("task_quality")
    ]
    if changes:
        raise ConfigError(
            [
                Problem(
                    f"study {asked.study!r}: {where}",
                    "not what the study was begun with",
                    found=repr(new),
                    allowed=repr(old),
                    do="restore it, or name a new study=" if i == 0 else None,
                )
                for i, (where, old, new) in enumerate(changes)
            ]
        )
    return stored


def _asked(definition: Definition, name: str) -> Any:
    """Return a part of a definition without the decision, which no command asks for."""
    value = getattr(definition, name)
    if name == "task_quality":
        return {key: inner for key, inner in value.items() if key != "decision"}
    return value


def record_decision(folder: Path, decision: Mapping[str, Any]) -> Definition:
    """Keep the decision on task quality in ``study.json``, once.

    Returns:
        The definition with the decision that counts: an earlier one where there is one.
    """
    stored = load_definition(folder)
    assert stored is not None, "a study is defined before anything is decided in it"
    if stored.decision is not None:
        return stored
    quality = {**stored.task_quality, "decision": dict(decision)}
    kept = replace(stored, task_quality=quality, format=FORMAT)
    write_sealed(folder / DEFINITION_FILE, vars(kept))
    return kept


def _with_objectives_of(stored: Definition, asked: Definition) -> Definition:
    if changes := list(differences(stored.objectives, asked.objectives, "objectives")):
        where, old, new = changes[0]
        raise ConfigError(
            Problem(
                f"study {asked.study!r}: {where}",
                "its plain sweeps were scored otherwise",
                found=repr(new),
                allowed=repr(old),
                do="restore it, or name a new study=",
            )
        )
    return asked


def differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Path, old and new value of everything in which two plain values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}")
    elif isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str):
        if list(old) != list(new):
            yield where, old, new
    elif old != new:
        yield where, old, new
