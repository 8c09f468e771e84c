"""Scoring on one GPU: items per second against stock lighteval, same items, weights and tokenizer, one run.

    python benchmarks/gpu_scoring.py [--sizes 25M 135M 360M 1.7B] [--count 500]

Both sides in bfloat16, stock at the batch size that is best for it here; generated items unless
``--items`` names a folder. The code is benchmarks/scoring_speed.py's, with wall time in place of CPU
time. With ``--device cpu`` seconds are CPU seconds: it shows that the script runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import scoring_speed as speed
from benchmarks.gpu_common import headline


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--sizes", nargs="+", choices=list(speed.SIZES), default=["25M", "135M"])
    parser.add_argument("--items", type=Path, help="folder of item files; generated where absent")
    parser.add_argument("--tasks", nargs="+", default=list(speed.TASKS))
    parser.add_argument("--count", type=int, default=500, help="items of a task")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is seen; --device cpu shows that the script runs", file=sys.stderr)
        return 2
    arguments.dtype = "bfloat16"
    if arguments.device == "cpu":
        torch.set_num_threads(1)
        arguments.dtype, arguments.batch_tokens = "float32", 4096
    print(headline(torch.device(arguments.device)))
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), argparse.Namespace(**{**vars(arguments), "size": size}))
    return 0


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """One model: both sides, interleaved, the fastest of each."""
    case = speed._case(folder, arguments)
    items = sum(len(task.docs) for task in case.tasks)
    stock = speed._stock_model(case, arguments.window, 32)
    best = speed._best_batch_size(stock, case)
    stock.config.batch_size = stock.batch_size = best
    times = speed._race(case, stock, arguments)
    print(speed._describe(case, arguments.size))
    for name, seconds in times.items():
        ratio = f"  {times['stock'] / seconds:.2f}x" if name != "stock" else f"  batch size {best}"
        print(f"{name:>24}  {items / seconds:10,.0f} items/s{ratio}")


if __name__ == "__main__":
    sys.exit(main())
