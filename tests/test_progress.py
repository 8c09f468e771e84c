"""The progress of a run off a terminal: each phase at once, then lines with the time left."""

from __future__ import annotations

import pytest

from ablations import progress
from ablations.progress import RunProgress
from ablations.training.train_job import StepRow


def row(step: int) -> StepRow:
    return StepRow(
        step=step,
        tokens=step * 512,
        loss=3.0,
        lr=0.1,
        grad_norm=1.0,
        tokens_per_second=1e4,
        seconds=1.0,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the display sees, in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_has_the_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(shown=True) as shown:
        shown.phase("training", 600)
        assert capsys.readouterr().err == "training: 600\n"
        shown.step(row(1))
        assert "step 1/600" in capsys.readouterr().err
        clock[0] += 5.0
        shown.step(row(51))
        assert capsys.readouterr().err == ""  # a line in ten seconds is enough
        clock[0] += 5.0
        shown.step(row(101))
        assert capsys.readouterr().err.rstrip().endswith("0:50 left")


def test_nothing_is_shown_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(shown=False) as shown:
        shown.phase("training", 600)
        shown.step(row(1))
    assert capsys.readouterr().err == ""
