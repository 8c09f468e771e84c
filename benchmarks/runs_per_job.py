"""CPU seconds of a study of short runs by submitit: one run in each job against several.

    python benchmarks/runs_per_job.py DATA_DIR [--runs 6 --per-job 6 --tokens 20480]

DATA_DIR holds the demo's prepared sources (`ablate prepare`). The same study of the demo's ratio runs twice
through submitit's local launcher, in turns. All processes are counted, the driver's included. Losses and
scores of both have to be equal. The yardstick is one run in each job, which pays its imports itself.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

_SET_CHILD_SUBREAPER = 36


def study(folder: Path, data: Path, options: argparse.Namespace, per_job: int) -> float:
    """Run the study; return the CPU seconds of all its processes."""
    command = [sys.executable, "-m", "ablations.cli", "run", "-m", "experiment=demo_ratio"]
    command += [
        f"data_dir={data}",
        f"schedule.total_tokens={options.tokens}",
        "execution.threads=1",
    ]
    command += ["evaluation.max_items=20", "evaluation.heldout_max_items=8", "study=jobs"]
    command += [f"search.budget.trials={options.runs}", "search.confirm.finalists=0"]
    command += [f"search.strategy.design_trials={options.runs}", "training.checkpoints=1"]
    command += ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"]
    command += [f"search.runs_per_job={per_job}", "search.workers=1", "progress=false"]
    before = _used()
    subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    while True:  # processes whose parents have ended are children of this one
        try:
            os.wait()
        except ChildProcessError:
            return _used() - before


def results(folder: Path) -> dict[str, object]:
    """Return run → losses of its steps and its metrics."""
    found: dict[str, object] = {}
    for run in sorted((folder / "runs" / "jobs").glob("trial-*")):
        rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        metrics = json.loads((run / "result.json").read_text())["metrics"]
        found[run.name] = ([row["loss"] for row in rows], metrics)
    return found


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--per-job", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=20_480)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    spent, found = [], []
    for per_job in (1, options.per_job):
        with tempfile.TemporaryDirectory() as root:
            spent.append(study(Path(root), options.data.resolve(), options, per_job))
            found.append(results(Path(root)))
        runs = len(found[-1])
        print(
            f"{runs} runs, {per_job} in a job: {spent[-1]:.1f} CPU-s, {spent[-1] / runs:.1f} a run"
        )
    assert found[0] == found[1], "the runs differ"
    print(f"losses and scores are equal; {spent[0] / spent[1]:.2f}x fewer CPU-seconds")


if __name__ == "__main__":
    main()
