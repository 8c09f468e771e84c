"""Scoring of one run's checkpoints in one process against several: wall time and CPU time, on a CPU.

    taskset -c 0,1 python benchmarks/scoring_processes.py                     # 4 checkpoints, 2 processes
    taskset -c 0,1 python benchmarks/scoring_processes.py --checkpoints 1     # divided by task
    python benchmarks/scoring_processes.py --processes 8 --checkpoints 16

Items are generated, weights are random. One process is measured with one thread and with as many threads as
the others have together. The servers that workers are forked from have imported all before the clock starts,
as after a training. Repeats are interleaved and the fastest of each side counts. Rows and details of one
process and of several, with one thread each, must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablations.evaluation.scoring_process import ScoringJob
from ablations.evaluation.scoring_shares import score_on_devices
from ablations.evaluation.specs import EvaluationSpec
from ablations.record.checksums import listed
from ablations.record.run_record import RunRecord
from benchmarks import scoring_speed as speed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--size", choices=list(speed.SIZES), default="5M")
    parser.add_argument("--count", type=int, default=100, help="items of a task")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    count = given.processes
    sides = {
        "1 process, 1 thread": (1, 1),
        f"1 process, {count} threads": (1, count),
        f"{count} processes, 1 thread each": (count, 1),
    }
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        job = prepare(root, given)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        records: dict[str, Any] = {}
        for repeat in range(given.repeats + 1):  # the first one starts the server
            for name, (workers, threads) in sides.items():
                wall, cpu, records[name] = timed(job, workers, threads)
                if repeat:
                    times[name].append((wall, cpu))
    cores = len(os.sched_getaffinity(0))
    tasks = len(job.evaluation.tasks)
    print(
        f"{given.size} model, {given.checkpoints} checkpoints, {tasks} tasks of {given.count} items, "
        f"{cores} cores"
    )
    base = [min(column) for column in zip(*times["1 process, 1 thread"], strict=True)]
    for name, found in times.items():
        wall, cpu = (min(column) for column in zip(*found, strict=True))
        print(
            f"{name:>28}: {wall:6.2f} s ({base[0] / wall:.2f}x as fast), "
            f"{cpu:6.2f} CPU-s ({cpu / base[1]:.2f}x)"
        )
    first, _, last = records.values()
    print(f"records equal: {first == last}")
    return 0 if first == last else 1


def prepare(root: Path, given: argparse.Namespace) -> ScoringJob:
    """Write items and checkpoints, and return the job that scores them."""
    items = root / "data" / "benchmarks"
    items.mkdir(parents=True)
    texts: list[str] = []
    for number, name in enumerate(speed.TASKS):
        rows = speed._generated(number, given.count)
        texts += [row["query"] + "".join(row["choices"]) for row in rows]
        lines = "".join(json.dumps({"joiner": " ", **row}) + "\n" for row in rows)
        (items / f"{name}.jsonl").write_text(lines)
    tokenizer = speed._tokenizer(texts)
    model = speed._model(given.size, len(tokenizer), 512)
    steps = tuple(range(1, given.checkpoints + 1))
    for step in steps:
        folder = root / "run" / "checkpoints" / str(step)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return ScoringJob(
        directory=root / "run",
        steps=steps,
        last_step=steps[-1],
        tokens_per_step=1,
        evaluation=EvaluationSpec(
            tasks={name: speed._spec(name) for name in speed.TASKS}, heldout=False
        ),
        tokenizer=root,
        data_dir=root / "data",
        stores={},
        keep="all",
        device="cpu",
    )


def timed(job: ScoringJob, workers: int, threads: int) -> tuple[float, float, Any]:
    """Return seconds and CPU seconds of a scoring from the beginning, and what it wrote."""
    run = job.directory
    for name in ("scores.jsonl", "scoring.log", "worker.log"):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / "details", ignore_errors=True)
    began, own = time.perf_counter(), _own_seconds()
    cpu = score_on_devices(
        replace(job, threads=threads), workers, in_process=False, advance=lambda _: None
    )
    wall, cpu = time.perf_counter() - began, cpu + _own_seconds() - own
    rows = RunRecord(run).scores()
    written = [
        ({**row, "cpu_seconds": None}, listed(run / "details" / str(row["step"]))) for row in rows
    ]
    return wall, cpu, written


def _own_seconds() -> float:
    """CPU seconds of this process, which joins the parts."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
