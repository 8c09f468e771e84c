"""The checks of gpu_check.py that run whole commands: scoring, and a study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sweeps" / "plugins"))

import torch
from filelock import FileLock

from benchmarks.gpu_bench import Bench, within

ROOT = Path(__file__).resolve().parents[1]
PATHS = [str(ROOT), str(ROOT / "sweeps" / "plugins")]
"""Folders in which Python finds the platform and Hydra its plugins: they need not be installed."""

STUDY = (
    *("experiment=synthetic", "schedule.total_tokens=16384", "training.sequence_length=64"),
    *("training.checkpoints=2", "evaluation.max_items=16", "evaluation.heldout_max_items=8"),
    *("execution.threads=1", "progress=false"),
    *(
        f"+source.synthetic_{skill}={{origin:{{kind:synthetic,skill:{skill},documents:400,seed:0}}}}"
        for skill in ("facts", "arithmetic", "junk")
    ),
)
"""A run of generated text with a tokenizer of its own: nothing is downloaded."""


def ablate(folder: Path, *arguments: str) -> str:
    """Run a command of the platform; what it printed."""
    command = [sys.executable, "-m", "ablations.cli", *arguments]
    path = os.pathsep.join([*PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        logs = [path.read_text()[-800:] for path in sorted(folder.glob("runs/*/*/worker.log"))[:2]]
        raise AssertionError(f"{(done.stdout + done.stderr)[-1500:]}\n" + "\n".join(logs))
    return done.stdout


def _workspace(bench: Bench, name: str) -> Path:
    """A folder with the generated sources prepared, once for all checks that share a bench."""
    bench.needs_packages("hydra", "pydantic", "datatrove", "lighteval", "optuna")
    folder = bench.root / name
    data = bench.root / "data"
    folder.mkdir()
    with FileLock(bench.root / "prepare.lock"):  # checks may run side by side
        if not data.exists():
            ablate(bench.root, "prepare", *STUDY, "prepare.workers=1")
    (folder / "data").symlink_to(data, target_is_directory=True)
    return folder


def scoring(bench: Bench) -> str:
    """A run's scores on this device against its export's scores on the CPU, both in float32."""
    folder = _workspace(bench, "scoring")
    ablate(folder, "run", *STUDY, "study=one", "trial=one", f"execution.device={bench.device}")
    (run,) = (folder / "runs/one").iterdir()
    (export_,) = sorted((run / "exports").iterdir(), key=lambda path: int(path.name))[-1:]
    there = _scores(folder, export_, "cpu", "float32")
    here, default = (_scores(folder, export_, bench.device, dtype) for dtype in ("float32", None))
    said = []
    for word, row, limit in (("float32", here, 1e-3), ("default type", default, 3e-2)):
        gap = max(abs(row[name] - there[name]) / there[name] for name in there if "bpb" in name)
        said.append(within(gap, limit, f"bits per byte, {word}"))
    exact = [name for name in there if "acc" in name]
    assert all(abs(here[name] - there[name]) < 0.13 for name in exact), (here, there)
    return "; ".join(said)


def _scores(folder: Path, model: Path, device: str, dtype: str | None) -> dict[str, float]:
    from ablations.evaluation.scoring import ScoringPlace, score_folder

    run = _config(STUDY)
    stores = {name: folder / "data" / run.tokenizer.name / name for name in run.source}
    place = ScoringPlace(
        data_dir=folder / "data",
        stores={name: path for name, path in stores.items() if path.exists()},
        device=device,
        dtype=dtype,
    )
    out = folder / f"scores_{device}_{dtype}"
    flat = score_folder(model, run.evaluation, out, place=place).flat()
    return {name: value for name, value in flat.items() if value is not None}


def _config(overrides: tuple[str, ...]) -> Any:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir, load

    with initialize_config_dir(str(conf_dir())):
        plain: Any = OmegaConf.to_container(compose("run", overrides=list(overrides)), resolve=True)
    return load(plain)


def study(bench: Bench) -> str:
    """A study of two proxies: side by side on one device, then one after another: one table."""
    folder = _workspace(bench, "study")
    slots = "['0','0']" if bench.device == "cuda" else "2"
    shared = (*STUDY, "seed=1,2", f"execution.device={bench.device}")
    tables, seconds = [], []
    for name, count in (("side", slots), ("after", "1")):
        began = time.monotonic()
        given = (f"study={name}", f"hydra.launcher.slots={count}")
        ablate(folder, "run", "-m", *shared, *given)
        seconds.append(time.monotonic() - began)
        paths = sorted((folder / "runs" / name).glob("*/result.json"))
        tables.append({path.parent.name: json.loads(path.read_text()) for path in paths})
    side, after = tables
    assert side.keys() == after.keys()
    assert len(side) == 2
    wanted = "cpu" if bench.device == "cpu" else torch.cuda.get_device_name()
    for result in (*side.values(), *after.values()):
        assert result["status"] == "done"
        assert result["audit_ok"]
        assert result["cost"]["device"] == wanted
    pairs = [
        (after[run]["metrics"][metric], side[run]["metrics"][metric])
        for run in side
        for metric in side[run]["metrics"]
        if metric.endswith("bpb")
    ]
    gap = max(abs(a - b) / b for a, b in pairs)
    said = within(gap, 2e-2 if bench.device == "cuda" else 1e-5, "bits per byte between the two")
    return f"{said}; {seconds[0]:.0f} s side by side, {seconds[1]:.0f} s one after another"
