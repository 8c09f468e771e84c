"""Read and write the run folders of a study, the only source of results.

    runs/<study>/trial-0007-0/trial.json    specification of the trial, written before the launch
                              result.json   end of the run, written last by the run itself

A folder without a result belongs to a run that has not ended: it is still running, or it was killed.
Older versions wrote ``ask.json`` in place of ``trial.json``; :func:`trial_file` finds both.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from ablations.files import write_sealed
from ablations.record.identity import run_name
from ablations.record.lease import beats_elsewhere
from ablations.record.paused import paused_at
from ablations.record.run_record import HOLDER, Manifest, RunRecord
from ablations.record.stored import stored_as, stored_object
from sweeps.study.trial import Outcome, TrialSpec, trial_name

__all__ = [
    "folders_by_trial",
    "forget_failure",
    "has_lost_its_result",
    "holds_record",
    "is_held",
    "may_be_tried_again",
    "outcome_of",
    "outcomes_of",
    "read_trial_spec",
    "refused_in",
    "run_folder",
    "runs_in",
    "trial_fields",
    "trial_file",
    "trial_specs_in",
    "write_failure",
    "write_trial_spec",
]

_RUN = re.compile(r"trial-(\d{4,})-(\d+)")
_TRIAL, _FORMER_TRIAL = "trial.json", "ask.json"


def run_folder(folder: Path, spec: TrialSpec, seed: int) -> Path:
    """Return the folder of one run."""
    return folder / run_name(spec.trial, seed)


def trial_file(run: Path) -> Path:
    """Return the path of the trial's specification in a run folder, whether or not it exists."""
    path, former = run / _TRIAL, run / _FORMER_TRIAL
    return path if os.path.lexists(path) or not os.path.lexists(former) else former


def write_trial_spec(folder: Path, spec: TrialSpec, seed: int) -> None:
    """Write the specification into a run folder, before the journal line and the launch."""
    run = run_folder(folder, spec, seed)
    run.mkdir(parents=True, exist_ok=True)
    path = trial_file(run)
    if not os.path.lexists(path):
        for name in (_TRIAL, _FORMER_TRIAL):  # left by a driver that died while it wrote the file
            for torn in run.glob(f".{name}.*.tmp"):
                torn.unlink()
        write_sealed(path, spec.plain())


def read_trial_spec(path: Path) -> TrialSpec:
    """Return the specification in ``path``.

    Raises:
        DamagedError: it is not what was written.
    """
    plain = stored_object(path)
    stored_as(TrialSpec, plain, path)
    return TrialSpec.from_plain(plain)


def folders_by_trial(study: Path) -> dict[str, list[Path]]:
    """Return trial → folders of its runs, by name, from one listing of a study's folder."""
    found: dict[str, list[Path]] = {}
    for name in sorted(os.listdir(study)):
        found.setdefault(name.rpartition("-")[0], []).append(study / name)
    return found


def trial_fields(
    record: RunRecord,
    manifest: Manifest | None = None,
    folders: Mapping[str, Sequence[Path]] | None = None,
) -> dict[str, Any]:
    """Return the fields of a run's trial: name, phase, first seeds; empty for runs of no study.

    If the run's own file is missing, the file of another replicate is read. Failing that, name and
    phase come from the labels of the manifest, which contain no seeds.

    Args:
        record: Record of the run.
        manifest: Its manifest if that was read already.
        folders: What :func:`folders_by_trial` returns, if that was read already.

    Raises:
        DamagedError: the file is not what was written.
    """
    if manifest is None and record.exists():
        manifest = record.manifest
    recorded = manifest.labels if manifest is not None else {}
    labels = {key: recorded[key] for key in ("name", "phase") if recorded.get(key)}
    own = trial_file(record.path)
    if os.path.lexists(own):
        return {**labels, **stored_object(own)}
    if labels:
        trial = record.path.name.rpartition("-")[0]
        runs = (folders or folders_by_trial(record.path.parent)).get(trial, ())
        for path in map(trial_file, runs):
            if os.path.lexists(path):
                return {**labels, **stored_object(path)}
    return labels


def has_lost_its_result(run: Path) -> bool:
    """Return whether a run has a manifest and no result: it has not ended, or the result is lost."""
    return RunRecord(run).exists() and not os.path.lexists(run / "result.json")


def runs_in(folder: Path) -> dict[int, set[int]]:
    """Return trial number → seeds of every run folder of the study."""
    found: dict[int, set[int]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _RUN.fullmatch(entry.name)) is not None:
                found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found


def trial_specs_in(
    folder: Path, numbers: Iterable[int], runs: Mapping[int, set[int]]
) -> dict[int, TrialSpec]:
    """Return number → specification, read from the run folders; trials without one are left out."""
    specs = {}
    for number in numbers:
        for seed in sorted(runs.get(number, ())):
            path = trial_file(folder / run_name(trial_name(number), seed))
            if os.path.lexists(path):
                specs[number] = read_trial_spec(path)
                break
    return specs


