"""Reports of a study: an HTML file, Markdown for a pull request, the card of a promoted schedule."""

from __future__ import annotations

from analysis.report.card import model_card
from analysis.report.content import ReportContent, gather_report
from analysis.report.html import render_html
from analysis.report.markdown import render_markdown

__all__ = ["ReportContent", "gather_report", "model_card", "render_html", "render_markdown"]
