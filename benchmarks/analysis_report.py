"""The report of a large study: seconds and megabytes, imports counted.

    python benchmarks/analysis_report.py --trials 500 --tasks 20
    python benchmarks/analysis_report.py --trials 20000 --tasks 10 --checkpoints 2 --steps 20 --verdict none

Target: under 10 s and under 2 MB for 500 trials and 20 tasks, for a study that has ended, whose verdict
is stored and read, and for one that is still running, whose verdict the report makes itself; under 10 MB
for 20,000 trials, without a verdict. plotly's script is a file beside the page and is not counted. The
study is made up; `--items` gives it details, which only the second reads. The yardstick, timed in turn
with them, is a plain fit of one Gaussian process on the same scores (of 500 trials if there are more),
which any report that shows a surrogate has to pay for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from analysis.synthetic import SyntheticStudy, write_study

REPORT = """
import sys
from ablations.cli import main
sys.exit(main(["report", "study=big", "runs_dir=" + sys.argv[1], *sys.argv[2:]]))
"""

FIT = """
import sys
from pathlib import Path
from analysis.figures import mixture_frame
from analysis.frames import Frames
from sweeps.search.surrogates import Surrogate, family
frames = Frames.read(Path(sys.argv[1]), "big")
table, names = mixture_frame(frames.trials, frames.sources)
table = table.head(500)
Surrogate(family("gp")).fit(table[names].to_numpy(), table[["score"]].to_numpy())
"""


def timed(script: str, folder: Path, *words: str) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-c", script, str(folder), *words]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def without_verdict(folder: Path) -> tuple[float, float]:
    """The report of the same study before it had a verdict."""
    stored, away = folder / "big" / "verdict.json", folder / "verdict.json"
    stored.rename(away)
    try:
        return timed(REPORT, folder)
    finally:
        away.rename(stored)


Timed = Callable[[], tuple[float, float]]


def print_rows(options: argparse.Namespace, folder: Path, reports: Mapping[str, Timed]) -> None:
    """Time the reports and the yardstick in turn, and print the fastest of each."""
    cases = {**reports, "frames and one fit": lambda: timed(FIT, folder)}
    taken: dict[str, list[tuple[float, float]]] = {label: [] for label in cases}
    for _ in range(options.repeats):
        for label, case in cases.items():
            taken[label].append(case())
    best = {label: min(times, key=lambda row: row[1]) for label, times in taken.items()}
    size = (folder / "big" / "report.html").stat().st_size
    print(
        f"{options.trials} trials x {options.tasks} tasks, {size / 1e6:.1f} MB; wall s, CPU s, ratio:"
    )
    for label, (wall, cpu) in best.items():
        print(f"  {label:24s} {wall:5.1f} {cpu:5.1f} {cpu / best['frames and one fit'][1]:5.2f}")


def write_big(options: argparse.Namespace, folder: Path) -> None:
    """Write the study, with the file that the page's commands repeat a run from."""
    study = SyntheticStudy(
        name="big",
        sources=("web", "chat", "math", "code"),
        trials=options.trials,
        tasks=options.tasks,
        items=options.items,
        checkpoints=options.checkpoints,
        steps=options.steps,
        confirmed=3,
    )
    for run in write_study(folder, study).iterdir():
        (run / "config.yaml").write_text("study: big\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--verdict", choices=("stored", "none"), default="stored")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "big").exists():
            write_big(options, folder)
        if options.verdict == "none":
            reports = {"report, no verdict": lambda: timed(REPORT, folder, "verdict=none")}
            print_rows(options, folder, reports)
            return
        if not (folder / "big" / "verdict.json").exists():
            verdict = "from ablations.cli import main; import sys; sys.exit(main(['verdict', "
            verdict += "'study=big', 'runs_dir=' + sys.argv[1]]))"
            wall, cpu = timed(verdict, folder)
            print(f"verdict {wall:.1f} s, {cpu:.1f} CPU s")
        print_rows(
            options,
            folder,
            {
                "report, verdict stored": lambda: timed(REPORT, folder),
                "report, verdict made": lambda: without_verdict(folder),
            },
        )


if __name__ == "__main__":
    main()
