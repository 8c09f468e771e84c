"""Run benchmarks at their smallest: each prints its ratio. What the ratio is, no test asks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


COMMANDS = {
    "sampler.py --tokens-per-source 20000 --batches 20 --repeats 1": r"sampler is \d+\.\dx",
    "scoring_speed.py --size 0.5M --count 4 --repeats 1 --auto": (
        r"ours, further checkpoints: .* ratio \d+\.\d\dx"
    ),
    "few_shot_scoring.py --prefix 64 --question 8 --items 4 --repeats 1": (
        r"answers: .* with the prefix shared: \d+\.\dx"
    ),
    "training_speed.py --models demo --steps 1 --rounds 1 --dtype bfloat16": (
        r"plain bfloat16 .* ours over it \d+\.\d+"
    ),
    "prepare.py --megabytes 1 --repeats 1 --vocab-size 512": r"ours is \d+\.\d\dx as fast",
    "prepare_store.py --mtokens 1 --files 2 --batches 2 --repeats 1": (
        r"store into int64 .* \d+\.\d\dx numpy memmap"
    ),
    "prepare_duplicates.py --megabytes 1 --shards 2 --repeats 1": r"near: .* \d\.\d+x of none",
    "analysis_frames.py --runs 4 --tasks 2 --checkpoints 2 --metrics 2 --repeats 1": (
        r"frames against parsing alone: \d+\.\d\dx"
    ),
}
"""Command → what it prints."""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.partition(".py")[0])
def test_a_benchmark_runs_and_prints_its_ratio(command: str, tmp_path: Path) -> None:
    name, *options = command.split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *options],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert re.search(COMMANDS[command], done.stdout), done.stdout + done.stderr
