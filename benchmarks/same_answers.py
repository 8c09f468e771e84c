"""Compare what two versions of the code make of one stored demo, byte for byte.

    python benchmarks/same_answers.py make STORED OUT      # with each version of the code
    python benchmarks/same_answers.py compare OUT_A OUT_B  # with either

``make`` copies a finished demo (the folder in which ``make demo`` ran: its ``runs`` and ``data``), drops
every derived file, and gives the demo's own commands again: verdict, promote, report, and the plan of the
study. ``compare`` reads verdict.json, promotion.json, report.md, study.json, the promoted configs and the
files for nanotron of both. Two answers are equal when they differ in nothing but what ``VOLATILE`` names,
and the keys that ``RENAMED`` lists. Exits 1 where they differ, and prints each difference.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STUDY = "demo_ratio"
PROMOTION = f"promotions/{STUDY}-demo_full-001"
DERIVED = ("verdict.json", "report.html", "report.md")
READ = (
    *(f"runs/{STUDY}/{name}" for name in ("study.json", "finalists.json", "verdict.json")),
    "report.md",
    "plan.txt",
    *(f"{PROMOTION}/{name}" for name in ("promotion.json", "card.md", "comparison.json")),
    *(f"{PROMOTION}/{folder}/**/*.*" for folder in ("conf", "nanotron", "launch")),
)
"""Files that are compared, as patterns below an answer's folder."""

VOLATILE = frozenset(
    [
        "created",
        "content_sha256",
        "runs_dir",
        "host",
        "pid",
        "command",
        "commit",
        "git_commit",
        "versions",
        "wall_seconds",
    ]
)
"""Keys of JSON objects that hold a date, a host, a path or a mark of the rest."""

RENAMED: dict[str, str] = {}
"""Old key → new key, for keys of JSON objects that a version renamed."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+\d{4}| UTC)?")
_COMMIT = re.compile(r"\b[0-9a-f]{7,64}\b\+?")


def commands() -> Iterator[list[str]]:
    """The demo's commands that judge what was trained, and train nothing."""
    yield ["verdict", f"study={STUDY}"]
    yield ["promote", f"study={STUDY}", "full=demo_full", "promotion.pick={pick}"]
    yield ["promote", f"compare={PROMOTION}"]
    yield ["report", f"study={STUDY}", "markdown=report.md"]


def make(stored: Path, out: Path) -> None:
    """Copy the stored demo to ``out`` and judge it with this code."""
    shutil.copytree(stored / "runs", out / "runs", symlinks=True)
    (out / "data").symlink_to((stored / "data").resolve())
    for name in DERIVED:
        (out / "runs" / STUDY / name).unlink(missing_ok=True)
    for words in commands():
        call(out, [fill(out, word) for word in words])
    text = call(out, ["plan", "-m", f"experiment={STUDY}", "study=planned"])
    (out / "plan.txt").write_text(text)


def fill(out: Path, word: str) -> str:
    """Put the name of the verdict's pick, or of its baseline, into a word."""
    if "{pick}" not in word:
        return word
    verdict = json.loads((out / "runs" / STUDY / "verdict.json").read_text())
    return word.format(pick=verdict["pick" if verdict["outcome"] == "winner" else "baseline"])


def call(out: Path, words: list[str]) -> str:
    """Give one command in ``out``; return what it printed."""
    argv = [sys.executable, "-m", "ablations.cli", *words]
    done = subprocess.run(argv, cwd=out, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ablate {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def plain(value: Any) -> Any:
    """Return a JSON value without its volatile keys, under its new keys, with dates masked."""
    if isinstance(value, dict):
        kept = ((RENAMED.get(key, key), item) for key, item in value.items())
        return {key: plain(item) for key, item in kept if key not in VOLATILE}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def masked(text: str, folder: Path | None = None) -> str:
    """Mask dates, commits and hashes, and the answer's own folder."""
    if folder is not None:
        text = text.replace(str(folder.resolve()), "FOLDER")
    return _COMMIT.sub("HASH", _DATE.sub("DATE", text))


def differences(a: Path, b: Path) -> Iterator[str]:
    """Yield each difference between two answers, with the place where it stands."""
    names = [sorted({str(p.relative_to(out)) for g in READ for p in out.glob(g)}) for out in (a, b)]
    for name in sorted(set(names[0]) ^ set(names[1])):
        yield f"{name}: only in {a if name in names[0] else b}"
    for name in sorted(set(names[0]) & set(names[1])):
        texts = [masked((out / name).read_text(), out) for out in (a, b)]
        if name.endswith(".json"):
            values = [plain(json.loads((out / name).read_text())) for out in (a, b)]
            yield from (f"{name}{where}" for where in unequal(*values))
        else:
            lines = [text.splitlines() for text in texts]
            if len(lines[0]) != len(lines[1]):
                yield f"{name}: {len(lines[0])} lines and {len(lines[1])}"
            yield from (
                f"{name}:{i}: {x!r} and {y!r}"
                for i, (x, y) in enumerate(zip(*lines, strict=False), 1)
                if x != y
            )


def unequal(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Yield the places at which two JSON values differ; numbers must be equal to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b:
                yield f"{where}.{key}: only in one"
            else:
                yield from unequal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from unequal(*pair, f"{where}[{i}]")
    elif a != b:
        yield f"{where}: {a!r} and {b!r}"


def main() -> int:
    """Make an answer, or compare two."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, names in (("make", ("stored", "out")), ("compare", ("a", "b"))):
        sub = verbs.add_parser(verb)
        for name in names:
            sub.add_argument(name, type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "make":
        make(arguments.stored, arguments.out)
        return 0
    found = list(differences(arguments.a, arguments.b))
    print("\n".join(found) or "the answers are equal")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
