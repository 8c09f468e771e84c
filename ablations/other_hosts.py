"""Part of the hosts after the first in a run on several hosts: to train, and to write nothing.

The first host does the run as on one machine: it plans, trains, audits, exports, scores and writes the
record. Each other host gives it its ranks and waits for the end of the run::

    first host   hold ─▶ train ────────────▶ audit ─▶ score ─▶ result ─▶ end
    other host   wait ─▶ ranks of torchrun ─▶ wait ─────────────────────▶ end

It sees the first host by the run's lease (``holder.json``), which changes every ten seconds.
"""

from __future__ import annotations

import time
from pathlib import Path

from ablations.config.schema import RunConfig
from ablations.errors import HostLostError
from ablations.plan import make_plan
from ablations.precision import with_precision
from ablations.prepared import require_prepared
from ablations.record.lease import STALE_SECONDS
from ablations.record.run_record import HOLDER, RunRecord
from ablations.run_identity import identity, trial_name
from ablations.training.hosts import MEETING_SECONDS, Hosts, local_ranks
from ablations.training.training_process import help_workers

__all__ = ["help_run"]

_LOOK_SECONDS = 1.0
_ENDS = ("result.json", "paused.json")


def help_run(config: RunConfig, hosts: Hosts) -> RunRecord:
    """Train this host's part of a run; return its record when the first host has ended the run.

    Args:
        config: The run, as the first host has it.
        hosts: The hosts; this one is not the first.

    Raises:
        UserError: the run cannot be done as configured.
        HostLostError: the first host did not come, or was lost.
    """
    config = with_precision(config)
    plan = make_plan(config)
    plan.require()
    require_prepared(config, plan.prepared)
    record = RunRecord.at(
        Path(config.runs_dir),
        study=config.study,
        trial=trial_name(config, identity(config)),
        seed=config.seed,
    )
    if (record.result() or {}).get("status") == "done":
        return record
    ranks = local_ranks(config.execution)
    record.path.mkdir(
        parents=True, exist_ok=True
    )  # for the log; the first host may not be there yet
    watch = _Watch(record)
    try:
        result = help_workers(hosts, ranks, record.path / f"worker.{hosts.index}.log", watch.look)
        if ended := result.died or result.error:
            watch.patience = STALE_SECONDS  # the first host sees it too, and decides what it was
            watch.after = f"the ranks of this host ended ({ended}), and "
        while True:
            watch.look()
            time.sleep(_LOOK_SECONDS)
    except _OverError:
        return record


class _OverError(Exception):
    """Raised when the first host has ended the run."""


class _Watch:
    """Observation of the first host through the files of the run."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._began = self._ends()
        self._lease, self._changed = self._beat(), time.monotonic()
        self._next = 0.0
        self.patience = MEETING_SECONDS
        self.after = ""

    def look(self) -> None:
        """Look at the files, at most once a second.

        Raises:
            _OverError: the run has ended since this object was made.
            HostLostError: nothing of the first host changed for ``patience`` seconds.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK_SECONDS
        pairs = zip(self._ends(), self._began, strict=True)
        if any(end is not None and end != before for end, before in pairs):
            raise _OverError
        beat = self._beat()
        if beat != self._lease:
            self._lease, self._changed = beat, now
            gone = beat is None and self.after
            self.patience = min(self.patience, _LOOK_SECONDS) if gone else self.patience
        if now - self._changed > self.patience:
            silence = f"no sign of the first host for {self.patience:.0f} s"
            raise HostLostError(f"a host was lost: {self.after}{silence}")

    def _ends(self) -> tuple[int | None, ...]:
        return tuple(_modified(self._record.path / name) for name in _ENDS)

    def _beat(self) -> int | None:
        return _modified(self._record.path / HOLDER)


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
