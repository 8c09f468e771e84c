"""Report as one HTML file that needs no network and no second file.

plotly.js is inlined once; figures are JSON in the page. A content security policy in the page
forbids every request, so that a figure that would fetch something fails in the tests.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import figures
from analysis.report import report_tables, summaries
from analysis.report.charts import Chart, charts, shown_trials
from analysis.report.content import ReportContent
from analysis.report.legend import legend

__all__ = ["render_html"]

_TEMPLATES = Path(__file__).parent / "templates"

_SECTIONS = (
    ("verdict", "Verdict"),
    ("evidence", "Evidence"),
    ("mixtures", "Mixtures"),
    ("tasks", "Tasks"),
    ("learning", "Learning"),
    ("transfer", "Transfer"),
    ("trials", "Trials"),
    ("surrogates", "Surrogates"),
    ("signal", "Task quality"),
    ("data", "Data and audit"),
    ("cost", "Cost"),
    ("provenance", "Provenance"),
)

_ONLY_WITH_FIGURES = ("mixtures", "tasks", "learning", "transfer")


def render_html(content: ReportContent, *, report_command: str = "") -> str:
    """Return the page.

    Args:
        content: Content from `gather_report`.
        report_command: Command that makes the page, for its last section.
    """
    import jinja2
    from markupsafe import Markup, escape
    from plotly.offline import get_plotlyjs

    drawn = charts(content)
    present = {chart.section for chart in drawn}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = lambda text: Markup(
        re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    )
    shown = [(k, t) for k, t in _SECTIONS if k in present or k not in _ONLY_WITH_FIGURES]
    page: str = environment.get_template("report.html.j2").render(
        **_words(content),
        **_tables(content),
        sections=shown,
        present=present,
        charts=drawn,
        learning_legend=legend(shown_trials(content).values()),
        css=Markup((_TEMPLATES / "report.css").read_text()),
        js=Markup((_TEMPLATES / "report.js").read_text()),
        plotly=Markup(get_plotlyjs()),
        figures=Markup(figures_json(drawn)),
        report_command=report_command or shlex.join(["ablate", "report", f"study={content.study}"]),
        study_command=shlex.join(["ablate", "run", "-m", *content.arguments])
        if content.arguments
        else "",
    )
    return page


def _words(content: ReportContent) -> dict[str, Any]:
    outcome, label, sentence = summaries.headline(content)
    realised = figures.realised_frame(content.frames.audits)
    return {
        "study": content.study,
        "question": content.question,
        "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(content.created)),
        "notices": list(summaries.notices(content)),
        "outcome": outcome,
        "outcome_label": label,
        "sentence": sentence,
        "answer": content.loaded.verdict.answer if content.loaded.verdict else "",
        "verdict_lines": list(summaries.under_headline(content)),
        "evidence_lines": list(summaries.evidence(content)),
        "caveats": summaries.caveats(content),
        "effects_note": _effects_note(content),
        "surrogate_lines": list(summaries.surrogates(content)),
        "signal_lines": list(summaries.signal(content)),
        "audit_lines": list(summaries.audit(content, realised)),
        "cost_lines": list(summaries.cost(content)),
        "provenance": [(name, ", ".join(values)) for name, values in content.provenance.items()],
    }


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
        "trials": report_tables.trials(content),
        "surrogates": report_tables.surrogates(content),
        "audit_failures": report_tables.audit_failures(
            figures.realised_frame(content.frames.audits)
        ),
        "ledger": report_tables.ledger(figures.cost_ledger_frame(content.frames.cost)),
        "left_out": report_tables.left_out(content),
        "data_sources": report_tables.data_sources(content),
    }


def figures_json(drawn: Sequence[Chart]) -> str:
    """Return the figures as JSON that cannot end its script element early."""
    plain = {chart.key: json.loads(chart.figure.to_json()) for chart in drawn}
    for figure in plain.values():
        # Every layout has the whole style; plotly's default template would add 7 kB per figure.
        figure["layout"].pop("template", None)
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    # Each "<" is inside a string, where JSON allows an escape: no name can end the element.
    return text.replace("<", "\\u003c")
