"""Run records of a study with thousands of trials, sealed as runs write them, made up in seconds.

Each trial has weights of its own and bits per byte that fall with them. The baseline and the best three
of the search have three seeds. Records are copies of one made-up run with other weights and scores.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.files import append_json_line, write_sealed
from analysis.synthetic import SyntheticStudy, write_study

__all__ = ["write_records"]

Floats = NDArray[np.float64]
SOURCES = ("wiki", "chat", "math", "code")
NOISE = 0.01


def write_records(
    folder: Path, trials: int, *, tasks: int, checkpoints: int, confirmed: bool
) -> int:
    """Write the study ``many`` under ``folder``; return its number of runs.

    Args:
        folder: Folder of all studies.
        trials: Number of trials; the first is the baseline.
        tasks: Number of tasks, each scored in bits per byte.
        checkpoints: Scored checkpoints of each run.
        confirmed: True: the best three get two further seeds, and the baseline three.
    """
    manifest = _template(tasks)
    rng = np.random.default_rng(0)
    weights = np.concatenate([[[0.4, 0.3, 0.2, 0.1]], rng.dirichlet(np.ones(4), trials - 1)])
    pull = rng.uniform(0.3, 1.0, (tasks, len(SOURCES)))
    truth = 1.0 + np.exp(-2.0 * weights @ pull.T)
    best = set((1 + np.argsort(truth[1:].mean(axis=1))[:3]).tolist()) if confirmed else set()
    runs = 0
    for trial in range(trials):
        seeds = 3 if confirmed and (trial == 0 or trial in best) else 1
        for seed in range(seeds):
            shift = NOISE * np.random.default_rng((trial, seed)).standard_normal(
                (checkpoints, tasks)
            )
            _write_run(folder, manifest, trial, seed, weights[trial], truth[trial] + shift)
            runs += 1
    return runs


def _template(tasks: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        made = SyntheticStudy(
            name="many", sources=SOURCES, trials=2, tasks=tasks, items=0, seeds=1, confirmed=0
        )
        write_study(Path(place), made)
        text = (Path(place) / "many" / "trial-0000-0" / "manifest.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def _write_run(
    folder: Path, template: dict[str, Any], trial: int, seed: int, weights: Floats, bpb: Floats
) -> None:
    name = f"trial-{trial:05d}"
    run = folder / "many" / f"{name}-{seed}"
    run.mkdir(parents=True)
    manifest = copy.deepcopy(template)
    named = {"trial": name, "seed": seed}
    manifest |= named
    manifest["config"] |= named
    manifest["config"]["mixture"]["weights"] = dict(zip(SOURCES, weights.tolist(), strict=True))
    phase, label = ("baseline", "natural") if trial == 0 else ("design", "")
    manifest["labels"] = {"phase": phase, "name": label}
    write_sealed(run / "manifest.json", manifest)
    spec = {"number": trial, "phase": phase, "name": label, "point": {}, "overrides": []}
    write_sealed(run / "trial.json", spec | {"seeds": [0, 1, 2] if trial == 0 else [0]})
    for row in _rows(bpb):
        append_json_line(run / "scores.jsonl", row, seal=True)
    metrics = {f"task_{number:02d}/bpb": value for number, value in enumerate(bpb[-1].tolist())}
    write_sealed(
        run / "result.json",
        {
            "status": "done",
            "reason": None,
            "score": float(bpb[-1].mean()),
            "direction": "minimize",
            "metrics": metrics,
            "step": len(bpb),
            "tokens": len(bpb) * 512,
            "cost": {},
            "audit_ok": True,
            "scored": len(bpb),
        },
    )


def _rows(bpb: Floats) -> Iterator[dict[str, Any]]:
    for step, values in enumerate(bpb.tolist(), start=1):
        metrics = {
            f"task_{number:02d}": {
                "bpb": {
                    "value": value,
                    "stderr": 0.01,
                    "n": 1000,
                    "higher_is_better": False,
                    "chance": None,
                }
            }
            for number, value in enumerate(values)
        }
        score = float(np.mean(values))
        tokens = step * 512
        yield {"step": step, "tokens": tokens, "score": score, "direction": "minimize"} | {
            "metrics": metrics
        }
