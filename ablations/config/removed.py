"""Options that were removed or are not offered: refuse them with the reason, and read old records with them.

A command that still asks for one gets one line with the reason. An older record holds the option as it
was then; none of them changed what a run is, so a reader leaves it out::

    command, config ──removed_problems──▶ refused          record, study ──without_removed──▶ read
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablations.errors import Problem

__all__ = [
    "MOVED",
    "removed_option",
    "removed_problems",
    "without_removed",
    "without_removed_overrides",
]

_GRAPH = "was removed: recorded passes trained 1.00 to 1.03 times as fast, too little to keep (docs/gpu.md)"
_GROUP = "was removed: batched proxies trained 1.02 to 1.05 times as fast, too little to keep (docs/gpu.md)"

_REMOVED = {"execution.cuda_graph": _GRAPH, "hydra.launcher.together": _GROUP}
"""Key → reason for its removal."""

_PACKING = (
    "is not offered: TRL's packing reorders the rows of all sources, so that shares are no longer exact; "
    "a batch is padded to its longest row (docs/post_training.md)"
)
_NOT_OFFERED = {
    f"method.{key}": _PACKING for key in ("packing", "packing_strategy", "padding_free")
}
"""Key of another trainer → reason why it is not offered."""

MOVED = {key: f"prepare.{key}" for key in ("workers", "force", "contamination", "mirror", "slurm")}
"""Key at the top of a run's config → the key that replaced it."""

_RENAMED = {"execution=gpu_small": "execution=gpu"}
"""Option of a group that asked for a removed key → the option that is the same without it."""


def removed_option(key: str) -> Problem | None:
    """Return why ``key`` is gone, None where it was not removed.

    Args:
        key: A config key (``execution.cuda_graph``), or an option of a group (``execution=gpu_small``).
    """
    if key in _RENAMED:
        return Problem(key, _GRAPH, do=f"write {_RENAMED[key]}")
    if (moved := _moved(key)) is not None:
        return Problem(key, "has moved", do=f"write {moved}=…")
    reason = _REMOVED.get(key) or _NOT_OFFERED.get(key)
    return Problem(key, reason, do="take it out") if reason else None


def removed_problems(config: Mapping[str, Any], launcher: Any = None) -> list[Problem]:
    """Return each removed option that a composed config still asks for; one that is off asks nothing.

    Args:
        config: The config of a run.
        launcher: The options of ``hydra.launcher``, where they are at hand.
    """
    sections = {
        "execution": config.get("execution"),
        "method": config.get("method"),
        "hydra.launcher": launcher,
    }
    problems = [
        Problem(key, "has moved", do=f"write {moved}")
        for key, moved in MOVED.items()
        if key in config
    ]
    for key, reason in (_REMOVED | _NOT_OFFERED).items():
        section, _, name = key.rpartition(".")
        values = sections[section]
        if isinstance(values, Mapping) and values.get(name):
            problems.append(Problem(key, reason, found=values[name], do="take it out"))
    return problems


def without_removed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain config without removed keys."""
    execution = config.get("execution")
    if not isinstance(execution, Mapping) or "cuda_graph" not in execution:
        return dict(config)
    kept = {key: value for key, value in execution.items() if key != "cuda_graph"}
    return {**config, "execution": kept}


def without_removed_overrides(overrides: Iterable[str]) -> Sequence[str]:
    """Return the task overrides of a recorded trial as they are written today."""
    kept = []
    for override in overrides:
        key, assigned, value = override.lstrip("+").partition("=")
        if key not in _REMOVED:
            moved = _moved(key)
            new = override if moved is None else f"{moved}{assigned}{value}"
            kept.append(_RENAMED.get(override, new))
    return kept


def _moved(key: str) -> str | None:
    """Return the key that replaced ``key``; None if it has not moved."""
    first, dot, rest = key.partition(".")
    return f"{MOVED[first]}{dot}{rest}" if first in MOVED else None
