"""Report as an HTML page that needs no network.

Figures are JSON in the page. plotly's script is in the page too, or lies beside it (`pages.share_plotly`).
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

from analysis import figures
from analysis.figures.theme import DARK
from analysis.report import pages, report_tables, summaries
from analysis.report.chart import Chart
from analysis.report.charts import charts, shown_trials
from analysis.report.content import ReportContent
from analysis.report.facts import facts
from analysis.report.legend import figure_legend, legend
from analysis.report.tables import script_json
from analysis.report.trials_table import trials

__all__ = ["render_html"]

_SECTIONS = (
    ("verdict", "Answer"),
    ("evidence", "Evidence"),
    ("mixtures", "Mixtures"),
    ("tasks", "Tasks"),
    ("learning", "Learning"),
    ("transfer", "Transfer"),
    ("trials", "Trials"),
    ("surrogates", "Surrogates"),
    ("data", "Data"),
    ("cost", "Cost"),
    ("provenance", "Provenance"),
)

_ONLY_WITH_FIGURES = ("mixtures", "learning", "transfer")


def render_html(
    content: ReportContent,
    *,
    report_command: str = "",
    plotly_file: str = "",
    index_file: str = "",
) -> str:
    """Return the page.

    Args:
        content: Content from `gather_report`.
        report_command: Command that makes the page, for its last section.
        plotly_file: Address of plotly's script, relative to the page; empty = the script is in the page.
        index_file: Address of the index of all studies, relative to the page; empty = no link.
    """
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    drawn = charts(content)
    present = {chart.section for chart in drawn}
    lead = next((chart for chart in drawn if chart.section == "lead"), None)
    marks = figure_legend(lead.figure) if lead else []
    if lead is not None:
        lead.figure.layout.showlegend = False
    words, tables = _words(content), _tables(content)
    shown = [(k, t) for k, t in _SECTIONS if k in present or k not in _ONLY_WITH_FIGURES]
    page: str = (
        pages.environment()
        .get_template("report.html.j2")
        .render(
            **words,
            **tables,
            sections=shown,
            shown={key for key, _ in shown},
            present=present,
            charts=drawn,
            lead=lead,
            lead_legend=marks,
            learning_legend=legend(shown_trials(content).values()),
            css=Markup(pages.style()),
            js=Markup(pages.page_script("report", "tables")),
            plotly_file=plotly_file,
            plotly="" if plotly_file else Markup(get_plotlyjs()),
            index_file=index_file,
            figures=Markup(figures_json(drawn)),
            dark=Markup(script_json(DARK)),
            report_command=report_command
            or shlex.join(["ablate", "report", f"study={content.study}"]),
            study_command=shlex.join(["ablate", "run", "-m", *content.arguments])
            if content.arguments
            else "",
        )
    )
    return page


def _words(content: ReportContent) -> dict[str, Any]:
    outcome, label, sentence = summaries.headline(content)
    verdict = content.loaded.verdict
    answer, span = summaries.answer_parts(verdict)
    realised = figures.realised_frame(content.frames.audits)
    return {
        "study": content.study,
        "question": content.question,
        "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(content.created)),
        "notices": list(summaries.notices(content)),
        "outcome": outcome,
        "outcome_label": label,
        "sentence": sentence,
        "answer": answer,
        "range": span,
        "facts": list(facts(content)),
        "verdict_lines": [
            *summaries.compared(content),
            *([content.loaded.note] if verdict else []),
        ],
        "evidence_lines": list(summaries.evidence(content)),
        "caveats": summaries.caveats(content),
        "effects_note": _effects_note(content),
        "pictures_note": _PICTURES_NOTE,
        "surrogate_lines": list(summaries.surrogates(content)),
        "signal_lines": list(summaries.signal(content)),
        "audit_lines": list(summaries.audit(content, realised)),
        "cost_lines": list(summaries.cost(content)),
        "provenance": [(name, ", ".join(values)) for name, values in content.provenance.items()],
    }


_PICTURES_NOTE = (
    "The gain is the bits per byte that a picture saves its answer. Over another picture: the bits per byte "
    "that another item's picture costs, the control. A candidate uses the pictures of a task if both are "
    "above zero beyond their noise; else it is not named better on it. Chance: the most frequent answer."
)


def _effects_note(content: ReportContent) -> str:
    verdict = content.loaded.verdict
    if verdict is None:
        return ""
    return (
        f"{verdict.pick} compared with {verdict.reference}; an advantage is positive if {verdict.pick} "
        "is better, whatever the metric's direction. An interval is for the task alone; p and the "
        "effect are corrected for the number of tasks (Holm), so an interval may exclude 0 although "
        "the difference is not significant."
    )


def _tables(content: ReportContent) -> dict[str, Any]:
    return {
        "candidates": report_tables.candidates(content),
        "effects": report_tables.task_effects(content),
        "pictures": report_tables.pictures(content),
        "trials": trials(content),
        "surrogates": report_tables.surrogates(content),
        "audit_failures": report_tables.audit_failures(
            figures.realised_frame(content.frames.audits)
        ),
        "ledger": report_tables.ledger(
            figures.cost_ledger_frame(content.frames.cost), content.counted
        ),
        "left_out": report_tables.left_out(content),
        "data_sources": report_tables.data_sources(content),
    }


def figures_json(drawn: Sequence[Chart]) -> str:
    """Return the figures as JSON that cannot end its script element early."""
    plain = {chart.key: json.loads(chart.figure.to_json()) for chart in drawn}
    for figure in plain.values():
        # Every layout has the whole style; plotly's default template would add 7 kB per figure.
        figure["layout"].pop("template", None)
    return script_json(plain)
