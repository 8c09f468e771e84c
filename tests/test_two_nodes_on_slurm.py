"""A run, a study and a preparation on a real two-node Slurm that loses a node give what one host gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.slurm_two_nodes import missing

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "two_hosts.py"


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("run", ("two hosts × two ranks: 50 losses, 0 differences", "first host lost: resumed")),
        ("study", ("study on two nodes: 3 runs, 0 differences",)),
        ("prepare", ("given twice: exit code 2", "0 differences; left behind: []")),
    ],
)
def test_two_nodes_give_what_one_host_gives(part: str, said: tuple[str, ...]) -> None:
    command = [sys.executable, str(SCRIPT), part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in said:
        assert words in done.stdout
