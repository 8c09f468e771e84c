"""Training tokens per second and MFU on one GPU, against a plain compiled PyTorch loop in the same run.

    python benchmarks/gpu_training.py [--models proxy_15m smollm2_135m] [--steps 10] [--rounds 3]

bfloat16, shipped shapes, 2,048 tokens a sample, layer compiled, warm-up left out. The plain loop is
the test oracle's network under torch.compile and autocast with fused AdamW, at the same micro-batch.
``graph`` is the same with ``execution.cuda_graph``, which small models want. MFU counts FLOPs as
``ModelSpec.flops_per_token`` does. Of stock nanotron the script says why it cannot run: the release
imports itself in a circle, and its own Llama needs flash-attn.
``--device cpu`` shows that the script runs, and no figure worth keeping.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.nanotron import rank
from ablations.training.trainer import TrainJob
from benchmarks.gpu_common import (
    fresh_memory,
    headline,
    job_of,
    nanotron_loop,
    options,
    plain_loop,
    report,
    seconds_per_turn,
    settled,
    stores_of,
)
from tests.oracles.jobs import with_execution

MODELS = ("proxy_1m", "proxy_15m", "proxy_60m", "smollm2_135m", "smollm2_360m", "smollm2_1b7")

Loop = Callable[[TrainJob, torch.device], Iterator[None]]


def graphed(job: TrainJob, device: torch.device) -> Iterator[None]:
    return nanotron_loop(with_execution(job, cuda_graph=True), device)


LOOPS: dict[str, Loop] = {"plain": plain_loop, "ours": nanotron_loop, "ours, graph": graphed}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = settled(parser.parse_args())
    device = torch.device(arguments.device)
    print(headline(device))
    print(stock_nanotron())
    with tempfile.TemporaryDirectory() as folder, rank._ranks(device):
        stores = stores_of(Path(folder), arguments)
        for name in arguments.models:
            measure(name, Path(folder), stores, arguments)
    return 0


def measure(name: str, root: Path, stores: dict[str, Path], arguments: argparse.Namespace) -> None:
    """One model under every loop; each loop is gone before the next begins."""
    device = torch.device(arguments.device)
    rates: dict[str, float] = {}
    for label, loop in LOOPS.items():
        fresh_memory(device)
        job = job_of(name, root / name / label.replace(", ", "_"), stores, arguments)
        try:
            seconds = seconds_per_turn(loop(job, device), arguments, device)
        except torch.OutOfMemoryError as error:
            print(f"{name + ' ' + label:>34}  out of memory: {str(error).splitlines()[0]}")
            continue
        rates[label] = job.training.tokens_per_step / seconds
        report(f"{name} {label}", job, rates[label], device)
    for label in rates:
        if label != "plain" and "plain" in rates:
            print(f"{name + ' ' + label:>34}  {rates[label] / rates['plain']:.3f}x the plain loop")


def stock_nanotron() -> str:
    """Why nanotron is not measured as it is shipped: what importing its trainer says, ours not loaded."""
    command = [sys.executable, "-c", "import nanotron.trainer"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"stock nanotron: skipped, it cannot be imported: {done.stderr.strip().splitlines()[-1]}"
    return "stock nanotron: skipped, it can be imported here, and nobody has written its side yet"


if __name__ == "__main__":
    sys.exit(main())
