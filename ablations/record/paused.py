"""Record of a run that paused at a checkpoint: ``paused.json``, in place of a result.

A run that has a result is over, whatever else its folder contains: a process that is killed between the
result and the removal of ``paused.json`` leaves both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ablations.files import write_sealed
from ablations.record.run_record import RunRecord
from ablations.record.stored import damaged, result_fault, stored_object

__all__ = ["PAUSED_FILE", "forget_pause", "paused_at", "write_paused"]

PAUSED_FILE = "paused.json"
"""Step, score, metrics and cost of a run that paused."""


def write_paused(record: RunRecord, content: Mapping[str, Any]) -> None:
    """Record that a run pauses; it has no result until it goes on to its end."""
    write_sealed(record.path / PAUSED_FILE, content)


def paused_at(record: RunRecord) -> dict[str, Any] | None:
    """Return the content of ``paused.json``; None for a run that did not pause, or that has a result.

    Raises:
        DamagedError: the file is not what was written.
    """
    path = record.path / PAUSED_FILE
    if os.path.lexists(record.path / "result.json") or not os.path.lexists(path):
        return None
    content = stored_object(path)
    if fault := result_fault(content) or (None if "step" in content else "no step"):
        raise damaged(path, fault)
    return content


def forget_pause(record: RunRecord) -> None:
    """Remove the record of a pause, after the result was written."""
    (record.path / PAUSED_FILE).unlink(missing_ok=True)
