"""Run records: the files of one training on disk, and the only code that reads and writes them.

    runs/<study>/<trial>-<seed>/
        manifest.json  config.yaml  metrics.jsonl  events.jsonl  scores.jsonl  details/  checkpoints/
        exports/  audit.json  result.json  worker.log

A record answers three questions without opening a checkpoint: what was asked (``manifest.json``),
how far it got (``status``, ``metrics()``), and what came out (``result()``)::

    for record in list_runs(Path("runs"), study="demo"):
        print(record.name, record.status, record.result().get("score"))
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ablations.errors import ConfigError, DamagedError, HeldError, Problem
from ablations.files import (
    append_json_line,
    mend_lines,
    read_json_lines,
    write_sealed,
    write_text,
)
from ablations.record.checksums import listed
from ablations.record.identity import changed_keys, fingerprint, run_name
from ablations.record.lease import forget_dead, hold
from ablations.record.provenance import git_commit, queue_job, versions
from ablations.record.stored import damaged, result_fault, stored_as, stored_object

__all__ = [
    "FORMAT",
    "HOLDER",
    "Manifest",
    "RunRecord",
    "Status",
    "list_runs",
]

FORMAT = 1
"""Version of the record layout; a reader refuses a newer one."""

HOLDER = "holder.json"
"""The lease of the process that works on a run."""

Status = Literal["pending", "training", "scoring", "paused", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Definition and status of a run."""

    study: str
    trial: str
    seed: int
    fingerprint: str
    config: Mapping[str, Any]
    """The resolved config, plain values only."""
    items: Mapping[str, str] = field(default_factory=dict)
    """Item file → SHA-256 of the items that the run is scored on; empty in older records."""
    status: Status = "pending"
    reason: str | None = None
    """Reason of a failure; None for a run that did not fail."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Labels from the study: the trial's name, phase and parameters."""
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    command: Sequence[str] = ()
    """The arguments of the process that began the run."""
    created: float = 0.0
    """Seconds since the epoch, as the two below."""
    started: float | None = None
    finished: float | None = None
    host: str = ""
    pid: int = 0
    format: int = FORMAT


