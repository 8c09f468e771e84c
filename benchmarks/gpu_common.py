"""Parts that the GPU benchmarks share: jobs of the shipped shapes, loops of single steps, clocks, peaks.

On a GPU time is wall time between two synchronisations; with ``--device cpu`` it is this process's CPU
time, and models are cut to a toy's size: that shows that a script runs, and no figure worth keeping.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml

from ablations.training.dataloader import Feed, Share
from ablations.training.nanotron.engine import Engine
from ablations.training.placement import fit
from ablations.training.resume import Start
from ablations.training.specs import ModelSpec
from ablations.training.train_job import TrainJob
from benchmarks.gpu_figures import Figures, time_options
from tests.oracles.jobs import make_job, with_execution
from tests.oracles.plain import PlainLlama, plain_optimizer
from tests.oracles.stores import write_stores

CONF = Path(__file__).resolve().parents[1] / "conf"

PEAK_FLOPS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""Device, as its driver names it → dense bfloat16 FLOP/s. NVIDIA's data sheets of H100 and H200 SXM state
1,979 TFLOPS with sparsity, which is twice the dense figure. MFU is not printed for any other device."""

TOY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
"""The shape that stands for every model on a CPU."""


def options(description: str) -> argparse.ArgumentParser:
    """The arguments that all GPU benchmarks take."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--steps", type=int, default=10, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a sample")
    parser.add_argument("--batch", type=int, default=32, help="samples of a step")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--shipped", action="store_true", help="shipped sizes on a CPU too")
    time_options(parser)
    return parser


def settled(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, cut to a toy's where the device is a CPU; exits where there is no GPU."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is seen; --device cpu shows that the script runs", file=sys.stderr)
        sys.exit(2)
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    if toy(arguments):
        arguments.length, arguments.batch = min(arguments.length, 32), min(arguments.batch, 4)
    return arguments


def toy(arguments: argparse.Namespace) -> bool:
    """Return whether a toy is measured in place of the shipped sizes."""
    return arguments.device == "cpu" and not arguments.shipped


# ------------------------------------------------------------------------------------------- jobs


def spec_of(name: str, arguments: argparse.Namespace) -> ModelSpec:
    """The shape in ``conf/model``."""
    if toy(arguments):
        return ModelSpec(**TOY)
    return ModelSpec(**yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text()))


def stores_of(root: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Token stores with text for some steps."""
    tokens = 4 * arguments.batch * arguments.length
    return write_stores(root / "stores", vocab_size=512, tokens=max(tokens, 200_000))


def job_of(
    name: str, folder: Path, stores: dict[str, Path], arguments: argparse.Namespace, seed: int = 1
) -> TrainJob:
    """An endless training of a shipped shape in bfloat16 (float32 on a CPU), without checkpoints."""
    job = make_job(
        folder,
        stores,
        steps=100_000,
        seed=seed,
        model=spec_of(name, arguments),
        sequence_length=arguments.length,
        batch_size=arguments.batch,
        peak_lr=1e-4,
        dtype="bfloat16" if arguments.device == "cuda" else "float32",
    )
    job = with_execution(job, device=arguments.device, compile=arguments.compile, threads=None)
    return replace(job, checkpoint_steps=())


# ------------------------------------------------------------------------------------------ loops


def nanotron_loop(job: TrainJob, device: torch.device) -> Iterator[None]:
    """A step a turn of the platform's trainer."""
    job, cut = fit(job, device)
    feed = Feed(job, Share(0, 1, cut.micro_batch_size))
    engine = Engine(job, cut, Start(kind="start", step=0), feed=feed, device=device)
    batches = engine.batches()
    for step in itertools.count(1):
        engine.iteration_step, engine.iteration_start_time = step, time.time()
        outputs, loss = engine.training_step(batches)
        engine.train_step_logs(outputs, loss)
        yield


def plain_loop(job: TrainJob, device: torch.device) -> Iterator[None]:
    """A step a turn of a plain compiled PyTorch loop: the yardstick, at the same micro-batch.

    Compiled block by block, as the trainer is: one layer's code serves all. As a whole the network took
    75-95 s to build and compile at 360M and 1.7B on an H100 (2026-11-26).
    """
    job, cut = fit(job, device)
    with device:  # speed does not depend on the weights: drawn where they are used
        model = PlainLlama(job.model, None, job.training.sequence_length)
    if job.execution.compile:
        model.compile_blocks()
    optimizer = plain_optimizer(model, job)
    mixed = job.training.dtype == "bfloat16"
    feed = Feed(job, Share(0, 1, cut.micro_batch_size))
    for step in itertools.count():
        for micro in torch.from_numpy(feed.step(step)):
            tokens = micro.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
            (loss / cut.micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


# ----------------------------------------------------------------------------------------- clocks


def clock(device: torch.device) -> float:
    """Seconds: of wall time when all kernels are over, or of this process's CPU time."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


WARM_UP_TURNS = 4
"""Compilation, the optimiser's state; the first of them is most of it."""


def seconds_per_turn(
    loop: Iterator[None], arguments: argparse.Namespace, device: torch.device
) -> tuple[float, float]:
    """Return seconds a turn, the median over rounds, and the seconds of the warm-up before them."""
    began = time.monotonic()
    for _ in itertools.islice(loop, WARM_UP_TURNS):
        pass
    clock(device)
    warm_up = time.monotonic() - began
    rounds = []
    for _ in range(arguments.rounds):
        began = clock(device)
        for _ in itertools.islice(loop, arguments.steps):
            pass
        rounds.append((clock(device) - began) / arguments.steps)
    return statistics.median(rounds), warm_up


def report(
    figures: Figures, what: str, job: TrainJob, rate: float, device: torch.device, **values: Any
) -> None:
    """Write down a rate in tokens per second, with MFU where the device's peak is known."""
    words = f"{rate:12,.0f} tokens/s"
    values["tokens_per_second"] = round(rate)
    if device.type == "cuda":
        peak = PEAK_FLOPS.get(torch.cuda.get_device_name(device))
        if peak is not None:
            flops = job.model.flops_per_token(job.training.sequence_length)
            values["mfu"] = round(rate * flops / peak, 4)
            words += f"  MFU {values['mfu']:6.1%}"
        values["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        words += f"  peak memory {values['peak_gib']:5.1f} GiB"
    figures.add(what, words, **values)


def fresh_memory(device: torch.device) -> None:
    """Give back what the last loop held, and count the peak anew."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
