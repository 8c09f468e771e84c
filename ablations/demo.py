"""``make demo``: the whole platform on real text, by the commands that a user types.

Each command is printed before it runs, and does nothing where it was done before: the demo goes on where
it was stopped. What the verdict says decides what is promoted: the winner, or else the baseline.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from ablations.files import read_json

__all__ = ["STEPS", "filled", "main"]

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("real text into token stores, real items into task files", ("prepare",)),
    ("the bill of one run", ("plan",)),
    ("one run: 600 steps, three checkpoints, eleven tasks and four held-out texts", ("run",)),
    (
        "a search: wiki against chat, twelve mixtures, three seeds of the finalists",
        ("run", "-m", "experiment=demo_ratio"),
    ),
    ("winner, tie, or keep the baseline", ("verdict", "study=demo_ratio")),
    (
        "freeze the schedule of the winner, or of the baseline where nobody won",
        ("promote", "study=demo_ratio", "full=demo_full", "promotion.pick={pick}"),
    ),
    (
        "the full run, four stages",
        ("run", "--config-dir", "{promotion}/conf", "experiment=promoted"),
    ),
    ("what the proxies predicted, what it did", ("promote", "compare={promotion}")),
    ("the report", ("report", "study=demo_ratio")),
    ("every run", ("ls",)),
)
"""What is said before each command, and its words after ``ablate``; braces are filled in as it goes."""

_PROMOTION = Path("promotions/demo_ratio-demo_full-001")


def filled(word: str) -> str:
    """A word of a step with what the steps before it found."""
    if "{pick}" in word:
        verdict = read_json(Path("runs/demo_ratio/verdict.json"))
        return word.format(pick=verdict["pick" if verdict["outcome"] == "winner" else "baseline"])
    return word.replace("{promotion}", str(_PROMOTION))


def main() -> int:
    """Run every step; the exit code of the first that fails."""
    began = time.monotonic()
    for said, words in STEPS:
        if words[0] == "promote" and "compare" not in words[1] and _PROMOTION.exists():
            continue  # a second promotion would be a new folder
        arguments = [filled(word) for word in words]
        shown = shlex.join(arguments)
        print(f"\n# {said}\n$ ablate {shown}", flush=True)
        code = subprocess.call([sys.executable, "-m", "ablations.cli", *arguments])
        if code:
            print(f"\nthe demo stopped: exit code {code}; the same command goes on from here")
            return code
    print(
        f"\ndone in {(time.monotonic() - began) / 60:.1f} minutes; open runs/demo_ratio/report.html"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
