"""Report as Markdown for a pull request: short, without figures, with the same caveats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ablations.markdown import escaped, one_line
from analysis import figures
from analysis.report import report_tables, summaries
from analysis.report.content import ReportContent
from analysis.report.tables import Table

__all__ = ["render_markdown"]

MOST_ROWS = 12
"""Most rows of a table; the HTML report has all of them."""


def render_markdown(content: ReportContent) -> str:
    """Return the report in GitHub's Markdown."""
    return "\n".join(_lines(content)).rstrip() + "\n"


def _lines(content: ReportContent) -> Iterator[str]:
    _, _, sentence = summaries.headline(content)
    yield f"## {escaped(content.question)}"
    yield ""
    for notice in summaries.notices(content):
        yield f"> [!NOTE]\n> {escaped(notice)}\n"
    yield f"**{escaped(sentence)}**"
    yield ""
    verdict = content.loaded.verdict
    if verdict is not None and verdict.answer:
        yield f"{escaped(verdict.answer)}\n"
    for line in summaries.under_headline(content):
        yield f"{escaped(line)}\n"
    yield "### Evidence"
    yield ""
    yield from _bullets(summaries.evidence(content))
    yield from _bullets(summaries.caveats(content))
    yield ""
    yield from _table("Candidates", report_tables.candidates(content))
    yield from _table("Better and worse tasks", report_tables.task_effects(content), most=40)
    yield from _table("Use of pictures", report_tables.pictures(content), most=40)
    yield from _table("Surrogates of the score", report_tables.surrogates(content))
    yield from _bullets(summaries.surrogates(content))
    yield ""
    yield "### Task quality, audit, cost"
    yield ""
    yield from _bullets(summaries.signal(content))
    realised = figures.realised_frame(content.frames.audits)
    yield from _bullets(summaries.audit(content, realised))
    yield from _bullets(summaries.cost(content))
    yield ""
    yield from _reproduce(content)


def _bullets(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"- {escaped(line)}"


def _table(title: str, table: Table | None, most: int = MOST_ROWS) -> Iterator[str]:
    if table is None:
        return
    yield f"### {title}"
    yield ""
    yield "| " + " | ".join(escaped(head.title) for head in table.columns) + " |"
    yield "|" + "|".join("--:" if head.number else "---" for head in table.columns) + "|"
    for row in islice(table.rows, most):
        yield "| " + " | ".join(escaped(cell.text) for cell in row.cells) + " |"
    if len(table.rows) > most:
        yield ""
        yield f"… and {len(table.rows) - most} more in the HTML report."
    yield ""


def _reproduce(content: ReportContent) -> Iterator[str]:
    """Yield the commands of the trials that the verdict compares, or of the best seen."""
    from analysis.report.charts import shown_trials

    labels = shown_trials(content)
    yield "<details><summary>Commands that repeat the runs</summary>"
    yield ""
    yield "```sh"
    for run in content.frames.files:
        trial = str(run.manifest.get("trial"))
        if trial in labels and content.commands.get(run.run):
            yield f"# {one_line(labels[trial])}, {run.run}"
            yield content.commands[run.run]
    yield "```"
    yield ""
    yield "</details>"
    yield ""
    versions = ", ".join(
        f"{name} {' / '.join(values)}" for name, values in content.provenance.items()
    )
    yield f"Made with {escaped(versions)}."
