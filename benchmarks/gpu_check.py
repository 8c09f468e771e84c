"""Does the platform work on this machine's GPU, and is it right? A line a check, exit code 1 on a failure.

    python benchmarks/gpu_check.py [--device cuda] [--at-once 16] [--report gpu_check.json]

Run by `make gpu-check`; takes minutes, most of them compilation, and ends within --minutes. Each check has a
process of its own: one that fails, hangs or takes the device down does not stop the others. ``--at-once``
runs several side by side; those begin first that take longest. Each answer is written when it is there
(``--out``, a JSON line each). With ``--device cpu`` it shows what a CPU can show; the rest is "skipped".
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.gpu_bench import NeedsMoreError, bench_of
from benchmarks.gpu_checks import CHECKS
from benchmarks.gpu_figures import Figures

LONGEST_SECONDS = 200.0
"""That one check may take."""


def main() -> int:
    arguments = options().parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is seen; --device cpu checks what a CPU can show", file=sys.stderr)
        return 2
    if arguments.one:
        return worked(arguments)
    device = torch.device(arguments.device)
    about = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    names = list(arguments.only or CHECKS)
    ends = time.monotonic() + 60 * arguments.minutes
    with (
        tempfile.TemporaryDirectory(prefix="gpu-check-") as folder,
        Figures("gpu_check", arguments.out, arguments.minutes, device) as figures,
        ThreadPoolExecutor(arguments.at_once) as pool,
    ):
        bench_of(Path(folder), arguments.device)  # the stores that all of them read
        figures.plan(names)
        if arguments.at_once > 1:
            names.sort(key=lambda name: name not in LONGEST)
        rows = list(pool.map(lambda name: run(name, Path(folder), arguments, ends, figures), names))
    rows.sort(key=lambda row: list(CHECKS).index(row["check"]))
    counts = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if arguments.report:
        arguments.report.write_text(json.dumps({**about, "checks": rows}, indent=1) + "\n")
    return 1 if counts["FAILED"] else 0


STATUSES = ("ok", "skipped", "FAILED")

LONGEST = ("study", "scoring")
"""Checks to begin with where several run side by side."""


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--report", type=Path, help="write the results as JSON")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), help="some checks")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all checks together")
    parser.add_argument("--at-once", type=int, default=1, help="checks side by side")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of JSON lines")
    parser.add_argument("--one", choices=list(CHECKS), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser


def run(
    name: str, root: Path, arguments: argparse.Namespace, ends: float, figures: Figures
) -> dict[str, Any]:
    """One check in a process of its own; its row, printed and written."""
    began = time.monotonic()
    limit = min(LONGEST_SECONDS, ends - began)
    command = [sys.executable, __file__, "--one", name, "--root", str(root)]
    status, said = "FAILED", "no time was left for it"
    if limit > 0:
        status, said = _watched(
            [*command, "--device", arguments.device], limit, root / f"{name}.log"
        )
    seconds = time.monotonic() - began
    row = {"check": name, "status": status, "said": said, "seconds": round(seconds, 1)}
    words = f"{status:7}  {seconds:6.1f} s  {said}"
    figures.add(name, words, status=status, said=said, seconds=row["seconds"])
    return row


def _watched(command: list[str], limit: float, log: Path) -> tuple[str, str]:
    """Run a check's process, and end it and all that it started when its time is over."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "FAILED", f"not over after {limit:.0f} s; {_last_lines(log)}"
    answer = log.with_suffix(".json")
    if answer.exists():
        row = json.loads(answer.read_text())
        if row["status"] == "FAILED":
            print(_last_lines(log, 25), file=sys.stderr)
        return row["status"], row["said"]
    return "FAILED", f"its process ended with code {code}; {_last_lines(log)}"


def _last_lines(log: Path, count: int = 3) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-count:])


def worked(arguments: argparse.Namespace) -> int:
    """Inside a check's process: do it, and leave the answer beside its log."""
    check = CHECKS[arguments.one]
    try:
        status, said = "ok", check(bench_of(arguments.root, arguments.device))
    except NeedsMoreError as reason:
        status, said = "skipped", str(reason)
    except Exception as error:
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        status, said = "FAILED", f"{type(error).__name__}: {first}"
    answer = {"status": status, "said": said}
    (arguments.root / f"{arguments.one}.json").write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
