"""Hostile and honest programs in the sandbox: who gets out, who passes unearned, who costs another.

    python benchmarks/sandbox_hostile.py                  all programs, as this kernel is
    python benchmarks/sandbox_hostile.py --kernel old     no name spaces, Landlock's first version
    python benchmarks/sandbox_hostile.py --items data/benchmarks/humaneval.jsonl

``--items`` runs the reference solutions of code tasks as well. After each hostile program an honest one
has to pass. Prints the programs that failed their aim, the most bytes that lay in the temporary folder,
the longest that a program took, and the processor time of a program.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.evaluation.prompts import make_prompt
from ablations.evaluation.sandbox.sandbox import Kernel, Limits, passes
from tests.oracles.honest import HONEST
from tests.oracles.hostile import GIVEN, HOSTILE, TESTS
from tests.oracles.outside import Outside

KERNELS = {"own": Kernel(), "old": Kernel(namespaces=False, landlock=1)}
SIMPLE = HONEST["math"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kernel", choices=KERNELS, default="own")
    parser.add_argument("--only", default="", help="part of a program's name")
    parser.add_argument("--items", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    kernel = KERNELS[asked.kernel]
    hostile = {name: text for name, text in HOSTILE.items() if asked.only in name}
    with tempfile.TemporaryDirectory() as folder, measured(Path(folder) / "boxes") as most:
        tempfile.tempdir = str(Path(folder) / "boxes")
        found = run_hostile(hostile, Path(folder) / "outside", kernel)
    print(f"hostile programs {len(hostile)}, most bytes in the temporary folder {most[0]:,}")
    for what in ("reached outside", "passed unearned", "cost another", "left files"):
        print(f"  {what}: {found[what]}")
    tempfile.tempdir = None
    began = _seconds()
    failed = [
        name for name, (text, tests) in HONEST.items() if not passes(text, tests, kernel=kernel)
    ]
    spent = (_seconds() - began) / len(HONEST)
    print(f"honest programs {len(HONEST)}, failed: {failed}, {1000 * spent:.1f} CPU-ms each")
    for path in asked.items:
        run_items(path, kernel)


def run_hostile(programs: dict[str, str], folder: Path, kernel: Kernel) -> Counter[str]:
    """Run each program and then an honest one; count what went wrong, and print it."""
    found: Counter[str] = Counter()
    longest = (0.0, "")
    with Outside(folder) as outside:
        for name, text in programs.items():
            began = time.monotonic()
            passed = passes(outside.fill(text), TESTS, given=GIVEN, kernel=kernel)
            longest = max(longest, (time.monotonic() - began, name))
            problems = {
                "passed unearned": ["pass"] if passed else [],
                "reached outside": outside.damage(),
                "left files": [path.name for path in Path(tempfile.gettempdir()).iterdir()],
                "cost another": [] if passes(*SIMPLE, kernel=kernel) else ["the next"],
            }
            for what, problem in problems.items():
                if problem:
                    found[what] += 1
                    print(f"{name}: {what}: {problem}", flush=True)
    print(f"longest: {longest[0]:.1f} s, {longest[1]} (wall clock limit {Limits().wall_seconds} s)")
    return found


def run_items(path: Path, kernel: Kernel) -> None:
    """Run the reference solutions of a task; print those that fail and the processor time of one."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    failed, began = [], _seconds()
    for row in rows:
        checks = make_prompt(row, "code", "{query}").checks
        assert checks is not None
        text = checks.before + row["choices"][0]
        if not passes(text, checks.after, given=checks.before, kernel=kernel):
            failed.append(row["id"])
    spent = 1000 * (_seconds() - began) / len(rows)
    print(
        f"{path.stem}: {len(rows)} reference solutions, failed: {failed}, {spent:.1f} CPU-ms each"
    )


@contextmanager
def measured(folder: Path) -> Iterator[list[int]]:
    """Watch how many bytes lie below ``folder``, every 10 ms."""
    folder.mkdir()
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            try:
                size = sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
            except OSError:  # a file went meanwhile, or a path grew too long
                continue
            most[0] = max(most[0], size)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
