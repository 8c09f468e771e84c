"""Training tokens per second and MFU on one GPU, against a plain compiled PyTorch loop in the same run.

    python benchmarks/gpu_training.py --models proxy_15m smollm2_135m [--steps 10] [--rounds 3]

bfloat16, shipped shapes, 2,048 tokens a sample, layer compiled, warm-up left out. The plain loop is
the test oracle's network under torch.compile and autocast with fused AdamW, at the same micro-batch.
MFU counts FLOPs as ModelSpec.flops_per_token does, over the device's dense bfloat16 peak
(989 TFLOP/s for H100 and H200 SXM; --peak for others). ``--together K`` also trains K proxies as one batched
model. ``--device cpu`` shows that the script runs, and no figure worth keeping.
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
import yaml

from ablations.training.feed import Feed, Share
from ablations.training.nanotron import rank
from ablations.training.nanotron.engine import Engine
from ablations.training.specs import ModelSpec
from ablations.training.start import Start
from ablations.training.together.group import _Group, _Member
from ablations.training.trainer import TrainJob
from tests.oracles.jobs import make_job, with_execution
from tests.oracles.plain import PlainLlama, plain_optimizer
from tests.oracles.stores import write_stores

CONF = Path(__file__).resolve().parents[1] / "conf"


def shipped(kind: str, name: str) -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
    return values


def job_of(
    name: str, root: Path, stores: dict[str, Path], arguments: argparse.Namespace
) -> TrainJob:
    job = make_job(
        root / name,
        stores,
        steps=10_000,
        model=ModelSpec(**shipped("model", name)),  # type: ignore[arg-type]
        sequence_length=arguments.length,
        batch_size=arguments.batch,
        peak_lr=1e-4,
        dtype="bfloat16",
    )
    job = with_execution(job, device=arguments.device, compile=arguments.compile, threads=None)
    return replace(job, checkpoint_steps=())


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ours(job: TrainJob, device: torch.device) -> Iterator[None]:
    job, cut = rank._fit(job, device)
    feed = Feed(job, Share(0, 1, cut.micro_batch_size))
    engine = Engine(job, cut, Start(kind="start", step=0), feed=feed, device=device)
    batches = engine.batches()
    for step in itertools.count(1):
        engine.iteration_step, engine.iteration_start_time = step, time.time()
        outputs, loss = engine.training_step(batches)
        engine.train_step_logs(outputs, loss)
        yield


def plain(job: TrainJob, device: torch.device, compiled: bool) -> Iterator[None]:
    job, cut = rank._fit(job, device)
    model = PlainLlama(job.model, job.seed, job.training.sequence_length).to(device)
    optimizer = plain_optimizer(model, job)
    forward = torch.compile(model, dynamic=False) if compiled else model
    feed = Feed(job, Share(0, 1, cut.micro_batch_size))
    for step in itertools.count():
        for micro in torch.from_numpy(feed.step(step)):
            tokens = micro.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16):
                loss = forward(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
            (loss / cut.micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


def swarm(jobs: list[TrainJob]) -> Iterator[None]:
    start = Start(kind="start", step=0)
    group = _Group([_Member(job, start) for job in jobs])
    for step in itertools.count():
        began = time.time()
        losses, norms = group._step(step)
        group._write_rows(step + 1, losses, norms, time.time() - began)
        yield


def seconds_per_step(
    loop: Iterator[None], arguments: argparse.Namespace, device: torch.device
) -> float:
    """Median over rounds, after a warm-up that compiles."""
    rounds = []
    for count in (3, *[arguments.steps] * arguments.rounds):
        sync(device)
        began = time.perf_counter()
        for _ in itertools.islice(loop, count):
            pass
        sync(device)
        rounds.append((time.perf_counter() - began) / count)
    return statistics.median(rounds[1:])


def report(name: str, job: TrainJob, seconds: float, peak: float, proxies: int = 1) -> float:
    rate = proxies * job.training.tokens_per_step / seconds
    mfu = rate * job.model.flops_per_token(job.training.sequence_length) / peak
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    print(f"{name:>28}  {rate:12,.0f} tokens/s  MFU {mfu:6.1%}  peak {memory:5.1f} GiB", flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["proxy_1m", "proxy_15m", "smollm2_135m"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=32, help="samples of a step")
    parser.add_argument("--peak", type=float, default=989e12, help="FLOP/s of the device")
    parser.add_argument("--together", type=int, default=0, help="also K proxies in one model")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder, rank._ranks(device):
        root = Path(folder)
        tokens = 4 * arguments.batch * arguments.length
        stores = write_stores(root / "stores", vocab_size=1024, tokens=max(tokens, 200_000))
        for name in arguments.models:
            job = job_of(name, root, stores, arguments)
            base = seconds_per_step(plain(job, device, arguments.compile), arguments, device)
            theirs = report(f"{name} plain", job, base, arguments.peak)
            mine = seconds_per_step(ours(job, device), arguments, device)
            rate = report(f"{name} nanotron", job, mine, arguments.peak)
            print(f"{name:>28}  {rate / theirs:.3f} of the plain loop's tokens/s")
            if arguments.together:
                jobs = [
                    replace(job, directory=root / f"{name}_{k}", seed=k)
                    for k in range(arguments.together)
                ]
                for each in jobs:
                    each.directory.mkdir()
                group = seconds_per_step(swarm(jobs), arguments, device)
                both = report(
                    f"{name} x{arguments.together}", job, group, arguments.peak, len(jobs)
                )
                print(f"{name:>28}  {both / rate:.2f} of one after another")


if __name__ == "__main__":
    main()
