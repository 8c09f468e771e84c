"""Reading windows from a store against a bare numpy memory map: Mtok per CPU-second.

The yardstick is ``memmap.reshape(-1, L + 1)[windows]`` on one file, the fastest way numpy has. Ours
checks the windows and serves several files::

    python benchmarks/prepare_store.py --mtokens 50 --sequence 1024 --batch 32
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "data"))

from test_store import make_store  # the writer of small stores that the tests use

from ablations.data.store import TokenStore


def clock(
    read: Callable[[npt.NDArray[np.int64]], object], batches: list[npt.NDArray[np.int64]]
) -> float:
    start = time.process_time()
    for batch in batches:
        read(batch)
    return time.process_time() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--mtokens", type=float, default=50.0)
    arguments.add_argument("--files", type=int, default=4)
    arguments.add_argument("--sequence", type=int, default=1024)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--batches", type=int, default=1500)
    arguments.add_argument("--repeats", type=int, default=5)
    given = arguments.parse_args()
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 60_000, int(given.mtokens * 1e6), dtype=np.uint16)
    width = given.sequence + 1
    with tempfile.TemporaryDirectory() as scratch:
        one = TokenStore.open(make_store(Path(scratch) / "one", [tokens]))
        many = TokenStore.open(
            make_store(Path(scratch) / "many", np.array_split(tokens, given.files))
        )
        path = next((one.folder / "train").glob("*.ds"))
        bare = np.memmap(path, dtype="<u2", mode="r")
        matrix = bare[: len(bare) // width * width].reshape(-1, width)
        windows = min(one.num_windows(given.sequence), many.num_windows(given.sequence))
        batches = [rng.integers(0, windows, given.batch) for _ in range(given.batches)]
        wide = np.empty((given.batch, width), dtype=np.int64)
        readers: dict[str, Callable[[npt.NDArray[np.int64]], object]] = {
            "numpy memmap": lambda index: matrix[index],
            "store, one file": lambda index: one.read(index, given.sequence),
            f"store, {given.files} files": lambda index: many.read(index, given.sequence),
            "numpy memmap to int64": lambda index: matrix[index].astype(np.int64),
            "store into int64": lambda index: one.read_into(wide, index, given.sequence),
        }
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(given.repeats):
            for name, read in readers.items():
                seconds[name].append(clock(read, batches))
        total = given.batches * given.batch * width / 1e6
        for name, times in seconds.items():
            yardstick = "numpy memmap to int64" if "int64" in name else "numpy memmap"
            ratio = statistics.median(b / t for b, t in zip(seconds[yardstick], times, strict=True))
            print(
                f"{name:24s} {total / min(times):8.0f} Mtok per CPU-second   {ratio:.2f}x {yardstick}"
            )


if __name__ == "__main__":
    main()
