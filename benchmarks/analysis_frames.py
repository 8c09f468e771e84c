"""Frames of many runs: wall seconds, CPU seconds and peak memory, each in a process of its own.

    python benchmarks/analysis_frames.py --runs 10000 --tasks 20 --checkpoints 10 --metrics 1

The yardstick is Python's own JSON parser over the same files, without making a frame of them; the
target is 5 s and 1 GB for 10,000 runs, 20 tasks and 10 checkpoints. Files are read once before, so
that the disk is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from analysis.synthetic import SyntheticStudy, write_study


def make(folder: Path, runs: int, tasks: int, checkpoints: int, metrics: int) -> None:
    """``runs`` records: the files of 50 made-up runs, with new scores for each."""
    study = SyntheticStudy(
        name="many",
        sources=("web", "chat", "math", "code"),
        trials=2,
        tasks=tasks,
        checkpoints=checkpoints,
        items=0,
        seeds=1,
        confirmed=0,
    )
    write_study(folder, study)
    template = folder / "many" / "trial-0000-0"
    texts = {name: (template / name).read_text() for name in ("manifest.json", "result.json")}
    audit = (template / "audit.json").read_bytes()
    names = ("bpb", "acc_char", "acc")[:metrics]
    draw = np.random.default_rng(0)
    for number in range(runs):
        run = folder / "many" / f"trial-{number:05d}-0"
        run.mkdir(exist_ok=True)
        rename = ('"trial-0000"', f'"trial-{number:05d}"')
        for name, text in texts.items():
            (run / name).write_text(text.replace(*rename))
        (run / "audit.json").write_bytes(audit)
        (run / "scores.jsonl").write_text(scores(draw, tasks, checkpoints, names))


def scores(draw: np.random.Generator, tasks: int, checkpoints: int, names: tuple[str, ...]) -> str:
    values = draw.random((checkpoints, tasks, len(names), 2)).tolist()
    lines = []
    for step, of_step in enumerate(values, start=1):
        cells = {
            f"task_{task:02d}": {
                name: {
                    "value": of_step[task][place][0],
                    "stderr": of_step[task][place][1],
                    "n": 1000,
                    "higher_is_better": name != "bpb",
                    "chance": None if name == "bpb" else 0.25,
                }
                for place, name in enumerate(names)
            }
            for task in range(tasks)
        }
        row = {"step": step, "tokens": step * 512, "score": 1.0, "direction": "minimize"}
        lines.append(json.dumps(row | {"metrics": cells}) + "\n")
    return "".join(lines)


def read_frames(folder: Path) -> int:
    from analysis.frames import Frames

    frames = Frames.read(folder, "many")
    tables = [frames.runs, frames.trials, frames.checkpoints, frames.scores]
    tables += [frames.sources, frames.audits, frames.cost, frames.tasks]
    return len(frames.scores)


def read_plain(folder: Path) -> int:
    cells = 0
    for run in (folder / "many").iterdir():
        for name in ("manifest.json", "result.json", "audit.json"):
            json.loads((run / name).read_bytes()) if (run / name).exists() else None
        for line in (run / "scores.jsonl").read_bytes().splitlines():
            cells += sum(len(cell) for cell in json.loads(line)["metrics"].values())
    return cells


def timed(how: str, folder: Path) -> dict[str, float]:
    """Run ``how`` in a fresh process and let it report itself."""
    command = [sys.executable, __file__, "--measure", how, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(how: str, folder: Path) -> None:
    """Time the work and, apart from it, the imports it needs."""
    began = time.perf_counter()
    if how == "frames":
        import orjson  # noqa: F401
        import pandas  # noqa: F401
        import pyarrow.json  # noqa: F401
    imports = time.perf_counter() - began
    wall, cpu = time.perf_counter(), time.process_time()
    cells = {"frames": read_frames, "plain": read_plain}[how](folder)
    report = {
        "cells": cells,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "imports_s": imports,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--metrics", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", choices=["frames", "plain"])
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "many").exists():
            make(folder, options.runs, options.tasks, options.checkpoints, options.metrics)
        timed("plain", folder)
        rows = {"frames": [], "plain": []}
        for _ in range(options.repeats):
            for how, found in rows.items():
                found.append(timed(how, folder))
    best = {how: min(found, key=lambda row: row["wall_s"]) for how, found in rows.items()}
    for how, row in best.items():
        print(f"{how:7s}", "  ".join(f"{key} {value:,.2f}" for key, value in row.items()))
    ratio = best["plain"]["wall_s"] / best["frames"]["wall_s"]
    print(f"frames against parsing alone: {ratio:.2f}x the speed")


if __name__ == "__main__":
    main()
