"""Files that `sweeps` writes for a study: its question, verdict and commands.

All of them are optional: a folder of plain runs has no ``study.json``, a running study has no
verdict yet, and both can be reported.
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
    "LoadedVerdict",
    "VerdictMode",
    "ailments",
    "definition_of",
    "load_verdict",
    "question_of",
    "rerun_command",
]

VerdictMode = Literal["auto", "stored", "none"]


@dataclass(frozen=True, kw_only=True)
class LoadedVerdict:
    """Verdict on a study, or the reason why there is none."""

    verdict: Verdict | None
    origin: Literal["stored", "computed", "none"]
    note: str
    """Note for the reader: that the verdict is outdated, or why there is none; may be empty."""


def definition_of(folder: Path) -> Definition | None:
    """Read the study's definition; None for a folder of plain runs, or if it cannot be read."""
    from sweeps.study.definition import load_definition

    try:
        return load_definition(folder)
    except (OSError, TypeError, ValueError):
        return None


def ailments(folder: Path) -> list[str]:
    """Return one message for each of the study's own files that cannot be read."""
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
    """Return the question that the study states, or a general one."""
    if definition is not None and definition.question:
        return str(definition.question)
    return f"How do the runs of {study} compare?"


def load_verdict(
    runs_dir: Path, study: str, files: Sequence[RunFiles], mode: VerdictMode
) -> LoadedVerdict:
    """Return the stored verdict, or compute one.

    Args:
        runs_dir: Folder of the records.
        study: Name of the study.
        files: Runs of the study, to check that none ended after the stored verdict.
        mode: "auto" = the stored one, else one that is computed and not stored; "stored" = only the
            stored one; "none" = no verdict.
    """
    if mode == "none":
        return LoadedVerdict(verdict=None, origin="none", note="No verdict was requested.")
    folder = Path(runs_dir) / study
    stored = _stored(folder)
    if stored is not None and (fresh := _since(stored.created, files)):
        note = (
            f"{fresh} run{'s' if fresh > 1 else ''} ended after this verdict was made: "
            f"`ablate verdict {override_word('study', study)}` updates it."
        )
        return LoadedVerdict(verdict=stored, origin="stored", note=note)
    if stored is not None:
        return LoadedVerdict(verdict=stored, origin="stored", note="")
    unread = ""
    if os.path.lexists(folder / "verdict.json"):
        unread = "The stored verdict cannot be read. "
    if mode == "stored":
        command = f"ablate verdict {override_word('study', study)}"
        note = f"{unread or 'There is no verdict yet: '}`{command}` makes it."
        return LoadedVerdict(verdict=None, origin="none", note=note)
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


def _computed(runs_dir: Path, study: str) -> LoadedVerdict:
    from sweeps.verdict.decide import decide
    from sweeps.verdict.study_observations import gather

    try:
        verdict = decide(gather(runs_dir, study))
    except UserError as error:
        reason = "; ".join(str(problem) for problem in error.problems)
        note = f"No verdict can be made yet: {reason}."
        return LoadedVerdict(verdict=None, origin="none", note=note)
    command = f"ablate verdict {override_word('study', study)}"
    note = f"Computed for this report and not stored; `{command}` stores it."
    return LoadedVerdict(verdict=verdict, origin="computed", note=note)


def rerun_command(run: RunFiles) -> str:
    """Return the command that repeats one run from its record, in a new study.

    The study differs because a record is never overwritten. ``stores`` is left out because the run
    itself added it to its config: the prepared tokens that it found.
    """
    if not Path(run.folder, "config.yaml").exists():
        return command_line(run.manifest.get("command") or ())
    arguments = ["--config-dir", run.folder, "--config-name", "config"]
    if "stores" in (run.manifest.get("config") or {}):
        arguments.append("~stores")
    arguments += [f"study={run.study}_again", "hydra.run.dir=.", "hydra.output_subdir=null"]
    # Without the platform's own config Hydra would log to a file, which is refused.
    arguments += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    return shlex.join(["ablate", "run", *arguments])
