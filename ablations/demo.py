"""``make demo``: the whole platform on real text, in a shortened form, by the commands that a user types.

Each command is printed before it runs, and left out when it was done before: the demo goes on where it was
stopped. The searches, the confirmation and the full run are cut so that two cores finish in minutes; without
the overrides the same commands run at full length.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["STEPS", "main"]

_SHORT_STUDY = (
    # At half the tokens, and with two seeds, the verdict's interval is five times as wide.
    "schedule.total_tokens=204800",
    "search.strategy.design_trials=4",
    "search.budget.trials=7",
    "search.confirm.finalists=1",
)
_SHORT_FULL = ("promotion.full.total_tokens=307200",)
_WHY = "+promotion.override.beats_baseline='a demo promotes whatever it finds'"

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("real text into token stores, real items into task files", ("prepare",)),
    ("the bill of one run", ("plan",)),
    ("one run: 600 steps, three checkpoints, eleven tasks and four held-out texts", ("run",)),
    ("a search: wiki against chat", ("run", "-m", "experiment=demo_ratio", *_SHORT_STUDY)),
    ("winner, tie, or keep the baseline", ("verdict", "study=demo_ratio")),
    ("freeze the schedule", ("promote", "study=demo_ratio", "full=demo_full", *_SHORT_FULL, _WHY)),
    (
        "the full run, four stages",
        ("run", "--config-dir", "{promotion}/conf", "experiment=promoted"),
    ),
    ("what the proxies predicted, what it did", ("promote", "compare={promotion}")),
    ("the report", ("report", "study=demo_ratio")),
    ("every run", ("ls",)),
)
"""What is said before each command, and its words after ``ablate``."""

_PROMOTION = Path("promotions/demo_ratio-demo_full-001")


def main() -> int:
    """Run every step; the exit code of the first that fails."""
    began = time.monotonic()
    for said, words in STEPS:
        if words[0] == "promote" and "compare" not in words[1] and _PROMOTION.exists():
            continue  # a second promotion would be a new folder
        arguments = [word.format(promotion=_PROMOTION) if "{p" in word else word for word in words]
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
