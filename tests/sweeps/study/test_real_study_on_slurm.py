"""A study of real runs (nanotron, lighteval) on a real one-node Slurm gives the same results if disturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SHORT_SOURCES, TINY
from tests.tools.slurm_local import missing

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "study_on_slurm.py"


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_preempted_cancelled_and_with_its_controller_killed_it_ends_the_same(
    prepared: Path,
) -> None:
    command = [sys.executable, str(SCRIPT), str(prepared), "--short", "--steps=500", "--trials=3"]
    command += [*TINY, *SHORT_SOURCES, "search=mixture", "mixture.epoch_cap=100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "disturbed on Slurm: 3 runs, 0 differences" in done.stdout
    for name in ("preempted", "cancelled"):
        assert f"{name}: trial-" in done.stdout
