"""Studies and runs from Python, with typed results and pandas frames.

study = load_study("demo_ratio")
study.verdict.sentence
study.frames.scores
load_run("demo_ratio/trial-0003-0").result
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import ConfigError, DataError, Problem, unknown_name
from ablations.record.run_record import RunRecord, list_runs
from analysis.frames import Frames
from analysis.records import scan
from analysis.study_files import LoadedVerdict, definition_of, load_verdict, question_of

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig
    from sweeps.study.definition import Definition
    from sweeps.verdict.verdict_record import Verdict

__all__ = ["Run", "Study", "load_run", "load_study", "verdict"]


@dataclass(frozen=True)
class Study:
    """A study on disk, read at the time of loading; finished or running."""

    name: str
    runs_dir: Path
    frames: Frames
    """Tidy frames of its runs; each is built on first use (docs/analysis.md)."""

    @property
    def folder(self) -> Path:
        """Return the folder of the study."""
        return self.runs_dir / self.name

    @cached_property
    def runs(self) -> tuple[RunRecord, ...]:
        """Return the records of its runs."""
        return tuple(list_runs(self.runs_dir, self.name))

    @cached_property
    def definition(self) -> Definition | None:
        """Return what ``study.json`` defines; None for runs without a search."""
        return definition_of(self.folder)

    @property
    def question(self) -> str:
        """Return the question that the study answers."""
        return question_of(self.definition, self.name)

    @cached_property
    def found_verdict(self) -> LoadedVerdict:
        """Return the stored verdict, else one that is computed and not stored, with a note on it."""
        return load_verdict(self.runs_dir, self.name, self.frames.files, "auto")

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict; None if none can be made yet (``found_verdict.note`` gives the reason)."""
        return self.found_verdict.verdict


@dataclass(frozen=True)
class Run:
    """One run on disk, read at the time of loading."""

    record: RunRecord
    frames: Frames
    """Tidy frames of this run alone."""

    @property
    def name(self) -> str:
        """Return ``study/trial-seed``."""
        return self.record.name

    @property
    def status(self) -> str:
        """Return pending, training, scoring, done or failed."""
        return self.record.status

    @property
    def result(self) -> Mapping[str, Any] | None:
        """Return ``result.json``: score, direction, metrics, cost; None until the run has ended."""
        return self.record.result()

    @property
    def config(self) -> RunConfig:
        """Return the config that the run was made with, as it is read today.

        Raises:
            ConfigError: it breaks a rule of today's.
        """
        from ablations.config.schema import load

        recorded = self.record.manifest.config
        # The prepared stores that it found were added to its config by the run itself.
        return load({key: value for key, value in recorded.items() if key != "stores"})


def load_study(name: str, runs_dir: Path | str = "runs") -> Study:
    """Return a study by its name.

    Args:
        name: Folder under ``runs_dir``.
        runs_dir: Folder of all studies.

    Raises:
        DataError: there is no such study; the nearest names are given.
    """
    folder = Path(runs_dir)
    return Study(name, folder, Frames.read(folder, name))


def load_run(name: Path | str, runs_dir: Path | str = "runs") -> Run:
    """Return a run by its name or its folder.

    Args:
        name: ``study/trial-seed`` as ``ablate ls`` prints it, or the path of the run's folder.
        runs_dir: Folder of all studies, for a name.

    Raises:
        DataError: there is no such run; the nearest names are given.
    """
    named = Path(runs_dir) / name
    path = named if (named / "manifest.json").exists() else Path(name)
    if not (path / "manifest.json").exists():
        known = [record.name for record in list_runs(Path(runs_dir))]
        raise DataError(unknown_name("run", "run", str(name), known))
    folder = path.absolute()
    files = [f for f in scan(folder.parents[1], folder.parent.name) if f.run == folder.name]
    return Run(RunRecord(path), Frames(files))


def verdict(
    study: str | None = None,
    runs_dir: Path | str = "runs",
    *,
    table: str | None = None,
    objective: str | None = None,
    write: bool = False,
    **options: Any,
) -> Verdict:
    """Return the verdict on a study or on a published table, decided now.

    Args:
        study: Folder under ``runs_dir``.
        runs_dir: Folder of all studies.
        table: A published table in place of a study, or a CSV of the same form.
        objective: One of the study's objectives; None = its first.
        write: Write ``verdict.json`` beside the runs, as ``ablate verdict`` does.
        options: Fields of :class:`sweeps.verdict.decide.VerdictOptions`: ``baseline``, ``margin``, ….

    Raises:
        ConfigError: neither or both of study and table, an unknown option, too few runs.
    """
    from ablations.validation import validate
    from sweeps.verdict.decide import VerdictOptions, decide
    from sweeps.verdict.published import published_table
    from sweeps.verdict.study_observations import gather
    from sweeps.verdict.verdict_record import write_verdict

    chosen = validate(VerdictOptions, options)
    if (study is None) == (table is None):
        found = f"study={study}, table={table}"
        raise ConfigError(Problem("study", "name a study, or a published table", found=found))
    if study is None:
        return decide(published_table(str(table)), chosen)
    decided = decide(gather(Path(runs_dir), study, objective), chosen)
    if write:
        write_verdict(Path(runs_dir) / study, decided)
    return decided
