"""The whole demo with several seeds: who wins, and whether the sealed interval held.

    python benchmarks/demo_seeds.py OUT DATA_DIR --seeds 0 1 2 3 4 5

Each seed runs the demo's own steps from the search on in a folder of its own: the proxies' seeds, the
design's and the full runs' differ from those of every other seed. DATA_DIR holds the prepared sources
(`ablate prepare`). A seed that was finished before is read, not run again. One line for each seed when it
ends, then the counts; `OUT/demo_seeds.jsonl` keeps the lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ablations.demo import STEPS, Step, filled, skipped
from ablations.files import read_json

PROMOTION = Path("promotions/demo_ratio-demo_full-001")
_FIRST = ("run", "-m")
"""The first step that depends on a seed begins with these words."""


def overrides(step: Step, seed: int) -> list[str]:
    """Return what makes a step of the demo one of this seed."""
    if step.words[:2] == _FIRST:
        seeds = list(range(10 * seed, 10 * seed + 4))
        return [
            f"seed={10 * seed}",
            f"search.confirm.seeds={json.dumps(seeds, separators=(',', ':'))}",
            f"search.strategy.seed={seed}",
        ]
    return [f"seed={100 + seed}"] if step.words[0] == "run" else []


def run_seed(seed: int) -> float:
    """Run the demo from the search on in this folder; its minutes."""
    began = time.monotonic()
    start = next(i for i, step in enumerate(STEPS) if step.words[:2] == _FIRST)
    for step in STEPS[start:]:
        if skipped(step) is not None or step.words[0] in ("ls", "report") or "table" in str(step):
            continue
        arguments = [*map(filled, step.words), *overrides(step, seed)]
        with Path("demo.log").open("a") as log:
            print(f"$ ablate {' '.join(arguments)}", file=log, flush=True)
            command = [sys.executable, "-m", "ablations.cli", *arguments]
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return (time.monotonic() - began) / 60


def read_seed(seed: int) -> dict[str, Any]:
    """Return what a finished seed shows."""
    verdict = read_json(Path("runs/demo_ratio/verdict.json"))
    comparison = read_json(PROMOTION / "comparison.json")
    score = next((one for one in comparison["outcomes"] if one["task"] == "score"), None)
    tasks = [one["held"] for one in comparison["outcomes"] if one["task"] != "score"]
    return {
        "seed": seed,
        "outcome": verdict["outcome"],
        "pick": verdict["pick"],
        "advantage": verdict["advantage"]["value"],
        "p": verdict["advantage"]["p_corrected"],
        "finalists": len([name for name in verdict["finalists"] if name != verdict["baseline"]]),
        "sealed": score and [score["low"], score["high"]],
        "realised": score and score["realised"],
        "held": score and score["held"],
        "tasks_held": f"{sum(map(bool, tasks))} of {len(tasks)}",
    }


def main() -> None:
    """Run the seeds and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    options = parser.parse_args()
    out, data = options.out.resolve(), options.data_dir.resolve()
    lines = []
    for seed in options.seeds:
        folder = out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "data").exists():
            (folder / "data").symlink_to(data, target_is_directory=True)
        os.chdir(folder)
        minutes = None
        if not (PROMOTION / "comparison.json").exists():
            minutes = round(run_seed(seed), 2)
        line = {**read_seed(seed), "minutes": minutes}
        lines.append(line)
        print(json.dumps(line), flush=True)
        with (out / "demo_seeds.jsonl").open("a") as stream:
            print(json.dumps(line), file=stream)
    won = [line for line in lines if line["outcome"] == "winner"]
    held = sum(bool(line["held"]) for line in won)
    print(f"winners {len(won)} of {len(lines)}; sealed interval of the score held {held}")


if __name__ == "__main__":
    main()
