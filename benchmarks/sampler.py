"""The sampler against ``datasets.interleave_datasets``, and against itself at sample five billion.

    python benchmarks/sampler.py [--tokens-per-source 20000000] [--batches 300]

Prints tokens per CPU-second of: batches through our sampler and token stores; the same windows as a
map-style dataset through a DataLoader; the same through a streaming (iterable) dataset; the ratios;
the largest gap between the mix asked for and the mix got. Then the cost and memory of the first batch
at sample 0 and at sample 5,000,000,000 of an 11T-token schedule of four stages over 60 sources.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ablations.data.store import TokenStore
from ablations.mixture.mixture import Mixture
from ablations.mixture.reader import BatchReader
from ablations.mixture.sampler import Sampler
from ablations.mixture.schedule import Schedule, Stage
from tests.oracles.stores import write_store

LENGTH, BATCH = 1024, 32
WEIGHTS = {"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in usage)


def rate(batches: Iterator[object], count: int) -> float:
    """Tokens per CPU-second over ``count`` batches, the first 10 left out."""
    for _ in itertools.islice(batches, 10):
        pass
    began = cpu_seconds()
    for _ in itertools.islice(batches, count):
        pass
    return count * BATCH * (LENGTH + 1) / (cpu_seconds() - began)


def ours(stores: dict[str, TokenStore], batches: int) -> Iterator[object]:
    stage = Stage(name="a", steps=batches + 20, mixture=Mixture(WEIGHTS))
    schedule = Schedule(stages=(stage,), sequence_length=LENGTH, batch_size=BATCH)
    windows = {name: store.num_windows(LENGTH) for name, store in stores.items()}
    sampler = Sampler(schedule, windows, seed=0)
    reader = BatchReader(sampler, stores, LENGTH)
    for step in range(batches + 20):
        yield reader.read(np.arange(step * BATCH, (step + 1) * BATCH))[0]


def interleaved(stores: dict[str, TokenStore], *, streaming: bool) -> Iterator[object]:
    import datasets
    import torch

    datasets.disable_progress_bars()
    parts = []
    for store in stores.values():
        windows = store.read(np.arange(store.num_windows(LENGTH)), LENGTH)
        part = datasets.Dataset.from_dict({"tokens": windows}).with_format("numpy")
        parts.append(part.to_iterable_dataset(num_shards=4) if streaming else part)
    mixed = datasets.interleave_datasets(
        parts, probabilities=list(WEIGHTS.values()), seed=0, stopping_strategy="all_exhausted"
    )
    if streaming:
        mixed = mixed.shuffle(seed=0, buffer_size=1000)
    return iter(torch.utils.data.DataLoader(mixed, batch_size=BATCH, shuffle=not streaming))


def late_batch() -> None:
    rng = np.random.default_rng(0)
    names = [f"source{k}" for k in range(60)]
    stages = tuple(
        Stage(
            name=f"s{k}",
            steps=steps,
            mixture=Mixture(dict(zip(names, rng.dirichlet(np.ones(60)), strict=True))),
        )
        for k, steps in enumerate((2_861_000, 954_000, 954_000, 477_000))
    )
    schedule = Schedule(stages=stages, sequence_length=2048, batch_size=1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times: dict[int, list[float]] = {0: [], 5_000_000_000: []}
    for _ in range(5):
        for start, seen in times.items():
            began = time.process_time()
            sampler = Sampler(schedule, dict.fromkeys(names, 10**8), seed=0)
            sampler.locate(np.arange(start, start + 1024))
            seen.append(time.process_time() - began)
    first, late = (float(np.median(seen)) for seen in times.values())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"first batch of an 11T-token, 60-source, 4-stage schedule: sample 0 {first * 1e3:.1f} ms CPU, "
        f"sample 5e9 {late * 1e3:.1f} ms CPU, ratio {late / first:.2f}; memory +{grown:.1f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens-per-source", type=int, default=20_000_000)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    late_batch()
    with tempfile.TemporaryDirectory() as folder:
        stores = {}
        for seed, name in enumerate(WEIGHTS):
            write_store(
                Path(folder) / name,
                vocab_size=50_000,
                tokens=options.tokens_per_source,
                seed=seed,
                document_tokens=1000,
            )
            stores[name] = TokenStore.open(Path(folder) / name)
        readers: dict[str, Callable[[], Iterator[object]]] = {
            "sampler": lambda: ours(stores, options.batches),
            "interleave, map-style, DataLoader": lambda: interleaved(stores, streaming=False),
            "interleave, streaming": lambda: interleaved(stores, streaming=True),
        }
        seen: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(options.repeats):
            for name, make in readers.items():
                seen[name].append(rate(make(), options.batches))
        base = float(np.median(seen["sampler"]))
        for name, rates in seen.items():
            middle = float(np.median(rates))
            print(
                f"{name:<36}{middle / 1e6:8.1f} Mtok per CPU-second   sampler is {base / middle:.1f}x"
            )
        stage = Stage(name="a", steps=options.batches, mixture=Mixture(WEIGHTS))
        schedule = Schedule(stages=(stage,), sequence_length=LENGTH, batch_size=BATCH)
        counts = Sampler(schedule, dict.fromkeys(WEIGHTS, 1000), 0).counts(options.batches * BATCH)
        gap = max(abs(counts[n] / (options.batches * BATCH) - w) for n, w in WEIGHTS.items())
        print(f"largest gap between the mix asked for and got: {gap:.5%}")


if __name__ == "__main__":
    main()
