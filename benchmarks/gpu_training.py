"""Training tokens per second and MFU on one GPU, against a plain compiled PyTorch loop in the same run.

    python benchmarks/gpu_training.py [--models smollm2_135m proxy_15m] [--minutes 10]

bfloat16, shipped shapes, 2,048 tokens a sample, layer compiled, warm-up left out. The plain loop is
the test oracle's network, its layer and its head compiled, under autocast with fused AdamW, at the same
micro-batch. MFU counts FLOPs as
``ModelSpec.flops_per_token`` does. Models are measured in the order given, each figure is written when it is
there (``--out``), and the end names what was not reached. Of stock nanotron the script prints why it cannot
run: the release imports itself in a circle, and its own Llama needs flash-attn.
``--device cpu`` shows that the script runs, and no figure worth keeping.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.nanotron import rank
from ablations.training.train_job import TrainJob
from benchmarks.gpu_common import (
    fresh_memory,
    job_of,
    nanotron_loop,
    options,
    plain_loop,
    report,
    seconds_per_turn,
    settled,
    stores_of,
)
from benchmarks.gpu_figures import Figures

MODELS = ("smollm2_135m", "proxy_15m", "smollm2_360m", "smollm2_1b7", "proxy_1m", "proxy_60m")
"""In the order of what a figure is worth: what is not reached is at the end."""

Loop = Callable[[TrainJob, torch.device], Iterator[None]]

LOOPS: dict[str, Loop] = {"ours": nanotron_loop, "plain": plain_loop}
FLOAT8 = "ours float8"
"""A third loop, of models that are wide enough, where torchao is installed."""


def loops_of(name: str) -> dict[str, Loop]:
    if name == "smollm2_1b7" and importlib.util.find_spec("torchao") is not None:
        return {**LOOPS, FLOAT8: nanotron_loop}
    return LOOPS


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = settled(parser.parse_args())
    device = torch.device(arguments.device)
    with (
        tempfile.TemporaryDirectory() as folder,
        Figures("gpu_training", arguments.out, arguments.minutes, device) as figures,
        rank._ranks(device),
    ):
        stores = stores_of(Path(folder), arguments)
        figures.plan([f"{name} {label}" for name in arguments.models for label in loops_of(name)])
        for name in arguments.models:
            measure(name, Path(folder), stores, arguments, figures)
        print(stock_nanotron())
    return 0


def measure(
    name: str,
    root: Path,
    stores: dict[str, Path],
    arguments: argparse.Namespace,
    figures: Figures,
) -> None:
    """One model under every loop; each loop is gone before the next begins."""
    device = torch.device(arguments.device)
    rates: dict[str, float] = {}
    for label, loop in loops_of(name).items():
        what = f"{name} {label}"
        fresh_memory(device)
        job = job_of(name, root / name / label, stores, arguments)
        if label == FLOAT8:
            job = replace(job, training=replace(job.training, float8=True))
        with figures.part(what) as begin:
            if not begin:
                continue
            seconds, warm_up = seconds_per_turn(loop(job, device), arguments, device)
            rates[label] = job.training.tokens_per_step / seconds
            report(figures, what, job, rates[label], device, warm_up_seconds=round(warm_up, 1))
    for label in sorted(rates.keys() - {"plain"}):
        if "plain" in rates:
            ratio = rates[label] / rates["plain"]
            figures.add(f"{name} {label} / plain", f"{ratio:.3f}x", ratio=round(ratio, 4))


def stock_nanotron() -> str:
    """Return the error of importing nanotron's own trainer: why it is not measured as shipped."""
    command = [sys.executable, "-c", "import nanotron.trainer"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"stock nanotron: skipped, it cannot be imported: {done.stderr.strip().splitlines()[-1]}"
    return "stock nanotron: skipped, it can be imported here, and nobody has written its side yet"


if __name__ == "__main__":
    sys.exit(main())
