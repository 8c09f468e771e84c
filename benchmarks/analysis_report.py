"""The report of a large study: seconds and megabytes, imports counted.

    python benchmarks/analysis_report.py --trials 500 --tasks 20

Target: under 10 s and under 10 MB for 500 trials and 20 tasks, for a study that has ended, whose verdict
is stored and read, and for one that is still running, whose verdict the report makes itself. The study
is made up; `--items` gives it details, which only the second reads. The yardstick, timed in turn with
them, is a plain fit of one Gaussian process on the same scores, which any report that shows a surrogate
has to pay for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analysis.synthetic import SyntheticStudy, write_study

REPORT = """
import sys
from ablations.cli import main
sys.exit(main(["report", "study=big", "runs_dir=" + sys.argv[1]]))
"""

FIT = """
import sys
from pathlib import Path
from analysis.figures import mixture_frame
from analysis.frames import Frames
from sweeps.search.surrogates import Surrogate, family
frames = Frames.read(Path(sys.argv[1]), "big")
table, names = mixture_frame(frames.trials, frames.sources)
Surrogate(family("gp")).fit(table[names].to_numpy(), table[["score"]].to_numpy())
"""


def timed(script: str, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, stdout=subprocess.PIPE)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "big").exists():
            sources = ("web", "chat", "math", "code")
            study = SyntheticStudy(
                name="big",
                sources=sources,
                trials=options.trials,
                tasks=options.tasks,
                items=options.items,
                checkpoints=8,
                steps=200,
                confirmed=3,
            )
            write_study(folder, study)
            verdict = "from ablations.cli import main; import sys; sys.exit(main(['verdict', "
            verdict += "'study=big', 'runs_dir=' + sys.argv[1]]))"
            wall, cpu = timed(verdict, folder)
            print(f"verdict {wall:.1f} s, {cpu:.1f} CPU s")
        rows = [
            (timed(REPORT, folder), without_verdict(folder), timed(FIT, folder))
            for _ in range(options.repeats)
        ]
        size = (folder / "big" / "report.html").stat().st_size
    ended, running, fit = (
        min(column, key=lambda row: row[1]) for column in zip(*rows, strict=True)
    )
    print(
        f"{options.trials} trials x {options.tasks} tasks, {size / 1e6:.1f} MB; wall s, CPU s, ratio:"
    )
    for label, row in (("report, verdict stored", ended), ("report, verdict made", running)):
        print(f"  {label:24s} {row[0]:5.1f} {row[1]:5.1f} {row[1] / fit[1]:5.2f}")
    print(f"  {'frames and one fit':24s} {fit[0]:5.1f} {fit[1]:5.1f}  1.00")


if __name__ == "__main__":
    main()
