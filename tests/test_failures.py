"""Every exception of a run becomes a failure with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.errors import AblationError, CheckpointError, Problem, TrainingError, WorkError
from ablations.record.failures import preempted, recorded

OWN = (
    TrainingError("NaN", step=3),
    CheckpointError(Problem("checkpoints/8", "is not whole")),
)


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_an_error_of_the_platform_s_own_keeps_its_kind(
    tmp_path: Path, error: AblationError
) -> None:
    reasons: list[str] = []
    assert recorded(tmp_path, error, reasons.append) is error
    assert reasons == [str(error)]
    assert not (tmp_path / "worker.log").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("No module named antlr4"), "ImportError: No module named antlr4"),
        (KeyError("text"), "KeyError: 'text'"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_any_other_becomes_failed_work_with_its_traceback_in_the_log(
    tmp_path: Path, error: BaseException, reason: str
) -> None:
    (tmp_path / "worker.log").write_text("before\n")
    reasons: list[str] = []
    told = recorded(tmp_path, error, reasons.append)
    assert isinstance(told, WorkError)
    assert str(told) == f"{reason}; see {tmp_path / 'worker.log'}"
    assert reasons == [reason]
    lines = (tmp_path / "worker.log").read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == reason


def test_a_disk_that_takes_no_record_does_not_hide_the_reason(tmp_path: Path) -> None:
    def full(reason: str) -> None:
        raise OSError(28, "No space left on device")

    told = recorded(tmp_path / "gone", OSError(28, "No space left on device"), full)
    assert "No space left on device" in str(told)


@pytest.mark.parametrize(
    ("module", "took_back"),
    [("submitit.core.job_environment", True), ("submititlike", False), ("lighteval.main", False)],
)
def test_an_exit_of_submitit_s_signal_handler_is_no_failure(module: str, took_back: bool) -> None:
    """On preemption and at a time limit submitit requeues the job, then leaves it by an exit."""
    handler: dict[str, Any] = {"__name__": module}
    exec("import sys\ndef leave():\n    sys.exit(-1)", handler)
    with pytest.raises(SystemExit) as caught:
        handler["leave"]()
    assert preempted(caught.value) == took_back
    assert not preempted(RuntimeError("no exit"))
