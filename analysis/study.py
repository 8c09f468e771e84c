"""What `sweeps` keeps of a study, as the analysis needs it: question, verdict, commands.

Everything here is optional: a folder of plain runs has no ``study.json``, a running study has no
verdict yet, and both still deserve a report.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablations.errors import UserError
from analysis.records import RunFiles, read_json_or_none

if TYPE_CHECKING:
    from sweeps.study.definition import Definition
    from sweeps.verdict.record import Verdict

__all__ = ["Judged", "VerdictMode", "definition_of", "judged", "question_of", "rerun_command"]

VerdictMode = Literal["auto", "stored", "none"]

_NOT_REPEATED = (
    "study=",
    "trial=",
    "seed=",
    "runs_dir=",
    "data_dir=",
    "progress=",
    "hydra",
    "search",
)
"""Arguments of a study's command that a single run does not take over."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict on a study, or why there is none."""

    verdict: Verdict | None
    origin: Literal["stored", "computed", "none"]
    note: str
    """What the reader has to know of it: that it is stale, or why there is none; may be empty."""


def definition_of(folder: Path) -> Definition | None:
    """The study's definition; None for a folder of plain runs, or one that cannot be read."""
    from sweeps.study.definition import load_definition

    try:
        return load_definition(folder)
    except (OSError, TypeError, ValueError):
        return None


def question_of(definition: Definition | None, study: str) -> str:
    """The question that the study asks, in words."""
    if definition is not None and definition.question:
        return str(definition.question)
    return f"How do the runs of {study} compare?"


def judged(runs_dir: Path, study: str, files: Sequence[RunFiles], mode: VerdictMode) -> Judged:
    """The stored verdict, or one made now.

    Args:
        runs_dir: Where records are.
        study: The study.
        files: Its runs, for how old a stored verdict is against them.
        mode: "auto" = the stored one, else one made now and not kept; "stored" = only the stored
            one; "none" = no verdict.
    """
    if mode == "none":
        return Judged(verdict=None, origin="none", note="No verdict was asked for.")
    folder = Path(runs_dir) / study
    stored = _stored(folder)
    if stored is not None and (fresh := _since(stored.created, files)):
        note = (
            f"{fresh} run{'s' if fresh > 1 else ''} ended after this verdict was given: "
            f"`ablate verdict study={study}` renews it."
        )
        return Judged(verdict=stored, origin="stored", note=note)
    if stored is not None:
        return Judged(verdict=stored, origin="stored", note="")
    if mode == "stored":
        note = f"No verdict was given yet: `ablate verdict study={study}` gives it."
        return Judged(verdict=None, origin="none", note=note)
    return _computed(Path(runs_dir), study)


def _stored(folder: Path) -> Verdict | None:
    from sweeps.verdict.record import read_verdict

    try:
        return read_verdict(folder)
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def _since(created: float, files: Sequence[RunFiles]) -> int:
    return sum((run.manifest.get("finished") or 0.0) > created for run in files)


def _computed(runs_dir: Path, study: str) -> Judged:
    from sweeps.verdict.decide import decide
    from sweeps.verdict.study import gather

    try:
        verdict = decide(gather(runs_dir, study))
    except UserError as error:
        reason = "; ".join(str(problem) for problem in error.problems)
        return Judged(verdict=None, origin="none", note=f"No verdict can be given yet: {reason}.")
    note = f"Made for this report and not kept; `ablate verdict study={study}` keeps it."
    return Judged(verdict=verdict, origin="computed", note=note)


def rerun_command(run: RunFiles, definition: Definition | None) -> str:
    """The command that repeats one run, into a study of its own: a record is never overwritten."""
    ask = read_json_or_none(f"{run.folder}/ask.json")
    if not isinstance(ask, Mapping):
        return shlex.join(map(str, run.manifest.get("command") or ()))
    overrides = [*_fixed(ask, definition), *_point(ask.get("point") or {})]
    seed = run.manifest.get("seed", 0)
    return shlex.join(["ablate", "run", *overrides, f"seed={seed}", f"study={run.study}_again"])


def _fixed(ask: Mapping[str, Any], definition: Definition | None) -> list[str]:
    """What all trials share; a combination of a plain sweep brings its own."""
    arguments = ask.get("overrides") or (definition.arguments if definition else ())
    return [
        str(argument)
        for argument in arguments
        if "=" in str(argument) and not str(argument).lstrip("+~").startswith(_NOT_REPEATED)
    ]


def _point(point: Mapping[str, Any]) -> list[str]:
    from sweeps.study.job import quoted

    overrides = []
    for path, value in point.items():
        if isinstance(value, Mapping):
            overrides += [f"++{path}.{name}={float(weight)!r}" for name, weight in value.items()]
        else:
            overrides.append(f"{path}={quoted(value)}")
    return overrides
