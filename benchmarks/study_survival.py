"""kill -9 at random moments across a study's driver, launcher and jobs: what is lost, what is done twice.

    python benchmarks/study_survival.py [--kills 50] [--seed 0]

The study's runs are those of tests/sweeps/study_app: each writes every piece of work down, so that
work done twice shows. After the last kill the same command is given once more. Prints 0 lost and 0
repeated, or exits 1; the yardstick is the same study left alone, whose table must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from ablations.config.schema import conf_dir

APP = Path(__file__).resolve().parents[1] / "tests" / "sweeps" / "study_app" / "app.py"
STEPS = 4
STUDY = ("search=app_mixture", "search.strategy.design_trials=6", "search.strategy.proposer=qmc")
"""A study whose table does not hang on which run ended first: baselines, design, seeds."""


def command(trials: int, seconds: float) -> list[str]:
    options = [*STUDY, f"search.budget.trials={trials}", f"search.strategy.design_trials={trials}"]
    # With hundreds of kills some run is hit more often than a user's patience would last.
    options += ["search.attempts=1000", f"seconds={seconds}"]
    return [sys.executable, "-W", "ignore", str(APP), "-m", *options]


def start(folder: Path, trials: int, seconds: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ABLATIONS_CONF": str(conf_dir()), "OMP_NUM_THREADS": "1"}
    with (folder / "out.log").open("ab") as log:
        return subprocess.Popen(
            command(trials, seconds),
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def progress(folder: Path) -> int:
    """Pieces of work done so far."""
    files = (folder / "runs/app").glob("trial-*/work.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in files)


def strike(process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Kill -9 the driver, everything, the launcher's server or one job."""
    whole = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    target = rng.choice(("driver", "everything", "a child"))
    if target == "a child" and len(whole) > 1:
        victims = [rng.choice(whole[1:])]
    else:
        victims = whole if target == "everything" else whole[:1]
    for victim in victims:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if target != "a child":
        process.wait()
    return target


def disturb(
    folder: Path, kills: int, rng: random.Random, seconds: float, trials: int
) -> Counter[str]:
    """Kill at ``kills`` moments, each after a little more work or at any time of the start-up."""
    done: Counter[str] = Counter()
    process = start(folder, trials, seconds)
    while sum(done.values()) < kills:
        goal, deadline = progress(folder) + rng.randint(0, 3), time.monotonic() + 20
        while progress(folder) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 0.6))
        if process.poll() is None:
            done[strike(process, rng)] += 1
        elif process.returncode == 0 and progress(folder) >= _everything(folder):
            break
        if process.poll() is not None:
            process = start(folder, trials, seconds)
    process.wait()
    if process.returncode != 0:
        process = start(folder, trials, seconds)
        process.wait()
    done["final exit code"] = process.returncode
    return done


def _everything(folder: Path) -> int:
    return STEPS * len(list((folder / "runs/app").glob("trial-*")))


def table(folder: Path) -> dict[str, float]:
    """Run → score."""
    paths = sorted((folder / "runs/app").glob("trial-*/result.json"))
    return {path.parent.name: json.loads(path.read_text())["score"] for path in paths}


def repeated(folder: Path) -> int:
    """Pieces of work done more than once, or out of order."""
    count = 0
    for path in (folder / "runs/app").glob("trial-*/work.jsonl"):
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        count += steps != list(range(STEPS))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=0, help="0 = 2 + kills / 2")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    trials = options.trials or 2 + options.kills // 2
    with tempfile.TemporaryDirectory() as root:
        calm, hit = Path(root) / "calm", Path(root) / "hit"
        calm.mkdir()
        hit.mkdir()
        start(calm, trials, 0.0).wait()
        kills = disturb(hit, options.kills, random.Random(options.seed), options.seconds, trials)
        expected, found = table(calm), table(hit)
        lost = sorted(set(expected) - set(found))
        differing = [name for name in expected if found.get(name, expected[name]) != expected[name]]
        twice = repeated(hit)
        print(f"{dict(kills)}: {len(found)} runs of {len(expected)}")
        print(
            f"{len(lost)} lost, {twice} repeated, {len(differing)} differing from the study left alone"
        )
        extra = sorted(set(found) - set(expected))
        if lost or twice or differing or extra:
            print((hit / "out.log").read_text()[-3000:])
            sys.exit(f"lost {lost}, extra {extra}, differing {differing}")


if __name__ == "__main__":
    main()
