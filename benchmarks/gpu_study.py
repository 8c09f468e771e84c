"""A real study on one GPU: real text, a search over mixtures, the finalists with seeds, a verdict.

    python benchmarks/gpu_study.py --data data [--slots 6] [--minutes 8]

The demo's text (``ablate prepare``), which ``--data`` holds; how much code beside encyclopedic text
(``experiment=demo_ratio``), proxies of 3.7M parameters trained on 4.2M tokens in bfloat16, several side by
side on the GPU. A run is the platform's own: trained, audited, scored on the demo's tasks. Written are the
runs and the wall time of each, the study's wall time, and what the verdict decides. With ``--device cpu`` the
proxy is the demo's and the study is cut to a few steps: it shows that the script runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.errors import AblationError
from benchmarks.gpu_commands import PATHS
from benchmarks.gpu_figures import Figures, time_options

PROXY = ("model=proxy_4m", "model.vocab_size=1024", "model.max_position_embeddings=512")
"""proxy_4m with the demo's vocabulary: 3.7M parameters."""

ON = {
    # Steps of 16,384 tokens; 4.2M tokens: four epochs of the smaller source, so that every ratio is open.
    # Not compiled: 20 processes would compile, for a training of seconds.
    "cuda": (
        *PROXY,
        *(
            "schedule.total_tokens=4194304",
            "training.sequence_length=256",
            "training.batch_size=64",
        ),
        *("training.peak_lr=3e-3", "training.dtype=bfloat16", "training.checkpoints=2"),
        *("execution.device=cuda", "evaluation.batch_tokens=32768"),
        *("search.strategy.batch=6", "execution.threads=2"),
    ),
    "cpu": (
        *("schedule.total_tokens=20480", "training.checkpoints=1", "execution.device=cpu"),
        *(
            "search.budget.trials=3",
            "search.strategy.design_trials=2",
            "search.confirm.finalists=1",
        ),
        *("search.confirm.seeds=[0,1]", "evaluation.max_items=6", "evaluation.heldout_max_items=4"),
        "execution.threads=1",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="what `ablate prepare` wrote"
    )
    parser.add_argument("--slots", type=int, default=6, help="runs side by side on the GPU")
    time_options(parser, minutes=8.0)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is seen; --device cpu shows that the script runs", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="gpu-study-") as folder,
        Figures(
            "gpu_study", arguments.out, arguments.minutes, torch.device(arguments.device)
        ) as figures,
    ):
        figures.plan(["search and seeds", "verdict"])
        try:
            study(Path(folder), arguments, figures)
        finally:
            runs(Path(folder), figures)
            keep(Path(folder), arguments.out)
    return 0


def study(folder: Path, arguments: argparse.Namespace, figures: Figures) -> None:
    """The commands that a user types."""
    device = arguments.device
    slots = json.dumps(["0"] * arguments.slots if device == "cuda" else 1).replace('"', "'")
    words = (
        "experiment=demo_ratio",
        "study=gpu",
        f"data_dir={arguments.data.resolve()}",
        *ON[device],
    )
    with figures.part("search and seeds") as begin:
        if not begin:
            return
        began = time.monotonic()
        ablate(folder, figures, "run", "-m", *words, f"hydra.launcher.slots={slots}")
        seconds = time.monotonic() - began
        figures.add("search and seeds", f"{seconds:.0f} s", seconds=round(seconds, 1))
        with figures.part("verdict") as begin:
            if begin:
                said = ablate(folder, figures, "verdict", "study=gpu")
                verdict = json.loads((folder / "runs/gpu/verdict.json").read_text())
                print(said, flush=True)
                figures.add(
                    "verdict", str(verdict["outcome"]), verdict=verdict["outcome"], said=said
                )


def ablate(folder: Path, figures: Figures, *arguments: str) -> str:
    """Run a command of the platform within the time that is left; what it printed.

    Raises:
        AblationError: it failed, or its time was over; the run folders stay as they are.
    """
    path = os.pathsep.join([*PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    log = folder / f"{arguments[0]}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "ablations.cli", *arguments],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            code: int | str = process.wait(timeout=max(1.0, figures.seconds_left))
        except subprocess.TimeoutExpired:
            process.terminate()
            code = "none: its time was over"
        finally:
            if process.poll() is None:
                _end(process)
    said = log.read_text(errors="replace")
    if code:
        raise AblationError(f"ablate {arguments[0]}: exit code {code}; {said[-1500:]}")
    return said


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a command end its workers; kill it where it does not."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def runs(folder: Path, figures: Figures) -> None:
    """Write down what the runs that are there took."""
    results = [_read(path) for path in sorted((folder / "runs/gpu").glob("*/result.json"))]
    done = [result for result in results if result.get("status") == "done"]
    if not done:
        figures.add("runs", f"none of {len(results)} is done", runs=len(results), done=0)
        return
    wall = statistics.median(result["cost"]["wall_seconds"] for result in done)
    tokens = done[0]["tokens"]
    words = (
        f"{len(done)} of {len(results)} done, {tokens:,} tokens each, {wall:.1f} s each (median)"
    )
    figures.add(
        "runs",
        words,
        runs=len(results),
        done=len(done),
        tokens=tokens,
        median_wall_seconds=round(wall, 1),
        device_of_runs=done[0]["cost"]["device"],
        scores=[result["score"] for result in done],
    )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def keep(folder: Path, out: Path) -> None:
    """Keep what the study left, but weights: the records of its runs."""
    record = folder / "runs"
    if record.exists():
        for heavy in ("checkpoints", "exports", "details"):
            for path in record.glob(f"*/*/{heavy}"):
                shutil.rmtree(path, ignore_errors=True)
        shutil.make_archive(str(out / "gpu_study_records"), "gztar", record)
    for log in folder.glob("*.log"):
        shutil.copy(log, out / f"gpu_study_{log.name}")


if __name__ == "__main__":
    sys.exit(main())
