"""Small wrong changes to the code, made on purpose: how many of them the tests notice.

    python benchmarks/mutants.py [--count 150] [--seed 0] [--module GLOB] [--record FILE] [--list]
    python benchmarks/mutants.py --module '*/caps.py' --function 'bound*'       # one corner of the code
    python benchmarks/mutants.py --seed 0 --again FILE --seconds 300    # a record's survivors, more tests

Draws the changes evenly over the modules that decide results (benchmarks/mutants_table.py), at most one a
function: a comparison turned or shifted, `and` for `or`, a `not` or a sign lost, a constant, a check or a
call deleted, `min` for `max`, an early return dropped, an order lost, an argument left out. Each is made in
a scratch copy of the project. There, the tests of the table that reach the changed function run, those that
are not slow, until one fails: the nearest and fastest first, half a minute of them at most. A test that runs
for longer than its limit has noticed the change too: a changed loop may be endless.

A change costs seconds: the tests run in a child that this process forks with torch, pandas and the like
imported, and nothing of the project. Which test reaches which function is measured first, once for each test
file; --reach keeps that in a file for the next run.

Prints each change that survived, and the rate. The record has one JSON line a change, written
as it goes; a run that broke off goes on where its record ends.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.mutants_changes import Change, changes_of, read_defaults  # noqa: E402
from benchmarks.mutants_table import EQUIVALENT, MODULES, SETTINGS  # noqa: E402
from benchmarks.mutants_tests import CHANGE_SECONDS, PACKAGES, Reach, Scratch, warm  # noqa: E402

Drawn = tuple[Change, tuple[str, ...]]
"""A change, and the test files that hold its module."""


def modules() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the modules of the table, sorted, with the test files that hold each, its own first."""
    seen: dict[str, tuple[str, ...]] = {}
    for glob, tests in MODULES.items():
        for path in sorted(ROOT.glob(glob)):
            name = path.relative_to(ROOT).as_posix()
            if path.name != "__init__.py":
                seen.setdefault(name, tests)
    for name, tests in sorted(seen.items()):
        files = (
            path for test in (*tests, *SETTINGS) for path in sorted((ROOT / "tests").glob(test))
        )
        found = (
            file.relative_to(ROOT).as_posix() for file in files if file.name.startswith("test_")
        )
        yield name, tuple(dict.fromkeys(found))


def draw(count: int, seed: int, only: str = "*", function: str = "*") -> Iterator[Drawn]:
    """Yield ``count`` changes with their test files: one of each module in turn, then a second, and so on."""
    defaults = read_defaults(ROOT, PACKAGES)
    turn = []
    for name, tests in modules():
        if fnmatch.fnmatch(name, only):
            source = (ROOT / name).read_text()
            found = changes_of(name, source, defaults, seed, EQUIVALENT)
            turn.append((_within(found, function), tests))
    # The last round stops somewhere: which modules it leaves out is drawn as well.
    random.Random(seed).shuffle(turn)
    left = count
    while turn and left:
        for one in list(turn):
            change = next(one[0], None)
            if change is None:
                turn.remove(one)
            elif left:
                left -= 1
                yield change, one[1]


def _within(changes: Iterator[Change], function: str) -> Iterator[Change]:
    return (change for change in changes if fnmatch.fnmatch(change.function, function))


def try_all(
    changes: list[Drawn], scratch: Scratch, reach: Reach, record: Path | None, seconds: float
) -> Iterator[tuple[Change, str | None]]:
    """Try each change that is not in the record; yield each with the test that noticed it, or None."""
    known = outcomes_in(record)
    for number, (change, files) in enumerate(changes, start=1):
        if change.name in known:
            yield change, known[change.name]
            continue
        result = scratch.try_change(change, reach.tests_of(change, files, seconds))
        how = f"{result.noticed or 'SURVIVED'} ({result.tests} tests, {result.seconds:.1f} s)"
        print(
            f"{number}/{len(changes)} {change.module}:{change.line} {change.kind}: {how}",
            flush=True,
        )
        if record is not None:
            row = {"name": change.name, "kind": change.kind, "line": change.line}
            row |= {"noticed": result.noticed, "seconds": round(result.seconds, 1)}
            with record.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        yield change, result.noticed


def show(change: Change) -> None:
    """Print where a change is, and the line before and after."""
    print(f"{change.module}:{change.line} ({change.function}, {change.kind})")
    print(f"    {change.before}\n  → {change.after}")


def outcomes_in(record: Path | None) -> dict[str, str | None]:
    """Return the name of each recorded change → the test that noticed it when it was last tried."""
    if record is None or not record.exists():
        return {}
    rows = map(json.loads, record.read_text().splitlines())
    return {row["name"]: row["noticed"] for row in rows}


def main() -> int:
    """Draw the changes and try them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", default="*", metavar="GLOB", help="these modules alone")
    parser.add_argument("--function", default="*", metavar="GLOB", help="these functions alone")
    parser.add_argument(
        "--seconds", type=float, default=CHANGE_SECONDS, help="most seconds of tests for a change"
    )
    parser.add_argument("--record", type=Path, help="file to add one JSON line a change to")
    parser.add_argument(
        "--again", type=Path, metavar="RECORD", help="the survivors of a record alone"
    )
    parser.add_argument("--reach", type=Path, help="file that keeps which test reaches what")
    parser.add_argument("--list", action="store_true", help="print the changes and try none")
    options = parser.parse_args()
    changes = list(draw(options.count, options.seed, options.module, options.function))
    if options.again:
        last = outcomes_in(options.again)
        changes = [one for one in changes if last.get(one[0].name, "") is None]
    if options.list:
        for change, _ in changes:
            show(change)
        return 0
    warm()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        names = [name for name, _ in modules()]
        reach = Reach(Scratch(Path(folder) / "told"), names, options.reach)
        scratch = Scratch(Path(folder) / "changed")
        results = list(try_all(changes, scratch, reach, options.record, options.seconds))
    survivors = [change for change, noticed in results if noticed is None]
    print(f"\n{len(survivors)} survivors")
    for change in survivors:
        show(change)
    noticed = len(results) - len(survivors)
    rate = noticed / max(1, len(results))
    print(f"{noticed} of {len(results)} changes noticed ({rate:.1%}), seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
