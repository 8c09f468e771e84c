"""Preparation with the contamination report against one without: CPU seconds, same text and tokenizer.

Three sides: no report; the report as a step of each rank; the report by decoding and searching the store
afterwards. The last is what a store needs that was prepared for other tasks. The index of the items is a part
that does not grow with the text; it is measured alone, too::

    python benchmarks/prepare_contamination.py --items data/benchmarks --megabytes 48
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from prepare import write_text

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.contamination import TaskIndex, read_tasks
from ablations.data.contamination_report import REPORT, overlaps
from ablations.data.prepare import prepare
from ablations.data.task_index import task_index
from ablations.data.tokenizer import TokenizerSpec

TASKS = ("arc_easy", "gsm8k", "openbookqa", "piqa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=Path, required=True, help="folder of item files")
    parser.add_argument("--megabytes", type=float, default=48.0)
    parser.add_argument("--vocab-size", type=int, default=49_152)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = write_text(root / "texts", given.megabytes)
        (root / "data").mkdir()
        shutil.copytree(given.items, root / "data" / "benchmarks")
        origin = FilesOrigin(kind="files", paths=(str(root / "texts"),))
        source = SourceSpec(
            domain="code",
            tokens_available=10**7,
            origin=origin,
            licence="PSF-2.0",
            shards=given.shards,
        )
        spec = TokenizerSpec(name="t", vocab_size=given.vocab_size, sample_bytes=20_000_000)
        store = root / "data" / "t" / "text"

        def made(tasks: tuple[str, ...]) -> None:
            shutil.rmtree(store, ignore_errors=True)
            prepare({"text": source}, spec, root / "data", overlap_tasks=tasks)

        made(())  # trains the tokenizer
        seconds: dict[str, list[float]] = {"without": [], "in the ranks": [], "afterwards": []}
        for _ in range(given.repeats):
            seconds["without"].append(clock(lambda: made(())))
            seconds["in the ranks"].append(clock(lambda: made(TASKS)))
            within = overlaps({"text": store}, root / "data", TASKS)["text"]
            (store / REPORT).unlink()
            reports: list[object] = []
            took = clock(
                lambda r=reports: r.extend(overlaps({"text": store}, root / "data", TASKS)["text"])
            )
            seconds["afterwards"].append(seconds["without"][-1] + took)
            same = [(r.task, r.contaminated, r.documents) for r in within] == [
                (r.task, r.contaminated, r.documents) for r in reports
            ]
            assert same, "the two reports differ"
        made_anew = least(lambda: TaskIndex(read_tasks(given.items, TASKS)), given.repeats)
        kept = least(lambda: task_index(root / "data" / "benchmarks", TASKS), given.repeats)
    base = min(seconds["without"])
    print(f"{size / 1e6:.1f} MB, {given.shards} ranks, {len(TASKS)} tasks; the reports are equal")
    for name, times in seconds.items():
        print(f"report {name}: {min(times):.2f} CPU-s, {min(times) / base:.2f}x of none")
    print(f"index of the items: {kept:.3f} CPU-s a process, {made_anew:.3f} where it is made anew")


def least(work: Callable[[], object], times: int) -> float:
    return min(clock(work) for _ in range(times))


def clock(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
