"""Evidence of a promotion: the verdict, the candidate's runs and audits, and the token stores.

Everything is read from disk, except the result of searching the prepared sources for task items, which
is computed here for the contamination gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config.schema import RunConfig
from ablations.data.manifest import StoreManifest
from ablations.errors import DamagedError, DataError, Problem, UserError, unknown_name
from ablations.record.contents import read_contents
from ablations.record.run_record import RunRecord, list_runs
from sweeps.promotion.specs import PromotionSpec
from sweeps.verdict.verdict_record import CandidateRow, Verdict, read_verdict

__all__ = [
    "Contamination",
    "Evidence",
    "choose",
    "find_contamination",
    "gather",
    "picked_runs",
    "require_whole",
]


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """Items of one task that were found in one source."""

    source: str
    task: str
    items: int
    """Number of items of the task."""
    found: int
    """Number of items that occur in the source's text."""

    @property
    def share(self) -> float:
        """Share of the task's items that were found."""
        return self.found / self.items if self.items else 0.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Input of the gates."""

    study: str
    verdict: Verdict
    candidate: CandidateRow
    """Promoted candidate."""
    runs: tuple[RunRecord, ...]
    """The candidate's finished runs."""
    second: Verdict | None
    """Verdict at a second proxy size; None if none was run."""
    config: RunConfig
    """Config of the full run, with its frozen schedule."""
    stores: Mapping[str, StoreManifest | None]
    """Source of the full run → its prepared store; None if it is not prepared here."""
    contamination: tuple[Contamination, ...]
    """Results of the search in the prepared sources."""
    unchecked: Mapping[str, str]
    """Source → reason why it was not searched for task items."""


def choose(verdict: Verdict, asked: str | None) -> CandidateRow:
    """Return the candidate that was asked for, or by default the one that the verdict recommends.

    Raises:
        UserError: No candidate has the given name or trial.
    """
    rows = {row.name: row for row in verdict.candidates}
    if asked is None:
        name = verdict.pick
        if verdict.outcome == "keep-baseline" and verdict.baseline is not None:
            name = verdict.baseline
        return rows[name]
    by_trial = {row.trial: row for row in verdict.candidates}
    if asked not in rows and asked not in by_trial:
        known = {*rows, *by_trial}
        raise UserError(unknown_name("promotion.pick", "candidate", asked, known))
    return rows.get(asked) or by_trial[asked]


def picked_runs(runs_dir: Path, study: str, candidate: CandidateRow) -> tuple[RunRecord, ...]:
    """Return the finished runs of ``candidate``.

    Raises:
        UserError: There is no finished run.
        DamagedError: A file of one of the runs is damaged or missing.
    """
    found = tuple(
        record
        for record in list_runs(runs_dir, study)
        if record.manifest.trial == candidate.trial and record.status == "done"
    )
    if not found:
        raise UserError(
            Problem(
                f"{runs_dir}/{study}",
                f"no finished run of {candidate.name!r} (trial {candidate.trial})",
                do="a promotion needs the runs that the verdict counted",
            )
        )
    require_whole(found)
    return found


def require_whole(records: Iterable[RunRecord]) -> None:
    """Refuse runs with a damaged or missing file; ``config.yaml`` is not checked.

    Raises:
        DamagedError: A file is damaged or missing; all of them are listed.
    """
    problems = [
        Problem(record.name, "its record is damaged", found=text, do="restore it from a copy")
        for record in records
        for text in read_contents(record).ailments
        if not text.startswith(str(record.path / "config.yaml"))
    ]
    if problems:
        raise DamagedError(problems)


def gather(
    spec: PromotionSpec, config: RunConfig, *, study: str, verdict: Verdict, candidate: CandidateRow
) -> Evidence:
    """Read the evidence for promoting ``candidate`` to the full run ``config``."""
    runs_dir = Path(config.runs_dir)
    stores = {name: _store(config.store_folder(name)) for name in config.build_schedule().sources}
    found, unchecked = find_contamination(spec, config, stores)
    second = None if spec.second_study is None else read_verdict(runs_dir / spec.second_study)
    return Evidence(
        study=study,
        verdict=verdict,
        candidate=candidate,
        runs=picked_runs(runs_dir, study, candidate),
        second=second,
        config=config,
        stores=stores,
        contamination=tuple(found),
        unchecked=unchecked,
    )


def _store(folder: Path) -> StoreManifest | None:
    return StoreManifest.read(folder) if (folder / "manifest.json").is_file() else None


def find_contamination(
    spec: PromotionSpec, config: RunConfig, stores: Mapping[str, StoreManifest | None]
) -> tuple[list[Contamination], dict[str, str]]:
    """Search every prepared source for the task items.

    Returns:
        The results, and source → reason for the sources that could not be searched. Both are empty if
        the evaluation names no task, because held-out text has no items.
    """
    from ablations.data.contamination import TaskIndex, read_tasks, scan, store_texts

    if not (spec.contamination_tasks or config.evaluation.tasks):
        return [], {}
    data = Path(config.data_dir)
    tasks = spec.contamination_tasks or _tasks_with_items(config, data / "benchmarks")
    if not tasks:
        return [], dict.fromkeys(stores, f"no task items under {data / 'benchmarks'}")
    try:
        index = TaskIndex(read_tasks(data / "benchmarks", tasks))
    except DataError as error:
        return [], dict.fromkeys(stores, str(error))
    found: list[Contamination] = []
    unchecked: dict[str, str] = {}
    for source, manifest in stores.items():
        if manifest is None:
            unchecked[source] = "not prepared here"
            continue
        texts = store_texts(config.store_folder(source), data / "tokenizers")
        found += [
            Contamination(
                source=source,
                task=report.task,
                items=report.items,
                found=len(report.contaminated),
            )
            for report in scan(index, texts)
        ]
    return found, unchecked


def _tasks_with_items(config: RunConfig, benchmarks: Path) -> tuple[str, ...]:
    tasks: Mapping[str, Any] = config.evaluation.tasks
    named = [getattr(task, "items", None) or name for name, task in tasks.items()]
    return tuple(dict.fromkeys(n for n in named if (benchmarks / f"{n}.jsonl").is_file()))
