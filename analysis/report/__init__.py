"""Reports of a study: one HTML file, Markdown for a pull request, the card of a promoted schedule."""

from __future__ import annotations

from analysis.report.content import ReportContent, gather_report
from analysis.report.html import render_html

__all__ = ["ReportContent", "gather_report", "render_html"]
