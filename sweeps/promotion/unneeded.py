"""Find what a runs folder no longer needs: checkpoints and exports of losing trials, and leftovers.

Records, scores and details are never among it. The checkpoints of a run stay if anything refers to it:

    its study is running, or has no verdict yet       the run has not ended, or can still be scored
    the verdict's pick, baseline, reference, finalists  a promotion      a warm start of another run

The checkpoints of a trunk go with its study's verdict: each run that began from it has its own links to them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablations.errors import UserError
from ablations.record.run_record import RunRecord, list_runs
from ablations.record.stored import stored_object
from ablations.temporary import is_left, remove_folder
from ablations.trunks import TRUNK_FILE, trunks_dir
from sweeps.study.definition import load_definition
from sweeps.study.run_results import is_held
from sweeps.study.stopping import is_driven
from sweeps.verdict.verdict_record import read_verdict

__all__ = ["Unneeded", "find_unneeded", "remove"]


@dataclass(frozen=True, kw_only=True)
class Unneeded:
    """A folder or file that can go."""

    path: Path
    kind: Literal["checkpoints", "exports", "leftovers"]
    size: int
    """Bytes."""


def find_unneeded(
    runs_dir: Path, promotions: Path, study: str | None = None
) -> tuple[list[Unneeded], dict[str, str]]:
    """Return what can go, and run → the reason why its checkpoints stay.

    Args:
        runs_dir: Folder of all studies.
        promotions: Parent folder of the promotions.
        study: Look at this study alone.
    """
    every = list_runs(runs_dir)
    referenced = {**_promoted(promotions), **_begun_from(every)}
    found: list[Unneeded] = []
    kept: dict[str, str] = {}
    needed: dict[Path, tuple[str | None, frozenset[str]]] = {}
    for record in every:
        folder = record.path.parent
        if study is not None and folder.name != study:
            continue
        if folder not in needed:
            needed[folder] = _study(folder)
        reason = _reason(record, referenced, *needed[folder])
        if reason is None:
            found += _of_run(record)
        elif _of_run(record):
            kept[record.name] = reason
    for folder, (why, _) in needed.items():
        found += [] if why is not None else _of_trunks(folder)
    roots = [runs_dir / study] if study is not None else [runs_dir, promotions]
    found += [one for root in roots for one in _left(root)]
    return found, kept


def remove(unneeded: Unneeded) -> None:
    """Remove a folder or a file; a reader sees all of it or nothing."""
    if unneeded.path.is_dir() and not unneeded.path.is_symlink():
        remove_folder(unneeded.path)
    else:
        unneeded.path.unlink(missing_ok=True)


def _study(folder: Path) -> tuple[str | None, frozenset[str]]:
    """Return why all runs of a study keep their checkpoints, and the trials that keep them anyway."""
    try:
        if load_definition(folder) is None:
            return "not a trial of a search", frozenset()
        verdict = read_verdict(folder)
    except UserError:
        return "its study has no verdict yet", frozenset()
    if is_driven(folder):
        return "its study is running", frozenset()
    named = {verdict.pick, verdict.baseline, verdict.reference, *verdict.finalists}
    return None, frozenset(
        row.trial for row in verdict.candidates if row.finalist or row.name in named
    )


def _reason(
    record: RunRecord, referenced: Mapping[Path, str], study: str | None, finalists: frozenset[str]
) -> str | None:
    """Return why a run keeps its checkpoints; None if it does not need them."""
    if (why := referenced.get(record.path.resolve())) is not None:
        return why
    if study is not None:
        return study
    try:
        manifest, result = record.manifest, record.result() or {}
    except (UserError, OSError):
        return "its record is damaged"
    if is_held(record.path):
        return "a process works on it"
    if result.get("status") != "done":
        return "it has not ended"
    if (manifest.config.get("evaluation") or {}).get("score") and result.get("score") is None:
        return "it can still be scored"
    return "the verdict names its trial" if manifest.trial in finalists else None


def _promoted(promotions: Path) -> dict[Path, str]:
    """Return the folder of each run that a promotion names → the reason."""
    found: dict[Path, str] = {}
    for path in sorted(promotions.glob("*/promotion.json")):
        record = stored_object(path)
        provenance = record.get("provenance") or {}
        names = [one["name"] for one in provenance.get("runs") or ()]
        names += list(provenance.get("counted_runs") or ())
        for name in names:
            named = name if "/" in name else f"{record.get('study')}/{name}"
            run = Path(str(provenance.get("runs_dir", ""))) / named
            found[run.resolve()] = f"the promotion {path.parent.name} names it"
    return found


def _begun_from(records: list[RunRecord]) -> dict[Path, str]:
    """Return the folder of each run from whose checkpoint another begins → the reason."""
    found: dict[Path, str] = {}
    for record in records:
        try:
            start: Mapping[str, Any] = record.manifest.config.get("warm_start") or {}
        except (UserError, OSError):
            continue
        if checkpoint := start.get("checkpoint"):
            found[Path(str(checkpoint)).resolve().parents[1]] = f"{record.name} began from it"
    return found


def _of_run(record: RunRecord) -> list[Unneeded]:
    kinds: tuple[tuple[Path, Literal["checkpoints", "exports"]], ...] = (
        (record.checkpoints_dir, "checkpoints"),
        (record.exports_dir, "exports"),
    )
    return [
        Unneeded(path=path, kind=kind, size=_size(path))
        for parent, kind in kinds
        if parent.is_dir()
        for path in sorted(parent.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    ]


def _of_trunks(study: Path) -> list[Unneeded]:
    """Return the checkpoints of the study's trunks that have ended; a later run trains its trunk anew."""
    ended = sorted(trunks_dir(study).glob(f"*/{TRUNK_FILE}"))
    return [one for path in ended for one in _of_run(RunRecord(path.parent))]


def _left(root: Path) -> Iterator[Unneeded]:
    for path in sorted(root.rglob(".*.tmp")) if root.is_dir() else ():
        if is_left(path):
            yield Unneeded(path=path, kind="leftovers", size=_size(path))


def _size(path: Path) -> int:
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    inner = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    states = [file.lstat() for file in inner]
    # A run that began from a trunk links its files: each link is a part, and all of them are the whole.
    return sum(state.st_size // state.st_nlink for state in states)
