"""Identity of a run: its fingerprint, and the names of its folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.errors import Problem

__all__ = ["EXECUTION_KEYS", "changed_keys", "fingerprint", "folder_problem", "run_name"]

EXECUTION_KEYS = ("runs_dir", "data_dir", "study", "trial", "execution", "labels", "progress")
"""Top-level config keys for where and how a run is executed. They do not affect its result."""


def fingerprint(config: Mapping[str, Any], items: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256 (hex) of everything that defines the result of a run.

    Args:
        config: The resolved config; the keys for where it is run are ignored.
        items: Item file → SHA-256 of its content. Records of an older version have none; their
            fingerprint is that of the config alone.
    """
    defining = {key: value for key, value in config.items() if key not in EXECUTION_KEYS}
    if items:
        defining["items"] = dict(items)
    text = json.dumps(defining, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


_LONGEST = 100
"""Characters of a name: with a seed, a suffix or a stage it stays within every file system's 255."""

_FOLDER = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{_LONGEST - 1}}}")
"""Names of studies, trials and full runs: folders, job names, and words of commands that are printed
and run by shells."""


def folder_problem(where: str, name: str) -> Problem | None:
    """Return the problem of ``name`` as the name of a folder; None if it is valid."""
    if _FOLDER.fullmatch(name):
        return None
    return Problem(
        where,
        "not a folder's name",
        found=repr(name if len(name) <= _LONGEST else f"{name[:40]}… ({len(name)} characters)"),
        allowed=f"letters, digits, '.', '_' and '-', no dot or dash at its beginning, at most {_LONGEST}",
    )


def run_name(trial: str, seed: int) -> str:
    """Return the name of a run's folder inside its study."""
    return f"{trial}-{seed}"


def changed_keys(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys whose values differ; keys that do not define the result are left out."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new and json.dumps(old, default=str) != json.dumps(new, default=str):
            yield prefix
        return
    for key in {*old, *new}:
        if not prefix and key in EXECUTION_KEYS:
            continue
        yield from changed_keys(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
