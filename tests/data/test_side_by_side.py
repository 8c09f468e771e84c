"""Ranks in processes of their own: what they raise, and what is told of one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablations.data.rank_processes import run_side_by_side
from ablations.errors import DataError, Problem, WorkError


@dataclass(frozen=True)
class Rank:
    """Leaves its number, and ends as it is told."""

    folder: Path
    end: str = "well"

    def __call__(self, rank: int) -> None:
        (self.folder / str(rank)).write_text(str(os.getpid()))
        if self.end == "killed" and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end == "raises" and rank == 1:
            raise DataError(Problem("here", "wrong"))
        if self.end == "never":
            time.sleep(600)


def test_each_rank_is_done_once(tmp_path: Path) -> None:
    run_side_by_side(Rank(tmp_path), range(3), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_killed_rank_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="rank 1 was killed by SIGKILL"):
        run_side_by_side(Rank(tmp_path, "killed"), range(3), 2)


def test_what_a_rank_raises_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wrong"):
        run_side_by_side(Rank(tmp_path, "raises"), range(2), 2)


ASK = """
import sys
from pathlib import Path
from ablations.data.rank_processes import run_side_by_side
from tests.data.test_side_by_side import Rank
run_side_by_side(Rank(Path(sys.argv[1]), "never"), range(2), 2)
"""


def test_no_rank_outlives_the_process_that_asked(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, str(tmp_path)], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 60
    while len(texts := [p.read_text() for p in tmp_path.iterdir()]) < 2 or not all(texts):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in texts):
        assert time.monotonic() < deadline
        time.sleep(0.02)
