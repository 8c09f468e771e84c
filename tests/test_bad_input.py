"""A few of the cases of benchmarks/bad_input.py: no traceback, and exit codes 0, 1 and 2 alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("count", "seed"), [(12, 101), pytest.param(150, 102, marks=pytest.mark.slow)]
)
def test_bad_input_ends_with_a_message(count: int, seed: int) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks/bad_input.py"),
            f"--count={count}",
            f"--seed={seed}",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} cases, seed {seed}: 0 wrong" in done.stdout


def test_what_is_wrong_is_recognised() -> None:
    from benchmarks.bad_input import fault_of

    assert fault_of(0, "fine") is None
    assert fault_of(2, "error: 1 problem") is None
    assert fault_of(3, "") == "exit code 3"
    assert fault_of(None, "") == "took over 90 seconds"
    traced = 'Traceback (most recent call last):\n  File "x"\nKeyError: 1\n'
    assert fault_of(1, traced) == "traceback: KeyError: 1"
