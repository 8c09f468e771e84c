"""Steps with a checkpoint that is written at once, and behind the steps, against steps without one: a CPU.

    taskset -c 0,1 python benchmarks/checkpoint_saving.py [--models 1m 11m] [--every 10]

One thread trains. Wall and CPU seconds are those of the whole process, divided by the checkpoints: what a
checkpoint adds to the steps around it. Rounds of the three sides alternate, and the fastest of each counts.
A round ends when its checkpoint is complete.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.batching import plan_micro_batches
from ablations.training.dataloader import Feed, Share
from ablations.training.nanotron import rank
from ablations.training.nanotron.engine import Engine
from ablations.training.resume import Start
from ablations.training.train_job import TrainJob
from benchmarks.training_speed import SHAPES, job_of
from tests.oracles.jobs import with_execution
from tests.oracles.stores import write_stores

SIDES = ("without", "at once", "behind the steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["1m", "11m"])
    parser.add_argument("--every", type=int, default=10, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, rank._ranks(torch.device("cpu")):
        root = Path(scratch)
        stores = write_stores(root / "stores", vocab_size=1024)
        for name in given.models:
            total = given.every * (given.rounds + 2)
            jobs = {
                side: job_of(name, root / side.replace(" ", "_"), stores, total, "float32")
                for side in SIDES
            }
            measure(name, jobs, given.every, given.rounds)


def measure(name: str, jobs: dict[str, TrainJob], every: int, rounds: int) -> None:
    """Print what a checkpoint costs each side."""
    loops = {side: rounds_of(job, side, every) for side, job in jobs.items()}
    best: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for side, loop in loops.items():
            wall, cpu = time.perf_counter(), time.process_time()
            blocked = next(loop)
            spent = [time.perf_counter() - wall, time.process_time() - cpu, blocked]
            if number:
                old = best.setdefault(side, spent)
                best[side] = [min(pair) for pair in zip(old, spent, strict=True)]
    base = best["without"]
    size = jobs["without"].model.parameters / 1e6
    print(f"{name} ({size:.2f}M), a round of {every} steps: {base[0]:.3f} s, {base[1]:.3f} CPU-s")
    for side in SIDES[1:]:
        wall, cpu, blocked = best[side]
        print(
            f"  a checkpoint {side}: {(wall - base[0]) * 1e3:+.0f} ms, "
            f"{(cpu - base[1]) * 1e3:+.0f} CPU-ms; the step waits {blocked * 1e3:.0f} ms"
        )


def rounds_of(job: TrainJob, side: str, every: int) -> Iterator[float]:
    """Train ``every`` steps a time, with a checkpoint after the first; yield its seconds in the step."""
    steps = tuple(range(1, job.schedule.total_steps, every)) if side != "without" else ()
    job = with_execution(
        replace(job, checkpoint_steps=steps), background_checkpoints=side == SIDES[2]
    )
    cut = plan_micro_batches(job.model, job.training, job.execution)
    feed = Feed(job, Share(0, 1, cut.micro_batch_size))
    engine = Engine(job, cut, Start(kind="start", step=0), feed=feed, device=torch.device("cpu"))
    batches, blocked = engine.batches(), 0.0
    engine.n_micro_batches_per_batch = cut.micro_batches
    for step in range(1, job.schedule.total_steps):
        engine.iteration_step, engine.iteration_start_time = step, time.time()
        outputs, loss = engine.training_step(batches)
        began = time.perf_counter()
        engine.train_step_logs(outputs, loss)
        if step in steps:
            blocked = time.perf_counter() - began
        if step % every == 0:
            engine._note_checkpoint(wait=True)
            yield blocked


if __name__ == "__main__":
    main()
