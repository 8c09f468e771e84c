"""``make demo``: the whole platform on real text, by the commands that a user types.

Each command is printed before it runs, and does nothing if it was done before: the demo continues where
it was stopped. The verdict decides what is promoted: the winner, or else the baseline. If a mixture won,
the full run trains the baseline too, and the comparison puts the difference between the two beside the
predicted one.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.files import read_json

__all__ = ["STEPS", "Step", "filled", "main", "skipped"]


@dataclass(frozen=True)
class Step:
    """One command of the demo."""

    text: str
    """Printed before the command."""
    words: tuple[str, ...]
    """Words after ``ablate``; braces are filled in as the demo goes."""
    only_winner: bool = False
    """True if the step runs only when a mixture won over the baseline."""
    once: bool = False
    """True if a second call would make a second folder. A demo that is continued skips the step."""


STEPS: tuple[Step, ...] = (
    Step("real text into token stores, real items into task files", ("prepare",)),
    Step("the cost of one run", ("plan",)),
    Step("one run: 600 steps, three checkpoints, eleven tasks and four held-out texts", ("run",)),
    Step(
        "a search: how much code beside encyclopedic text? Ten mixtures, four seeds of the finalists",
        ("run", "-m", "experiment=demo_ratio"),
    ),
    Step("winner, tie, or keep what is trained today", ("verdict", "study=demo_ratio")),
    Step(
        "freeze the schedule of the winner, or of the baseline where nobody won",
        ("promote", "study=demo_ratio", "full=demo_full", "promotion.pick={pick}"),
        once=True,
    ),
    Step(
        "the full run: a larger model, twice the tokens, three stages",
        ("run", "--config-dir", "{promotion}/conf", "experiment=promoted"),
    ),
    Step(
        "the same full run with what is trained today",
        ("run", "--config-dir", "{promotion}/conf", "experiment=baseline"),
        only_winner=True,
    ),
    Step(
        "the difference that the proxies predicted, and the one that the full runs show",
        ("promote", "compare={promotion}"),
    ),
    Step("the report", ("report", "study=demo_ratio")),
    Step(
        "for comparison, an honest tie: the published FineWeb-Edu/DCLM table",
        ("verdict", "table=smollm2_web_ratio"),
    ),
    Step("every run", ("ls",)),
)
"""The commands of the demo, in order."""

POST_STEPS: tuple[Step, ...] = (
    Step("conversations into row stores", ("prepare", "experiment=demo_sft")),
    Step("preferences into row stores", ("prepare", "experiment=demo_dpo")),
    Step(
        "a search: which mixture of chat, code and mathematics to fine-tune on",
        ("run", "-m", "experiment=demo_sft"),
    ),
    Step("winner, tie, or keep the even mixture", ("verdict", "study=demo_sft")),
    Step(
        "a search: which learning rate and beta to prefer with",
        ("run", "-m", "experiment=demo_dpo"),
    ),
    Step("winner or tie", ("verdict", "study=demo_dpo")),
    Step(
        "freeze the full run with the picks of both studies after it",
        (
            *("promote", "study=demo_ratio", "full=demo_full", "promotion.pick={pick}"),
            "+promotion.after.sft.study=demo_sft",
            "+promotion.after.dpo.study=demo_dpo",
        ),
        once=True,
    ),
    Step(
        "base, fine-tuning and preferences by one command",
        ("run", "--config-dir", "{promotion}/conf", "experiment=chain"),
    ),
    Step("the report of the fine-tuning", ("report", "study=demo_sft")),
    Step("every run", ("ls",)),
)
"""The commands of the demo after pretraining, in order; they go on from the demo's own."""

VISION_STEPS: tuple[Step, ...] = (
    Step(
        "questions about pictures, and text, into row stores", ("prepare", "experiment=demo_sight")
    ),
    Step(
        "a vision part on the demo's full run, trained once for all runs of the study",
        ("run", "experiment=demo_sight"),
    ),
    Step(
        "a search: how much text, how many digits, charts and shapes?",
        ("run", "-m", "experiment=demo_vision"),
    ),
    Step("winner, tie, or keep 14% text", ("verdict", "study=demo_vision")),
    Step("the report", ("report", "study=demo_vision")),
    Step("every run", ("ls",)),
)
"""The commands of the demo with pictures, in order; they go on from the demo's own."""

_PROMOTION = Path("promotions/demo_ratio-demo_full-001")
_POST_PROMOTION = Path("promotions/demo_ratio-demo_full-002")
_VERDICT = Path("runs/demo_ratio/verdict.json")


_PARTS = {
    "post": (POST_STEPS, _POST_PROMOTION, "demo_sft"),
    "vision": (VISION_STEPS, _PROMOTION, "demo_vision"),
}
"""Part of the demo → its commands, the promotion that they name, the study whose report is the result."""


def filled(word: str, promotion: Path = _PROMOTION) -> str:
    """Return a word of a step with what the steps before it found."""
    if "{pick}" in word:
        verdict = _verdict()
        return word.replace("{pick}", verdict["pick" if _won(verdict) else "baseline"])
    return word.replace("{promotion}", str(promotion))


def skipped(step: Step, promotion: Path = _PROMOTION) -> str | None:
    """Return why a step is left out; None where it runs."""
    if step.once and promotion.exists():
        return f"done before: {promotion}"
    if step.only_winner and not _won(_verdict()):
        return "no mixture won over what is trained today, so there is no second full run"
    return None


def _verdict() -> Any:
    return read_json(_VERDICT)


def _won(verdict: Any) -> bool:
    return bool(verdict["outcome"] == "winner")


def main(extra: Sequence[str] = ()) -> int:
    """Run every step.

    Args:
        extra: ``post`` for the steps after pretraining or ``vision`` for those with pictures, and overrides
            that each ``run`` gets as well.

    Returns:
        The exit code of the first step that fails, else 0.
    """
    began = time.monotonic()
    part = next((word for word in extra if word in _PARTS), None)
    extra = [word for word in extra if word != part]
    steps, promotion, study = _PARTS[part] if part else (STEPS, _PROMOTION, "demo_ratio")
    for step in steps:
        if (why := skipped(step, promotion)) is not None:
            print(f"\n# {step.text}: {why}", flush=True)
            continue
        arguments = [filled(word, promotion) for word in step.words]
        arguments += extra if arguments[0] == "run" else ()
        print(f"\n# {step.text}\n$ ablate {shlex.join(arguments)}", flush=True)
        code = subprocess.call([sys.executable, "-m", "ablations.cli", *arguments])
        if code:
            print(f"\nthe demo stopped: exit code {code}; the same command goes on from here")
            return code
    minutes = (time.monotonic() - began) / 60
    print(f"\ndone in {minutes:.1f} minutes; open runs/{study}/report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