def holds_record(folder: Path, number: int, seeds: Iterable[int]) -> bool:
    """Return whether any of the trial's run folders contains a record."""
    return any(RunRecord(folder / run_name(trial_name(number), seed)).exists() for seed in seeds)


def outcome_of(folder: Path, spec: TrialSpec, seed: int) -> Outcome | None:
    """Return the outcome of a run; None while its folder contains no result."""
    record = RunRecord(run_folder(folder, spec, seed))
    result = record.result()
    if result is None:
        result = paused_at(record) if spec.pauses and seed in spec.seeds else None
    if result is None:
        return _pruned(record.path, seed)
    cost = result.get("cost") or {}
    low_score, low_metrics = _at_rung(record, spec, result)
    return Outcome(
        seed=seed,
        status=result["status"],
        reason=result.get("reason"),
        score=result.get("score"),
        direction=result.get("direction"),
        metrics=result.get("metrics") or {},
        tokens=float(result.get("tokens") or 0.0) - _shared_tokens(result),
        flops=float(cost.get("flops") or 0.0),
        device_seconds=float(cost.get("wall_seconds") or 0.0) * _devices(record),
        low_score=low_score,
        low_metrics=low_metrics,
    )


def _shared_tokens(result: Mapping[str, Any]) -> float:
    """Return the tokens of a run that were trained in a trunk, whose cost is counted once."""
    return float((result.get("trunk") or {}).get("tokens") or 0.0)


def _at_rung(
    record: RunRecord, spec: TrialSpec, result: Mapping[str, Any]
) -> tuple[float | None, Mapping[str, float | None]]:
    """Return score and metrics of a run at the low rung: a full run passed it on its way."""
    if result["status"] == "paused":
        return result.get("score"), result.get("metrics") or {}
    if spec.rung is None or result["status"] != "done":
        return None, {}
    for row in record.scores():
        if abs(row["tokens"] - spec.rung) < 0.5:
            named = row.get("metrics") or {}
            return row.get("score"), {
                f"{task}/{name}": metric["value"]
                for task, metrics in named.items()
                for name, metric in metrics.items()
            }
    return None, {}


def may_be_tried_again(outcome: Outcome, run: Path) -> bool:
    """Return whether the same command may launch this run again.

    A failed run is tried again, because its cause may be fixed by now: a missing package, a full
    disk, a killed node. A diverged run is not, because the same seed diverges at the same step.
    """
    if outcome.status != "failed":
        return False
    return not any(event["kind"] == "diverged" for event in RunRecord(run).events())


def forget_failure(run: Path) -> None:
    """Remove the result of a failed run before it is tried again; its events keep the reason."""
    path = run / "result.json"
    if os.path.lexists(path) and stored_object(path).get("status") == "failed":
        path.unlink()


def write_failure(run: Path, reason: str) -> None:
    """Record the failure of a run that recorded none itself: killed, or refused before it began.

    The result is written last: if the driver dies here, the next one records the same failure.
    """
    record = RunRecord(run)
    record.event("failed", reason=reason)
    if record.exists():
        record.set_status("failed", reason)
    record.write_result({"status": "failed", "reason": reason, "score": None, "metrics": {}})


def refused_in(folder: Path) -> dict[str, str]:
    """Return run folder → reason of each run of a study that failed before it had a record."""
    found = {}
    for run in _runs_without_record(folder):
        if not os.path.lexists(trial_file(run)):
            continue
        try:
            result = RunRecord(run).result()
        except UserError:  # listed as a damaged run elsewhere
            continue
        if result is not None and result.get("status") == "failed":
            found[run.name] = str(result.get("reason") or "no reason was recorded")
    return found


def _runs_without_record(folder: Path) -> list[Path]:
    """Return the run folders of a study that have no manifest, by name."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.startswith("trial-"))
        return [
            folder / name for name in names if not os.path.lexists(f"{folder}/{name}/manifest.json")
        ]
    return []


def _pruned(run: Path, seed: int) -> Outcome | None:
    """Return the outcome of a run that the pruner ended; None for other runs."""
    path = run / "pruned.json"
    if not os.path.lexists(path) or _is_locked(run):
        return None
    return Outcome(seed=seed, status="pruned", reason=stored_object(path).get("reason"))


def outcomes_of(folder: Path, spec: TrialSpec, seeds: Iterable[int]) -> dict[int, Outcome]:
    """Return seed → outcome of the runs that ended."""
    found = {seed: outcome_of(folder, spec, seed) for seed in seeds}
    return {seed: outcome for seed, outcome in found.items() if outcome is not None}


def _devices(record: RunRecord) -> int:
    """Return the number of devices of the run: data × tensor × pipeline parallel ranks."""
    if not record.exists():
        return 1
    execution: Mapping[str, Any] = record.manifest.config.get("execution") or {}
    return int(execution.get("dp", 1)) * int(execution.get("tp", 1)) * int(execution.get("pp", 1))


def is_held(run: Path) -> bool:
    """Return whether a live process works on the run: an orphan of a killed driver, or another user's."""
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
