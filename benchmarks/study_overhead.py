"""Measure the CPU seconds of a local trial beyond its own training and scoring, and the driver's share.

    python benchmarks/study_overhead.py DATA_DIR [--trials 3] [--tokens 51200]

DATA_DIR holds the demo's prepared sources (`ablate prepare`). A study of the demo's ratio runs through
the slots launcher; of every run, the process's CPU time less what the record says training and scoring
took is process start, composing, export and records. The yardstick is the same without warm workers:
the imports that each run would then pay (measured in the same script).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from sweeps.launchers.local.job_worker import CPU_LINE


def study(folder: Path, data: Path, trials: int, tokens: int) -> float:
    """Run the study; CPU seconds of the driver alone."""
    command = [sys.executable, "-m", "ablations.cli", "run", "-m", "experiment=demo_ratio"]
    command += [f"data_dir={data}", f"schedule.total_tokens={tokens}", "training.checkpoints=1"]
    command += ["evaluation.max_items=20", "evaluation.heldout_max_items=8", "study=overhead"]
    command += [f"search.budget.trials={trials}", "search.confirm.finalists=0"]
    command += ["hydra.launcher.slots=1", "hydra.launcher.threads=1"]
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, "the study failed"
    return used.ru_utime + used.ru_stime


def imports() -> float:
    """CPU seconds of importing what a run needs, once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import ablations.preload"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=51_200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        driver = study(Path(root), options.data.resolve(), options.trials, options.tokens)
        beyond = []
        for run in sorted(Path(root, "runs/overhead").glob("trial-*")):
            found = re.findall(rf"{CPU_LINE}([\d.]+) s", (run / "worker.log").read_text())
            cost = json.loads((run / "result.json").read_text())["cost"]
            own = cost["train_cpu_seconds"] + cost["eval_cpu_seconds"]
            beyond.append(float(found[-1]) - own)
            print(f"{run.name}: {found[-1]} s CPU, {own:.2f} s of it training and scoring")
    cold = imports()
    worst = max(beyond)
    print(f"beyond training and scoring: {worst:.2f} s CPU a trial at most (limit 1.5)")
    print(f"imports that warm workers save: {cold:.2f} s; ratio {worst / cold:.3f}")
    print(
        f"driver, with its own imports and the surrogate: {driver:.2f} s for {options.trials} trials"
    )


if __name__ == "__main__":
    main()
