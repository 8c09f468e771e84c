"""CPU time of a training step through nanotron, over that of the same network in plain PyTorch.

    python benchmarks/training_speed.py [--steps 12] [--rounds 5] [--models 1m 11m]
    python benchmarks/training_speed.py --dtype auto      # also against the plain loop in that type

Both train the same samples from the same initial weights in one process and thread, a round of
steps of one after a round of the other; the ratio is of the medians over rounds. The plain loop is
the test oracle: fused AdamW, clip_grad_norm_, no logging, no checkpoints. The other side does all
that a run does, rows and verdicts included. A vocabulary of 1,024 keeps the embedding small, as in
the demo: "1m" and "11m" count everything.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.precision import bfloat16_units, choose_dtype
from ablations.training.batching import plan_micro_batches
from ablations.training.dataloader import Feed, Share
from ablations.training.nanotron import rank
from ablations.training.nanotron.engine import Engine
from ablations.training.resume import Start
from ablations.training.specs import DType, ModelSpec
from ablations.training.train_job import TrainJob
from tests.oracles.jobs import make_job, steps_of
from tests.oracles.plain import plain_losses
from tests.oracles.stores import write_stores

VOCABULARY = 1024
SHAPES = {
    "demo": {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 2},
    "1m": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4},
    "11m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6},
}
BATCHES = {"demo": (64, 8), "1m": (256, 8), "11m": (256, 8)}


def job_of(name: str, folder: Path, stores: dict[str, Path], steps: int, dtype: DType) -> TrainJob:
    model = ModelSpec(
        **SHAPES[name], vocab_size=VOCABULARY, num_attention_heads=4, num_key_value_heads=4
    )
    length, batch = BATCHES[name]
    job = make_job(
        folder / name,
        stores,
        steps=steps,
        model=model,
        sequence_length=length,
        batch_size=batch,
        peak_lr=1e-3,
        dtype=dtype,
    )
    return replace(job, checkpoint_steps=())


def engine_steps(job: TrainJob) -> Iterator[None]:
    """Run the engine, stopping after each step."""
    cut = plan_micro_batches(job.model, job.training, job.execution)
    feed = Feed(job, Share(0, 1, cut.micro_batch_size))
    start = Start(kind="start", step=0)
    engine = Engine(job, cut, start, feed=feed, device=torch.device("cpu"))
    batches = engine.batches()
    engine.n_micro_batches_per_batch = cut.micro_batches
    for step in range(1, job.schedule.total_steps):  # the last would save a checkpoint
        engine.iteration_step, engine.iteration_start_time = step, time.time()
        outputs, loss = engine.training_step(batches)
        engine.train_step_logs(outputs, loss)
        yield


def cpu_seconds(steps: Iterator[object], count: int) -> float:
    began = time.process_time()
    for _ in itertools.islice(steps, count):
        pass
    return (time.process_time() - began) / count


def measure(job: TrainJob, steps: int, rounds: int) -> None:
    dtype = job.training.dtype
    loops: dict[str, Iterator[object]] = {"ours": engine_steps(job)}
    for kind in dict.fromkeys(["float32", dtype]):
        cast = None if kind == "float32" else getattr(torch, kind)
        batches = (torch.from_numpy(tokens) for tokens in steps_of(job))
        loops[f"plain {kind}"] = plain_losses(job, batches, dtype=cast)
    for loop in loops.values():
        cpu_seconds(loop, 3)  # warm up
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name].append(cpu_seconds(loop, steps))
    middle = {name: statistics.median(values) for name, values in times.items()}
    best = {name: min(values) for name, values in times.items()}
    ours = middle.pop("ours")
    tokens = job.training.tokens_per_step / ours
    print(
        f"{job.directory.name:>5} {job.model.parameters / 1e6:6.2f}M  ours in {dtype} "
        f"{ours * 1e3:7.1f} ms/step  {tokens:,.0f} tokens per CPU-second"
    )
    for name, seconds in middle.items():
        print(
            f"      {name} {seconds * 1e3:7.1f} ms/step  ours over it {ours / seconds:.3f} "
            f"(of minima {best['ours'] / best[name]:.3f}), {seconds / ours:.2f}x as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["1m", "11m"], choices=list(SHAPES))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "auto"])
    arguments = parser.parse_args()
    dtype = choose_dtype("cpu") if arguments.dtype == "auto" else arguments.dtype
    print(f"bfloat16 units of this processor: {', '.join(bfloat16_units()) or 'none'}")
    torch.set_num_threads(1)
    rank.use_one_rank()
    with tempfile.TemporaryDirectory() as folder, rank._ranks(torch.device("cpu")):
        root = Path(folder)
        stores = write_stores(root / "stores", vocab_size=VOCABULARY, tokens=200_000)
        steps = 4 + arguments.steps * arguments.rounds
        for name in arguments.models:
            measure(job_of(name, root, stores, steps + 1, dtype), arguments.steps, arguments.rounds)


if __name__ == "__main__":
    main()
