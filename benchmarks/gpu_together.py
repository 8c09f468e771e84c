"""A swarm of proxies of one shape: as one batched model, side by side, and one after another.

    python benchmarks/gpu_together.py [--model proxy_15m] [--proxies 16]

"side by side" are as many processes as proxies that share the device, as the slots launcher starts
them with ``hydra.launcher.slots=['0','0',…]``; "together" is ``hydra.launcher.together``. Each prints tokens
per second of all proxies, and its ratio to one after another. With ``--device cpu`` seconds are CPU
seconds, so that "side by side" is 1 by construction and left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.nanotron import rank
from ablations.training.trainer import TrainJob
from benchmarks.gpu_common import (
    fresh_memory,
    group_loop,
    headline,
    job_of,
    nanotron_loop,
    options,
    report,
    seconds_per_turn,
    settled,
    stores_of,
)
from tests.oracles.jobs import with_execution


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--model", default="proxy_15m")
    parser.add_argument("--proxies", type=int, default=16)
    arguments = settled(parser.parse_args())
    device = torch.device(arguments.device)
    print(headline(device))
    with tempfile.TemporaryDirectory() as folder:
        jobs = swarm(Path(folder), arguments)
        rates = {}
        with rank._ranks(device):
            for graph in (False, True) if device.type == "cuda" else (False,):
                word = ", graph" if graph else ""
                rates[f"one after another{word}"] = alone(jobs[0], arguments, graph)
                rates[f"together{word}"] = together(jobs, arguments, graph)
        if device.type == "cuda":
            fresh_memory(device)
            rates["side by side"] = side_by_side(jobs, arguments)
    for name, rate in rates.items():
        report(f"{len(jobs)} × {arguments.model} {name}", jobs[0], rate, device)
    base = rates["one after another"]
    for name in rates:
        print(f"{name:>34}  {rates[name] / base:.2f}x one after another")
    return 0


def swarm(root: Path, arguments: argparse.Namespace) -> list[TrainJob]:
    stores = stores_of(root, arguments)
    return [
        job_of(arguments.model, root / str(seed), stores, arguments, seed)
        for seed in range(arguments.proxies)
    ]


def alone(job: TrainJob, arguments: argparse.Namespace, graph: bool) -> float:
    """Tokens a second of one proxy: of a swarm that is trained one after another, too."""
    device = torch.device(arguments.device)
    fresh_memory(device)
    loop = nanotron_loop(with_execution(job, cuda_graph=graph), device)
    return job.training.tokens_per_step / seconds_per_turn(loop, arguments, device)


def together(jobs: list[TrainJob], arguments: argparse.Namespace, graph: bool) -> float:
    device = torch.device(arguments.device)
    fresh_memory(device)
    loop = group_loop([with_execution(job, cuda_graph=graph) for job in jobs], device)
    tokens = len(jobs) * jobs[0].training.tokens_per_step
    return tokens / seconds_per_turn(loop, arguments, device)


def side_by_side(jobs: list[TrainJob], arguments: argparse.Namespace) -> float:
    """Every proxy in a process of its own; the clock runs while all of them train."""
    context = multiprocessing.get_context("spawn")
    ready, count = context.Barrier(len(jobs)), arguments.steps * arguments.rounds
    spans: Any = context.Queue()
    each = [
        context.Process(target=_one_of_many, args=(job, len(jobs), count, ready, spans))
        for job in jobs
    ]
    for process in each:
        process.start()
    found = [spans.get(timeout=540) for _ in each]
    for process in each:
        process.join()
    seconds = max(end for _, end in found) - min(begin for begin, _ in found)
    return len(jobs) * jobs[0].training.tokens_per_step * count / seconds


def _one_of_many(job: TrainJob, many: int, count: int, ready: Any, spans: Any) -> None:
    from ablations.training import placement

    device = torch.device("cuda")
    memory = torch.cuda.get_device_properties(device).total_memory // many
    cut = placement.cut_batch(job.model, job.training, job.execution, memory_bytes=memory)
    job = with_execution(job, micro_batch_size=cut.micro_batch_size)
    with rank._ranks(device):
        loop = nanotron_loop(job, device)
        for _ in range(5):
            next(loop)
        torch.cuda.synchronize()
        ready.wait()
        began = time.monotonic()  # the same clock in every process of a machine
        for _ in range(count):
            next(loop)
        torch.cuda.synchronize()
        spans.put((began, time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
