"""The report as one HTML file that opens anywhere: no network, no second file.

plotly.js is inlined once; figures are JSON in the page. A content security policy in the page itself
forbids every request, so that a figure that would fetch something fails in the tests, not in public.
"""

from __future__ import annotations

import json
import math
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
    """The page.

    Args:
        content: Of `gather_report`.
        report_command: The command that made it, for the page's last lines.
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
        "answer": content.judged.verdict.answer if content.judged.verdict else "",
        "verdict_lines": list(summaries.under_headline(content)),
        "evidence_lines": list(summaries.evidence(content)),
        "caveats": summaries.caveats(content),
        "gains_note": _gains_note(content),
        "surrogate_lines": list(summaries.surrogates(content)),
        "signal_lines": list(summaries.signal(content)),
        "audit_lines": list(summaries.audit(content, realised)),
        "cost_lines": list(summaries.cost(content)),
        "provenance": [(name, ", ".join(values)) for name, values in content.provenance.items()],
    }


def _gains_note(content: ReportContent) -> str:
    verdict = content.judged.verdict
    if verdict is None:
        return ""
    return (
        f"{verdict.pick} against {verdict.reference}; an advantage is positive where {verdict.pick} is "
        "better, whatever the metric's direction. An interval is that of the task alone; p and the "
        "effect are corrected for the number of tasks (Holm), so an interval may miss 0 where no "
        "difference is shown."
    )


def _tables(content: ReportContent) -> dict[str, Any]:
    return {
        "candidates": report_tables.candidates(content),
        "gains": report_tables.gains(content),
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
    """The figures as JSON that cannot end its script element early."""
    plain = {chart.key: json.loads(chart.figure.to_json()) for chart in drawn}
    for figure in plain.values():
        # The look is in every layout; plotly's default template would be 7 kB a figure.
        figure["layout"].pop("template", None)
    text = json.dumps(_finite(plain), separators=(",", ":"), allow_nan=False)
    # Every "<" stands in a string, and JSON may write it as an escape: no name can end the element.
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
