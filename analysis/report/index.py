"""Index of a runs folder: one page with every study, its question, verdict, cost, date and promotions.

Only what is stored is read: `ablate verdict` makes a verdict, the index does not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.errors import DataError, Problem
from ablations.markdown import escaped
from ablations.terminal import override_word, runs_dir_words
from analysis.direction import lower_is_better
from analysis.figures.theme import number
from analysis.promotions import PromotionSummary, promotions
from analysis.records import RunFiles, scan, studies
from analysis.report import pages
from analysis.report.facts import hours_of
from analysis.report.summaries import OUTCOMES, answer_parts
from analysis.study_files import definition_of, load_verdict, question_of

__all__ = ["IndexRow", "gather_index", "index_html", "index_markdown"]


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One study of a runs folder."""

    study: str
    question: str
    outcome: str
    """Outcome of the stored verdict; ``none`` without one."""
    label: str
    """The outcome in words."""
    answer: str
    """The answer in weights, or what is known without a verdict."""
    note: str
    """That the verdict is older than the runs; may be empty."""
    runs: str
    """Number of runs by status."""
    hours: float
    """CPU-hours of training and scoring, or wall-clock hours if another device trained."""
    cost: str
    date: float | None
    """Time at which the last run ended, in seconds since the epoch."""
    promoted: Sequence[str]
    """One line for each promotion."""

    @property
    def day(self) -> str:
        """Return the day on which the last run ended; a dash if none has."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.date)) if self.date else "–"


def gather_index(runs_dir: Path, promotions_dir: Path | None = None) -> list[IndexRow]:
    """Return every study with a run, the latest first.

    Args:
        runs_dir: Folder of the records.
        promotions_dir: Parent folder of the promotions; None = none are shown.

    Raises:
        DataError: no study is recorded there.
    """
    made = promotions(promotions_dir) if promotions_dir is not None else []
    found = []
    for study in studies(runs_dir):
        # One study at a time: the runs of a large folder need not fit into memory together.
        if files := scan(runs_dir, study):
            found.append(_row(runs_dir, study, files, made))
    if not found:
        raise DataError(
            Problem("runs_dir", "no study is recorded there", found=runs_dir, do="run one first")
        )
    return sorted(found, key=lambda row: (-(row.date or float("inf")), row.study))


def _row(
    runs_dir: Path, study: str, files: Sequence[RunFiles], made: Sequence[PromotionSummary]
) -> IndexRow:
    verdict = load_verdict(runs_dir, study, files, "stored")
    full = next((one for one in made if one.name == study), None)
    hours, cost = _cost(files)
    ended = [run.manifest.get("finished") for run in files]
    counts: dict[str, int] = {}
    for run in files:
        status = str(run.manifest.get("status"))
        counts[status] = counts.get(status, 0) + 1
    question = question_of(definition_of(runs_dir / study), study)
    if full is not None:
        question = f"Full run of the promotion {full.name} of study {full.study}"
    return IndexRow(
        study=study,
        question=question,
        outcome=verdict.verdict.outcome if verdict.verdict else "none",
        label=OUTCOMES[verdict.verdict.outcome] if verdict.verdict else "no verdict",
        answer=" ".join(answer_parts(verdict.verdict)).strip() if verdict.verdict else _seen(files),
        note=verdict.note if verdict.verdict else "",
        runs=", ".join(f"{n:,} {status}" for status, n in sorted(counts.items())),
        hours=hours,
        cost=cost,
        date=max((float(t) for t in ended if t), default=None),
        promoted=[
            f"{one.full}, {one.day}" + (f". {one.outcome}" if one.outcome else "")
            for one in made
            if one.study == study
        ]
        + [f"after {one.full}, {one.day}" for one in made if study in one.after],
    )


def _seen(files: Sequence[RunFiles]) -> str:
    """Return the best score of a study without a verdict; empty if there is none."""
    results = [run.result or {} for run in files]
    scores = [(r["score"], r.get("direction")) for r in results if r.get("score") is not None]
    if not scores:
        return ""
    lower = lower_is_better("minimize" if scores[0][1] == "minimize" else "maximize")
    best = (min if lower else max)(score for score, _ in scores)
    return f"Best score of one run so far: {number(best)}."


def _cost(files: Sequence[RunFiles]) -> tuple[float, str]:
    """Return the hours that a study took, as a number and in words."""
    costs: list[Mapping[str, object]] = []
    for run in files:
        cost = (run.result or {}).get("cost")
        costs.append(cost if isinstance(cost, Mapping) else {})

    def total(key: str) -> float:
        return sum(float(v) for cost in costs if isinstance(v := cost.get(key), int | float))

    return hours_of(
        cpu=(total("train_cpu_seconds") + total("eval_cpu_seconds")) / 3600.0,
        wall=total("wall_seconds") / 3600.0,
        devices=sorted({str(cost["device"]) for cost in costs if cost.get("device")}),
    )


def index_html(
    rows: Sequence[IndexRow], runs_dir: Path, page: Path, *, command: str = "ablate report"
) -> str:
    """Return the page.

    Args:
        rows: Rows from :func:`gather_index`.
        runs_dir: Folder of the records.
        page: File that the page is written to; links are relative to it.
        command: Command that makes the page.
    """
    from markupsafe import Markup

    reports = {row.study: runs_dir / row.study / "report.html" for row in rows}
    text: str = (
        pages.environment()
        .get_template("index.html.j2")
        .render(
            rows=rows,
            folder=str(runs_dir),
            created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            links={s: pages.link(page, path) for s, path in reports.items() if path.exists()},
            commands={
                row.study: f"ablate report {override_word('study', row.study)}"
                f"{runs_dir_words(runs_dir)}"
                for row in rows
            },
            counts=list(_counts(rows)),
            command=command,
            plotly_file="",
            css=Markup(pages.style()),
            js=Markup(pages.page_script("tables")),
        )
    )
    return text


def _counts(rows: Sequence[IndexRow]) -> Iterator[str]:
    """Yield the number of studies, and how many have each outcome."""
    yield f"{len(rows):,} {'study' if len(rows) == 1 else 'studies'}"
    for outcome, label in OUTCOMES.items():
        if found := sum(row.outcome == outcome for row in rows):
            yield f"{found:,} {label}"
    if promoted := sum(bool(row.promoted) for row in rows):
        yield f"{promoted:,} promoted"


def index_markdown(rows: Sequence[IndexRow]) -> str:
    """Return the index as a table in GitHub's Markdown."""
    lines = [
        "| study | question | verdict | answer | runs | cost | last run | promoted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        answer = f"{row.answer} {row.note}".strip()
        cells = [row.study, row.question, row.label, answer, row.runs, row.cost, row.day]
        lines.append(f"| {' | '.join(map(escaped, [*cells, '; '.join(row.promoted) or 'no']))} |")
    return "\n".join(lines) + "\n"
