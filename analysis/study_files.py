"""What `sweeps` keeps of a study, as the analysis needs it: question, verdict, commands.

Everything here is optional: a folder of plain runs has no ``study.json``, a running study has no
verdict yet, and both still deserve a report.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ablations.errors import UserError
from ablations.terminal import override_word
from analysis.records import RunFiles, command_line

if TYPE_CHECKING:
    from sweeps.study.definition import Definition
    from sweeps.verdict.verdict_record import Verdict

__all__ = [
    "Judged",
    "VerdictMode",
    "ailments",
    "definition_of",
    "judged",
    "question_of",
    "rerun_command",
]

VerdictMode = Literal["auto", "stored", "none"]


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


def ailments(folder: Path) -> list[str]:
    """Return what of a study's own files cannot be read, one text a file; empty where all is well."""
    from sweeps.study.definition import load_definition
    from sweeps.verdict.verdict_record import VERDICT_FILE, read_verdict

    found = []
    readers: list[Callable[[Path], object]] = [load_definition]
    if os.path.lexists(folder / VERDICT_FILE):
        readers.append(read_verdict)
    for read in readers:
        try:
            read(folder)
        except (UserError, OSError) as error:
            found.append(str(error))
    return found


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
            f"`ablate verdict {override_word('study', study)}` renews it."
        )
        return Judged(verdict=stored, origin="stored", note=note)
    if stored is not None:
        return Judged(verdict=stored, origin="stored", note="")
    unread = ""
    if os.path.lexists(folder / "verdict.json"):
        unread = "The stored verdict cannot be read. "
    if mode == "stored":
        command = f"ablate verdict {override_word('study', study)}"
        note = f"{unread or 'There is no verdict yet: '}`{command}` gives it."
        return Judged(verdict=None, origin="none", note=note)
    made = _computed(Path(runs_dir), study)
    return replace(made, note=unread + made.note)


def _stored(folder: Path) -> Verdict | None:
    from sweeps.verdict.verdict_record import read_verdict

    try:
        return read_verdict(folder)
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def _since(created: float, files: Sequence[RunFiles]) -> int:
    return sum((run.manifest.get("finished") or 0.0) > created for run in files)


def _computed(runs_dir: Path, study: str) -> Judged:
    from sweeps.verdict.decide import decide
    from sweeps.verdict.study_observations import gather

    try:
        verdict = decide(gather(runs_dir, study))
    except UserError as error:
        reason = "; ".join(str(problem) for problem in error.problems)
        return Judged(verdict=None, origin="none", note=f"No verdict can be given yet: {reason}.")
    note = f"Made for this report and not kept; `ablate verdict {override_word('study', study)}` keeps it."
    return Judged(verdict=verdict, origin="computed", note=note)


def rerun_command(run: RunFiles) -> str:
    """The command that repeats one run from its record, into a study of its own.

    A record is never overwritten, hence the other study. ``stores`` is what the run added to its
    config: the tokens that were found prepared.
    """
    if not Path(run.folder, "config.yaml").exists():
        return command_line(run.manifest.get("command") or ())
    arguments = ["--config-dir", run.folder, "--config-name", "config"]
    if "stores" in (run.manifest.get("config") or {}):
        arguments.append("~stores")
    arguments += [f"study={run.study}_again", "hydra.run.dir=.", "hydra.output_subdir=null"]
    return shlex.join(["ablate", "run", *arguments])
