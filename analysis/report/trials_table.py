"""Table of every trial of a study, with the commands that repeat its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.report.tables import Cell, Heading, Row, Table, number_cell, text_cell

if TYPE_CHECKING:
    from analysis.report.content import ReportContent

__all__ = ["trials"]


def trials(content: ReportContent) -> Table:
    """Return every trial, with the commands that repeat its runs on request."""
    frame = content.frames.trials
    heads = [Heading("trial"), Heading("name"), Heading("phase"), Heading("status")]
    heads += [
        Heading("runs", number=True),
        Heading("score", number=True),
        Heading("± SD of seeds", number=True),
    ]
    heads += [Heading(f"{name} (%)", number=True) for name in content.sources]
    heads += [Heading(path, number=True) for path in content.parameters]
    heads += [
        Heading(content.counted, number=True),
        Heading("CPU (s)", number=True),
        Heading("repeat", sortable=False),
    ]
    shares = _shares(content)
    commands = _commands_by_trial(content)
    values = frame.astype(object).where(frame.notna(), None)
    rows = []
    for row in values.to_dict("records"):
        trial = str(row["trial"])
        cells = [
            Cell(trial),
            text_cell(row["name"]),
            text_cell(row["phase"]),
            text_cell(row["status"]),
            number_cell(row["runs"], form="d"),
            number_cell(row["score"]),
            number_cell(row["score_sd"], 2),
            *shares.get(trial, [Cell("–", "")] * len(content.sources)),
            *(_parameter(of_trial.get(trial)) for of_trial in content.parameters.values()),
            number_cell(row["tokens"], form=",d"),
            number_cell(row["cpu_seconds"], form=".1f"),
            _commands(commands.get(trial, [])),
        ]
        style = "failed" if row["status"] == "failed" else str(row["phase"] or "")
        rows.append(Row(cells, style if style in ("failed", "baseline") else ""))
    return Table(heads, rows)


def _shares(content: ReportContent) -> Mapping[str, Sequence[Cell]]:
    """Return trial → its weights in percent, in the order of the sources."""
    if content.mixtures.empty or not content.sources:
        return {}
    percent = 100.0 * content.mixtures[list(content.sources)].to_numpy(dtype=float)
    return {
        str(trial): [number_cell(float(value), form=".1f") for value in weights]
        for trial, weights in zip(content.mixtures["trial"], percent, strict=True)
    }


def _parameter(value: Any) -> Cell:
    """Return the cell of a searched parameter, which may be a number or a text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell("–", "") if value is None else Cell(str(value))
    return number_cell(value, form="d") if isinstance(value, int) else number_cell(value)


def _commands_by_trial(content: ReportContent) -> dict[str, list[tuple[str, str, str]]]:
    """Return trial → (run, command that repeats it, reason of its failure) of each run."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    runs = content.frames.runs
    reasons = runs[runs["reason"].notna()].set_index("run")["reason"].astype("str").to_dict()
    for run in content.frames.files:
        trial = str(run.manifest.get("trial"))
        row = (run.run, content.commands.get(run.run, ""), str(reasons.get(run.run, "")))
        found.setdefault(trial, []).append(row)
    return found


def _commands(runs: Sequence[tuple[str, str, str]]) -> Cell:
    lines = []
    for run, command, reason in runs:
        lines.append(f"# {run}" + (f": {reason}" if reason else ""))
        lines.append(command or "(its command was not recorded)")
    label = "command" if len(runs) == 1 else f"{len(runs)} commands"
    return Cell("", None, "\n".join(lines), label)