class RunRecord:
    """One run folder."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunRecord({str(self.path)!r})"

    # ------------------------------------------------------------------------------- identity

    @classmethod
    def at(cls, runs_dir: Path, *, study: str, trial: str, seed: int) -> RunRecord:
        """Return the record of a run where it is, or would be made."""
        return cls(Path(runs_dir) / study / run_name(trial, seed))

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        *,
        study: str,
        trial: str,
        seed: int,
        config: Mapping[str, Any],
        items: Mapping[str, str] | None = None,
        config_yaml: str = "",
        labels: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Open the record of a run, making it when it is new.

        Of two fingerprints that differ in items alone, those items count that both know: a record
        without any, of an older version, is the run of its config. It takes the items up while it is
        not done.

        Raises:
            ConfigError: the folder holds a run of another fingerprint; nothing is overwritten.
        """
        record = cls.at(runs_dir, study=study, trial=trial, seed=seed)
        mark = fingerprint(config, items)
        if record.exists():
            record._open_as(mark, config, items or {})
            return record
        record.path.mkdir(parents=True, exist_ok=True)
        write_text(record.path / "config.yaml", config_yaml)
        manifest = Manifest(
            study=study,
            trial=trial,
            seed=seed,
            fingerprint=mark,
            config=config,
            items=items or {},
            labels=labels or {},
            versions=versions(),
            git_commit=git_commit(),
            command=tuple(sys.argv),
            created=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        record._write(manifest)
        return record

    def _open_as(self, mark: str, config: Mapping[str, Any], items: Mapping[str, str]) -> None:
        manifest = self.manifest
        if manifest.fingerprint == mark:
            return
        changed = sorted(changed_keys(manifest.config, config))
        known = manifest.items
        changed += [f"items.{name}" for name in sorted(items) if known.get(name, "") != items[name]]
        same_config = fingerprint(manifest.config) == fingerprint(config)
        if same_config and all(known.get(name, digest) == digest for name, digest in items.items()):
            if manifest.status != "done":
                both = {**known, **items}
                taken = fingerprint(config, both)
                self._write(replace(manifest, items=both, fingerprint=taken))
            return
        raise ConfigError(
            Problem(
                str(self.path),
                "holds a run of another config",
                found=f"differs in {', '.join(changed[:8]) or 'a value'}",
                do="choose another study= or trial=; a record is never overwritten",
            )
        )

    def exists(self) -> bool:
        """Return whether the folder holds a run."""
        return os.path.lexists(self.path / "manifest.json")

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is on disk now."""
        path = self.path / "manifest.json"
        try:
            stored = stored_object(path)
        except FileNotFoundError:
            raise _not_what(path, "there", "a run's other files") from None
        if isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
            raise ConfigError(
                Problem(
                    str(self.path),
                    "written by a newer version of the platform",
                    found=f"record format {stored['format']}",
                    allowed=f"at most {FORMAT}",
                )
            )
        return stored_as(Manifest, stored, path)

    @property
    def name(self) -> str:
        """``<study>/<trial>-<seed>``."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def status(self) -> Status:
        """Status of the run in its manifest."""
        return self.manifest.status

    # ------------------------------------------------------------------------------- progress

    def set_status(self, status: Status, reason: str | None = None) -> None:
        """Record the status of the run, with the times of the first start and of the end."""
        manifest = self.manifest
        now = time.time()
        started = manifest.started if manifest.started or status == "pending" else now
        finished = now if status in ("done", "failed") else None
        self._write(
            replace(
                manifest,
                status=status,
                reason=reason,
                started=started,
                finished=finished,
                host=socket.gethostname(),
                pid=os.getpid(),
            )
        )

    def _write(self, manifest: Manifest) -> None:
        write_sealed(self.path / "manifest.json", asdict(manifest))

    def event(self, kind: str, *, step: int | None = None, **details: Any) -> None:
        """Append one event: a resume, a spike, a checkpoint, a failure."""
        row = {"time": time.time(), "step": step, "kind": kind, **details}
        append_json_line(self.path / "events.jsonl", row, seal=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one process that works on this run; see :mod:`ablations.record.lease`.

        Raises:
            HeldError: another process holds the run, or took it over while this one was stopped; the
                message names it.
        """

        def refusal(who: str) -> Problem:
            return Problem(
                self.name,
                "this run is being worked on",
                found=who,
                do="wait for it, or stop that process and give the same command again",
            )

        with hold(self.path / "lock", self.path / HOLDER, refusal):
            for name in ("metrics.jsonl", "events.jsonl", "scores.jsonl"):
                mend_lines(self.path / name)
            if job := queue_job():
                self.event("job", step=None, **job)
            yield

    def close(self) -> None:
        """Finish a run whose process was killed after it wrote the result.

        The status becomes that of the result, and the lease of the dead process is removed. A run that
        a living process holds is left alone.
        """
        result = self.result()
        if result is None or not self.exists():
            return
        if self.status not in ("done", "failed"):
            with contextlib.suppress(HeldError), self.hold():
                self.set_status(result["status"], result.get("reason"))
        forget_dead(self.path / "lock", self.path / HOLDER)

    # ------------------------------------------------------------------------------- contents

    def metrics(self) -> list[dict[str, Any]]:
        """Return one row a step, in order; of a step that was trained again after a resume, the last."""
        rows = {
            row["step"]: row for row in read_json_lines(self.path / "metrics.jsonl", needs="step")
        }
        return [rows[step] for step in sorted(rows)]

    def events(self) -> list[dict[str, Any]]:
        """Return every event, oldest first."""
        return list(read_json_lines(self.path / "events.jsonl", needs="kind"))

    def scores(self) -> list[dict[str, Any]]:
        """Return one row a scored checkpoint, in order of steps."""
        rows = {
            row["step"]: row for row in read_json_lines(self.path / "scores.jsonl", needs="step")
        }
        return [rows[step] for step in sorted(rows)]

    def add_scores(self, row: Mapping[str, Any]) -> None:
        """Append the scores of one checkpoint."""
        append_json_line(self.path / "scores.jsonl", row, seal=True)

    def audit(self) -> dict[str, Any] | None:
        """Return the audit of what was read, or None before there is one."""
        return self._optional("audit.json")

    def result(self) -> dict[str, Any] | None:
        """Return the result, written last; None while the run is not over."""
        result = self._optional("result.json")
        if result is not None and "status" not in result:
            raise _not_what(self.path / "result.json", "the result of a run", "no status")
        if result is not None and (fault := result_fault(result)):
            raise damaged(self.path / "result.json", fault)
        return result

    def write_audit(self, audit: Mapping[str, Any]) -> None:
        """Record the audit."""
        write_sealed(self.path / "audit.json", audit)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Record the result: the last thing a run writes, and what a study collects."""
        write_sealed(self.path / "result.json", result)

    def _optional(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            return stored_object(path)
        except FileNotFoundError:
            if os.path.lexists(path):  # a link to nowhere
                raise
            return None

    def details(self, step: int) -> dict[str, Path]:
        """Task → parquet file of its per-item details at ``step``.

        A file that was written and is missing is named as well: reading it raises.
        """
        folder = self.path / "details" / str(step)
        there = _names_in(folder)
        if not there:
            return {}
        names = {name for name in there if name.endswith(".parquet")} | set(listed(folder))
        return {name.removesuffix(".parquet"): folder / name for name in sorted(names)}

    @property
    def checkpoints_dir(self) -> Path:
        """Training checkpoints, one folder a step."""
        return self.path / "checkpoints"

    @property
    def exports_dir(self) -> Path:
        """transformers folders, one a scored checkpoint."""
        return self.path / "exports"

    def export(self, step: int) -> Path:
        """Return the transformers folder of the checkpoint at ``step``."""
        return self.exports_dir / str(step)


def _not_what(path: Path, what: str, found: str) -> DamagedError:
    return DamagedError(Problem(str(path), f"damaged: not {what}", found=found, do="move it away"))


def list_runs(runs_dir: Path, study: str | None = None) -> list[RunRecord]:
    """Return the records under ``runs_dir``, or of one study, by name; those without a manifest too."""
    root = Path(runs_dir)
    if study is not None and (study in ("", ".", "..") or "/" in study or "\0" in study):
        return []
    studies = _names_in(root) if study is None else [study]
    return [
        RunRecord(root / one / name)
        for one in studies
        for name in _names_in(root / one)
        if any(os.path.exists(f"{root}/{one}/{name}/{file}") for file in _OF_RECORD)
    ]


_OF_RECORD = ("manifest.json", "result.json")
"""Files of which a run has at least one."""


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none where it is no folder or cannot be listed."""
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []
