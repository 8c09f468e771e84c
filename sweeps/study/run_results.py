"""Read the run folders of a study: the only place results are taken from.

    runs/<study>/trial-0007-0/ask.json      what the trial is, written before anything is launched
                              result.json   how the run ended, written last by the run itself

A folder without a result is a run that has not ended: it is running, or something killed it.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from ablations.files import write_sealed
from ablations.record.lease import beats_elsewhere
from ablations.record.run_record import HOLDER, RunRecord, run_name
from ablations.record.stored import stored_as, stored_object
from sweeps.study.trial import Ask, Outcome, trial_name

__all__ = [
    "asks_in",
    "forget_failure",
    "has_lost_its_result",
    "holds_record",
    "is_held",
    "may_be_tried_again",
    "outcome_of",
    "outcomes_of",
    "read_ask",
    "refused_in",
    "run_folder",
    "runs_in",
    "told_of",
    "write_ask",
    "write_failure",
]

_RUN = re.compile(r"trial-(\d{4,})-(\d+)")


def run_folder(folder: Path, ask: Ask, seed: int) -> Path:
    """The folder of one replicate."""
    return folder / run_name(ask.trial, seed)


def write_ask(folder: Path, ask: Ask, seed: int) -> None:
    """Put the ask into a replicate's folder; done before the journal and before the launch."""
    run = run_folder(folder, ask, seed)
    run.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(run / "ask.json"):
        for torn in run.glob(".ask.json.*.tmp"):  # of a driver that died while it wrote this
            torn.unlink()
        write_sealed(run / "ask.json", ask.plain())


def read_ask(path: Path) -> Ask:
    """Return the ask in ``path``.

    Raises:
        DamagedError: it is not what was written.
    """
    plain = stored_object(path)
    stored_as(Ask, plain, path)
    return Ask.from_plain(plain)


def told_of(record: RunRecord) -> dict[str, Any]:
    """Return what a study states of a run: name, phase and first seeds; empty for runs of no study.

    Where the run's own ask is gone it is read from another replicate of its trial, and else from the
    labels of the manifest, which hold no seeds.

    Raises:
        DamagedError: the ask is not what was written.
    """
    manifest = record.manifest
    labels = {key: manifest.labels[key] for key in ("name", "phase") if manifest.labels.get(key)}
    own = record.path / "ask.json"
    others = record.path.parent.glob(f"{glob.escape(manifest.trial)}-*/ask.json")
    for path in (own, *(sorted(others) if labels and not os.path.lexists(own) else ())):
        if os.path.lexists(path):
            return {**labels, **stored_object(path)}
    return labels


def has_lost_its_result(run: Path) -> bool:
    """Return whether a run that is recorded has no result, which one that ended well has written."""
    return RunRecord(run).exists() and not os.path.lexists(run / "result.json")


def runs_in(folder: Path) -> dict[int, set[int]]:
    """Number → seeds of every run folder of the study."""
    found: dict[int, set[int]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _RUN.fullmatch(entry.name)) is not None:
                found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found


def asks_in(folder: Path, numbers: Iterable[int], runs: Mapping[int, set[int]]) -> dict[int, Ask]:
    """The asks of ``numbers``, read from their folders; those without one are left out."""
    asks = {}
    for number in numbers:
        for seed in sorted(runs.get(number, ())):
            path = folder / run_name(trial_name(number), seed) / "ask.json"
            if os.path.lexists(path):
                asks[number] = read_ask(path)
                break
    return asks


def holds_record(folder: Path, number: int, seeds: Iterable[int]) -> bool:
    """Whether a run of trial ``number`` was begun in one of its folders."""
    return any(RunRecord(folder / run_name(trial_name(number), seed)).exists() for seed in seeds)


def outcome_of(folder: Path, ask: Ask, seed: int) -> Outcome | None:
    """How the replicate ended, None while its folder holds no result."""
    record = RunRecord(run_folder(folder, ask, seed))
    result = record.result()
    if result is None:
        return _pruned(record.path, seed)
    cost = result.get("cost") or {}
    return Outcome(
        seed=seed,
        status=result["status"],
        reason=result.get("reason"),
        score=result.get("score"),
        direction=result.get("direction"),
        metrics=result.get("metrics") or {},
        tokens=float(result.get("tokens") or 0.0),
        flops=float(cost.get("flops") or 0.0),
        device_seconds=float(cost.get("wall_seconds") or 0.0) * _devices(record),
    )


def may_be_tried_again(outcome: Outcome, run: Path) -> bool:
    """Return whether the same command launches this run again.

    A failed run is tried again, because its cause may be mended: a missing package, a full disk, a
    killed node. One that diverged is not: the same seed diverges at the same step.
    """
    if outcome.status != "failed":
        return False
    return not any(event["kind"] == "diverged" for event in RunRecord(run).events())


def forget_failure(run: Path) -> None:
    """Remove the result of a run that is about to be tried again; its events keep the reason."""
    path = run / "result.json"
    if os.path.lexists(path) and stored_object(path).get("status") == "failed":
        path.unlink()


def write_failure(run: Path, reason: str) -> None:
    """Record a run that ended without recording it: killed, or refused before it began.

    The result is written last, so a driver that dies here records the same failure later.
    """
    record = RunRecord(run)
    record.event("failed", reason=reason)
    if record.exists():
        record.set_status("failed", reason)
    record.write_result({"status": "failed", "reason": reason, "score": None, "metrics": {}})


def refused_in(folder: Path) -> dict[str, str]:
    """Return run folder → reason of each run of a study that failed before it had a record."""
    found = {}
    for ask in sorted(folder.glob("trial-*/ask.json")):
        record = RunRecord(ask.parent)
        try:
            result = None if record.exists() else record.result()
        except UserError:  # it is told as a damaged run
            continue
        if result is not None and result.get("status") == "failed":
            found[ask.parent.name] = str(result.get("reason") or "no reason was recorded")
    return found


def _pruned(run: Path, seed: int) -> Outcome | None:
    """The outcome of a run that the study ended by its own rule."""
    path = run / "pruned.json"
    if not os.path.lexists(path) or _is_locked(run):
        return None
    return Outcome(seed=seed, status="pruned", reason=stored_object(path).get("reason"))


def outcomes_of(folder: Path, ask: Ask, seeds: Iterable[int]) -> dict[int, Outcome]:
    """Seed → outcome of the replicates that ended."""
    found = {seed: outcome_of(folder, ask, seed) for seed in seeds}
    return {seed: outcome for seed, outcome in found.items() if outcome is not None}


def _devices(record: RunRecord) -> int:
    """Devices that the run held: data × tensor × pipeline parallel ranks."""
    if not record.exists():
        return 1
    execution: Mapping[str, Any] = record.manifest.config.get("execution") or {}
    return int(execution.get("dp", 1)) * int(execution.get("tp", 1)) * int(execution.get("pp", 1))


def is_held(run: Path) -> bool:
    """Whether a live process works on the run: an orphan of a killed driver, or another user's."""
    return _is_locked(run) or beats_elsewhere(run / HOLDER)


def _is_locked(run: Path) -> bool:
    from filelock import FileLock, Timeout

    if not (run / "lock").exists():
        return False
    lock = FileLock(run / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
