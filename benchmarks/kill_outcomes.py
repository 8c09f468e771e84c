"""Content of a folder after a command, killed or not: both must be the same.

Dates, hosts, process ids, durations and costs are left out, and so are logs and lock files. What is repeated
is counted apart: rows of scores, trials of a journal, and runs, promotions or exports too many.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Difference", "Picture", "compare", "picture"]

_VOLATILE = frozenset(
    (
        *("created", "started", "finished", "host", "pid", "time", "at", "began", "ended", "beat"),
        *("wall_seconds", "train_cpu_seconds", "eval_cpu_seconds", "seconds", "cpu_seconds"),
        *(
            "tokens_per_second",
            "content_sha256",
            "token",
            "gpu_hours",
            "datetime_start",
            "git_commit",
        ),
    )
)
_OF_ITS_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([+-]\d{4})?"
    r"|\d+(\.\d+)? (CPU[- ])?(seconds|s|minutes|min|hours|h)\b"
)
_RESUMED = re.compile(r"^ *resume_checkpoint_path: .*$", re.M)
"""In the config that nanotron keeps in a checkpoint: what the process that wrote it had resumed from."""
_NOT_LOOKED_AT = ("lock", "events.jsonl", "out.txt", "ledger.json", "checksums.json")
_NOT_READ = (".html", ".verified.json")
"""Compared by their names alone: pages carry every run's times, and notes the times of their files."""


@dataclass(frozen=True)
class Picture:
    """Content of a folder."""

    files: dict[str, str]
    """Path → digest of what does not change from one time to the next."""
    twice: tuple[str, ...]
    """Entries that stand there more than once."""


@dataclass
class Difference:
    """Differences of a folder from the undisturbed one."""

    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Temporary files, and processes."""


def picture(where: Path) -> Picture:
    """Read everything below ``where``."""
    files: dict[str, str] = {}
    twice: list[str] = []
    for path in sorted(where.rglob("*")):
        name = path.relative_to(where).as_posix()
        if path.is_dir():
            if not any(path.iterdir()) and not name.startswith("tmp"):
                files[f"{name}/"] = "an empty folder"
            continue
        if path.name in _NOT_LOOKED_AT or path.name.endswith(".lock"):
            continue
        if name.startswith("tmp/ablations-task-"):
            continue  # the next task but a minute later removes it (ablations.training.training_process)
        if path.name.endswith(".log") and path.name != "journal.log":
            continue
        files[name] = _digest(path)
        twice += (f"{name}: {what}" for what in _twice(path))
    return Picture(files, tuple(twice))


def compare(calm: Picture, hit: Picture) -> Difference:
    """Return the differences of ``hit`` from ``calm``."""
    found = Difference(repeated=list(hit.twice))
    found.lost = sorted(calm.files.keys() - hit.files.keys())
    made_before = _made(calm)
    for name in sorted(hit.files.keys() - calm.files.keys()):
        made = _of(name)
        if made is not None and made not in made_before:
            found.repeated.append(made)
        else:
            found.left.append(name)
    found.repeated = sorted(set(found.repeated))
    both = calm.files.keys() & hit.files.keys()
    found.differing = sorted(name for name in both if calm.files[name] != hit.files[name])
    return found


def _made(seen: Picture) -> set[str]:
    return {made for name in seen.files if (made := _of(name)) is not None}


def _of(name: str) -> str | None:
    """The run, promotion or export that a file belongs to."""
    parts = name.split("/")
    depth = {"runs": 3, "promotions": 2, "exports": 2}.get(parts[0], len(parts))
    if len(parts) <= depth or any(part.startswith(".") for part in parts[:depth]):
        return None
    return "/".join(parts[:depth])


def _digest(path: Path) -> str:
    if path.name.endswith(_NOT_READ):
        return "there"
    content = path.read_bytes()
    if path.name == "metrics.jsonl":
        content = _plain({row["step"]: row for row in _rows(path)})
    elif path.name == "journal.log":
        content = _plain(_trials(path))
    elif path.suffix == ".jsonl" and path.parts[-3:-2] != ("data",):
        content = _plain(sorted(json.dumps(_steady(row), sort_keys=True) for row in _rows(path)))
    elif path.suffix == ".json":
        content = _plain(json.loads(content))
    elif path.suffix == ".safetensors":
        content = _tensors(content)
    elif path.suffix in (".md", ".yaml"):
        content = _OF_ITS_TIME.sub("…", _RESUMED.sub("", content.decode())).encode()
    return hashlib.sha256(content).hexdigest()


def _tensors(content: bytes) -> bytes:
    """A safetensors file whose header is in order: its writer keeps metadata in a hash map."""
    (length,) = struct.unpack("<Q", content[:8])
    return _plain(json.loads(content[8 : 8 + length])) + content[8 + length :]


def _plain(value: Any) -> bytes:
    return json.dumps(_steady(value), sort_keys=True).encode()


def _steady(value: Any) -> Any:
    """A JSON value without what differs from one time to the next."""
    if isinstance(value, dict):
        return {str(key): _steady(item) for key, item in value.items() if key not in _VOLATILE}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _trials(path: Path) -> list[Any]:
    """Specification of each trial in a journal, with its last state."""
    specs: list[Any] = []
    states: dict[int, Any] = {}
    for row in _rows(path):
        if row["op_code"] == 4:
            specs.append(row["user_attrs"]["ask"])
        elif row["op_code"] == 6:  # the last word of a trial
            states[row["trial_id"]] = [row["state"], row["values"]]
    return [[spec, states.get(number)] for number, spec in enumerate(specs)]


def _twice(path: Path) -> Iterator[str]:
    """Return what is in a file more than once and must not be."""
    if path.name == "scores.jsonl":
        found = Counter(f"scores of step {row['step']}" for row in _rows(path))
    elif path.name == "journal.log":
        found = Counter(f"trial {spec['number']}" for spec, _ in _trials(path))
    else:
        return
    yield from (what for what, count in found.items() if count > 1)
