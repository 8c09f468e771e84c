"""A swarm of proxies of one shape: one after another, as one batched model, and side by side.

    python benchmarks/gpu_together.py [--models proxy_4m proxy_15m proxy_1m] [--proxies 16] [--minutes 10]

"side by side" are as many processes as proxies that share the device, as the slots launcher starts
them with ``hydra.launcher.slots=['0','0',…]``; "together" is ``hydra.launcher.together``. Each is tokens
per second of all proxies, and its ratio to the faster of the two ways to train one after another, with a CUDA
graph and without. Each figure is written when it is there (``--out``); the end names what was not reached.
With ``--device cpu`` seconds are CPU seconds, so that "side by side" is 1 by construction and left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.nanotron import rank
from ablations.training.trainer import TrainJob
from benchmarks.gpu_common import (
    fresh_memory,
    group_loop,
    job_of,
    nanotron_loop,
    options,
    report,
    seconds_per_turn,
    settled,
    stores_of,
)
from benchmarks.gpu_figures import Figures
from tests.oracles.jobs import with_execution

SIDE_BY_SIDE_SECONDS = 150.0
"""That the processes of a swarm may take to start, compile and train."""


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--models", nargs="+", default=["proxy_4m", "proxy_15m", "proxy_1m"])
    parser.add_argument("--proxies", type=int, default=16)
    arguments = settled(parser.parse_args())
    device = torch.device(arguments.device)
    with (
        tempfile.TemporaryDirectory() as folder,
        Figures("gpu_together", arguments.out, arguments.minutes, device) as figures,
        rank._ranks(device),
    ):
        stores = stores_of(Path(folder), arguments)
        ways = ways_of(arguments)
        swarms = {
            name: [
                job_of(name, Path(folder) / name / str(seed), stores, arguments, seed)
                for seed in range(arguments.proxies)
            ]
            for name in arguments.models
        }
        figures.plan([_what(jobs, name, way) for way in ways for name, jobs in swarms.items()])
        bases: dict[str, float] = {}
        for way, rate_of in ways.items():
            for name, jobs in swarms.items():
                measure(_what(jobs, name, way), jobs, rate_of, bases, arguments, figures)
    return 0


Rate = Callable[[list[TrainJob], argparse.Namespace], float]


def ways_of(arguments: argparse.Namespace) -> dict[str, Rate]:
    """Every way to train a swarm, in the order of what a figure is worth."""
    if arguments.device == "cpu":
        return {"one after another": alone, "together": together}
    return {
        "one after another": alone,
        "together": together,
        "together, graph": lambda jobs, given: together(jobs, given, graph=True),
        "one after another, graph": lambda jobs, given: alone(jobs, given, graph=True),
        "side by side": side_by_side,
    }


def _what(jobs: list[TrainJob], name: str, way: str) -> str:
    return f"{len(jobs)} × {name} {way}"


def measure(
    what: str,
    jobs: list[TrainJob],
    rate_of: Rate,
    bases: dict[str, float],
    arguments: argparse.Namespace,
    figures: Figures,
) -> None:
    """One swarm in one way; its rate one after another is kept in ``bases``, the better of the two."""
    device = torch.device(arguments.device)
    with figures.part(what) as begin:
        if not begin:
            return
        fresh_memory(device)
        began = time.monotonic()
        rate = rate_of(jobs, arguments)
        seconds = round(time.monotonic() - began, 1)
        name = what.split()[2]
        if "one after another" in what:
            bases[name] = max(rate, bases.get(name, 0.0))
        ratio = round(rate / bases[name], 4) if name in bases else None
        report(
            figures, what, jobs[0], rate, device, ratio_to_one_after_another=ratio, seconds=seconds
        )


def alone(jobs: list[TrainJob], arguments: argparse.Namespace, *, graph: bool = False) -> float:
    """Tokens a second of one proxy: of a swarm that is trained one after another, too."""
    device = torch.device(arguments.device)
    loop = nanotron_loop(with_execution(jobs[0], cuda_graph=graph), device)
    return jobs[0].training.tokens_per_step / seconds_per_turn(loop, arguments, device)[0]


def together(jobs: list[TrainJob], arguments: argparse.Namespace, *, graph: bool = False) -> float:
    """Tokens a second of the swarm as one batched model."""
    device = torch.device(arguments.device)
    loop = group_loop([with_execution(job, cuda_graph=graph) for job in jobs], device)
    tokens = len(jobs) * jobs[0].training.tokens_per_step
    return tokens / seconds_per_turn(loop, arguments, device)[0]


def side_by_side(jobs: list[TrainJob], arguments: argparse.Namespace) -> float:
    """Every proxy in a process of its own; the clock runs while all of them train.

    Raises:
        RuntimeError: one of them failed, or not all were over in time.
    """
    context = multiprocessing.get_context("spawn")
    ready, compiled = context.Barrier(len(jobs)), context.Event()
    count, answers = arguments.steps * arguments.rounds, context.Queue()
    each = [
        context.Process(
            target=_one_of_many,
            args=(job, len(jobs), count, job is jobs[0], compiled, ready, answers),
        )
        for job in jobs
    ]
    for process in each:
        process.start()
    try:
        found = _answers(answers, len(jobs))
    finally:
        for process in each:
            process.kill()
            process.join()
    seconds = max(end for _, end in found) - min(begin for begin, _ in found)
    return len(jobs) * jobs[0].training.tokens_per_step * count / seconds


def _answers(answers: Any, count: int) -> list[tuple[float, float]]:
    """When each process began and ended to train."""
    ends, found = time.monotonic() + SIDE_BY_SIDE_SECONDS, []
    while len(found) < count:
        try:
            answer = answers.get(timeout=max(0.1, ends - time.monotonic()))
        except queue.Empty:
            raise RuntimeError(f"{len(found)} of {count} were over in time") from None
        if isinstance(answer, str):
            raise RuntimeError(f"one of {count}: {answer}")
        found.append(answer)
    return found


def _one_of_many(
    job: TrainJob, many: int, count: int, first: bool, compiled: Any, ready: Any, answers: Any
) -> None:
    """One process of a swarm; the first compiles, and the others find what it compiled on disk."""
    os.environ["ABLATIONS_DEVICE_SHARED_BY"] = str(many)  # as a slot is told (sweeps/slots)
    for name in (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
    ):  # the caller's process group is not this one's
        os.environ.pop(name, None)
    device = torch.device(job.execution.device)
    try:
        with rank._ranks(device):
            loop = nanotron_loop(job, device)
            if not first:
                compiled.wait(SIDE_BY_SIDE_SECONDS)
            next(loop)
            compiled.set()
            for _ in range(3):
                next(loop)
            _wait(device)
            ready.wait()
            began = time.monotonic()  # the same clock in every process of a machine
            for _ in range(count):
                next(loop)
            _wait(device)
            answers.put((began, time.monotonic()))
    except Exception as error:
        compiled.set()
        ready.abort()
        answers.put(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
