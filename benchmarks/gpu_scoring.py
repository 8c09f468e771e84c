"""Scoring on one GPU: items per second against stock lighteval, same items, weights and tokenizer, one run.

    python benchmarks/gpu_scoring.py [--sizes 25M 135M 360M 1.7B] [--count 500] [--minutes 10]

Both sides in bfloat16, stock at the batch size that is best for it here; generated items unless
``--items`` names a folder. The code is benchmarks/scoring_speed.py's, with wall time in place of CPU
time. Ours is written first, then stock, each when it is there (``--out``); the end names what was not
reached.
With ``--device cpu`` seconds are CPU seconds: it shows that the script runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import scoring_speed as speed
from benchmarks.gpu_figures import Figures, time_options


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
    time_options(parser)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is seen; --device cpu shows that the script runs", file=sys.stderr)
        return 2
    arguments.dtype = "bfloat16"
    if arguments.device == "cpu":
        torch.set_num_threads(1)
        arguments.dtype, arguments.batch_tokens = "float32", 4096
    device = torch.device(arguments.device)
    with Figures("gpu_scoring", arguments.out, arguments.minutes, device) as figures:
        figures.plan([f"scoring {size} {side}" for size in arguments.sizes for side in SIDES])
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory() as folder:
                given = argparse.Namespace(**{**vars(arguments), "size": size})
                measure(Path(folder), given, figures)
    return 0


SIDES = ("first checkpoint", "further checkpoints", "stock lighteval")


def measure(folder: Path, arguments: argparse.Namespace, figures: Figures) -> None:
    """One model: ours, then stock at its best batch size, the fastest of the repeats of each."""
    if figures.seconds_left <= 0:
        return
    case = speed._case(folder, arguments)
    items = sum(len(task.docs) for task in case.tasks)
    print(speed._describe(case, arguments.size), flush=True)
    rates: dict[str, float] = {}
    for side in SIDES:
        what = f"scoring {arguments.size} {side}"
        with figures.part(what) as begin:
            if not begin:
                continue
            seconds, values = SECONDS_OF[side](case, arguments)
            rates[side] = items / seconds
            words = f"{rates[side]:10,.0f} items/s" + "".join(
                f"  {k} {v}" for k, v in values.items()
            )
            figures.add(what, words, items_per_second=round(rates[side], 1), items=items, **values)
    for side in SIDES[:2]:
        if {side, SIDES[2]} <= rates.keys():
            ratio = rates[side] / rates[SIDES[2]]
            what = f"scoring {arguments.size} {side} / stock"
            figures.add(what, f"{ratio:.2f}x", ratio=round(ratio, 3))


def _first(case: speed.Case, arguments: argparse.Namespace) -> tuple[float, dict[str, int]]:
    """Tokenise, plan and score, as at a run's first checkpoint; once before, for the kernels."""
    speed._ours(speed._memory_model(case, arguments), case)
    clocks = []
    for _ in range(arguments.repeats):
        model = speed._memory_model(case, arguments)
        clocks.append(speed._clock(case, lambda m=model: speed._ours(m, case)))
    return min(clocks), {}


def _further(case: speed.Case, arguments: argparse.Namespace) -> tuple[float, dict[str, int]]:
    """Score alone, as at the checkpoints after the first."""
    model = speed._memory_model(case, arguments)
    speed._ours(model, case)
    rounds = range(arguments.repeats)
    return min(speed._clock(case, lambda: speed._ours(model, case)) for _ in rounds), {}


def _stock(case: speed.Case, arguments: argparse.Namespace) -> tuple[float, dict[str, int]]:
    """Stock lighteval at the batch size that is best for it here."""
    stock = speed._stock_model(case, arguments.window, 32)
    best = speed._best_batch_size(stock, case)
    stock.config.batch_size = stock.batch_size = best
    rounds = range(arguments.repeats)
    seconds = min(speed._clock(case, lambda: speed._stock(stock, case)) for _ in rounds)
    return seconds, {"batch_size": best}


SECONDS_OF = dict(zip(SIDES, (_first, _further, _stock), strict=True))


if __name__ == "__main__":
    sys.exit(main())
