"""Numbers and words of whole verdicts on fixed records: a constant that changes shows here."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console

from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.render import show
from sweeps.verdict.study_observations import gather
from tests.pinned import require_pinned

SHARES = ((0.7, 0.3), (0.6, 0.4), (0.4, 0.6), (0.1, 0.9), (0.3, 0.7))
WORDS = ("sentence", "answer", "settle_text")
"""Texts that contain numbers: compared as they are printed, without them."""
EFFECTS = (0.0, {"arc": 0.08, "wiki": -0.01}, 0.03, -0.02, 0.01)


@pytest.mark.parametrize(
    ("name", "seeds", "groups"),
    [
        ("verdict_grouped", (3, 3, 2, 3, 2), [f"g{i // 4}" for i in range(60)]),
        ("verdict_thin", (1, 1, 1, 1, 1), None),
    ],
)
def test_a_verdict_s_numbers_and_words_are_those_before(
    make_study: Callable[..., Any], name: str, seeds: Sequence[int], groups: Sequence[str] | None
) -> None:
    tasks = {"arc": "acc", "wiki": "bpb", "math": "acc"}
    study = make_study(items=60, groups=groups, tasks=tasks)
    for number, ((edu, dclm), effect) in enumerate(zip(SHARES, EFFECTS, strict=True)):
        for seed in range(seeds[number]):
            study.run(
                f"trial-{number:04d}",
                seed,
                weights={"edu": edu, "dclm": dclm},
                phase="baseline" if number == 0 else "design",
                name="natural" if number == 0 else "",
                asked_seeds=range(seeds[number]),
                effect=effect,
                flat=("math",) if number == 3 else (),
            )
    verdict = decide(gather(study.runs_dir, study.study), VerdictOptions(effect=0.02))
    # Draws of the intervals differ by 0.3% between two kinds of processors.
    stored = {key: value for key, value in asdict(verdict).items() if key not in WORDS}
    assert stored.pop("pictures") == ()  # as before there were pictures
    require_pinned(name, stored, relative=1e-2, absolute=1e-4)
    printed = Console(width=140, file=io.StringIO(), color_system=None)
    show(verdict, printed, verbose=True)
    # Numbers are compared above. Here they would change the width of a column.
    without = re.sub(r"[-+]?\d[\d.,e]*|─", "#", printed.file.getvalue())  # type: ignore[attr-defined]
    require_pinned(f"{name}_text", " ".join(re.sub(r"#+", "#", without).split()))
