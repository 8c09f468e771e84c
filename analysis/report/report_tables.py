"""Tables of a report: each cell has a text to read and a number to sort by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.direction import loss_sign
from analysis.figures.theme import number
from analysis.frames.config_columns import sources_of
from analysis.report.content import ReportContent
from analysis.report.summaries import EFFECTS, mixture_in_words

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.verdict.contrasts import Estimate

__all__ = [
    "Cell",
    "Heading",
    "Row",
    "Table",
    "audit_failures",
    "candidates",
    "data_sources",
    "interval",
    "ledger",
    "left_out",
    "surrogates",
    "task_effects",
    "trials",
]

MOST_CANDIDATES = 30
"""Most rows of the candidates' table."""


@dataclass(frozen=True)
class Heading:
    """Column of a table."""

    title: str
    number: bool = False
    sortable: bool = True


@dataclass(frozen=True)
class Cell:
    """Cell of a table."""

    text: str
    number: float | str | None = None
    """Key to sort by: a number, an empty text if it is missing, None for texts."""
    more: str = ""
    """Text that the page shows on request."""
    more_label: str = ""
    long: bool = False
    """Long texts may break into lines."""


@dataclass(frozen=True)
class Row:
    """Row of a table, with its CSS class."""

    cells: Sequence[Cell]
    style: str = ""


@dataclass(frozen=True)
class Table:
    """Table with headings and rows."""

    columns: Sequence[Heading]
    rows: Sequence[Row] = field(default=())


def _p(estimate: Estimate | None) -> Cell:
    """Return a cell with the corrected p-value of a difference."""
    from sweeps.verdict.p_values import p_value

    if estimate is None:
        return Cell("–", "")
    return Cell(p_value(estimate.p_corrected), estimate.p_corrected)


def _number(value: Any, digits: int = 5, form: str | None = None) -> Cell:
    """Return a cell with a number; a dash that sorts last if it is missing."""
    if value is None or value != value or (isinstance(value, float) and math.isinf(value)):
        return Cell("–", "")
    text = format(value, form) if form else number(float(value), digits)
    return Cell(text, float(value))


def _text(value: Any) -> Cell:
    return Cell("" if value is None or value != value else str(value))


def interval(found: Estimate | None) -> str:
    """Format a difference with its interval, with signs."""
    if found is None or found.value != found.value:
        return "–"
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        return f"{_signed(found.value)} (noise unknown)"
    return f"{_signed(found.value)} [{_signed(found.low)}, {_signed(found.high)}]"


def _signed(value: float) -> str:
    """Format with a sign; a rounding error is 0."""
    return f"{round(value, 12):+.3g}"


def trials(content: ReportContent) -> Table:
    """Return every trial, with the commands that repeat its runs on request."""
    frame = content.frames.trials
    shares = content.mixtures.set_index("trial") if not content.mixtures.empty else None
    runs = _runs_by_trial(content)
    heads = [Heading("trial"), Heading("name"), Heading("phase"), Heading("status")]
    heads += [
        Heading("runs", number=True),
        Heading("score", number=True),
        Heading("± SD of seeds", number=True),
    ]
    heads += [Heading(f"{name} (%)", number=True) for name in content.sources]
    heads += [
        Heading("tokens", number=True),
        Heading("CPU (s)", number=True),
        Heading("repeat", sortable=False),
    ]
    rows = []
    for row in frame.to_dict("records"):
        trial = str(row["trial"])
        weights = [
            _number(100.0 * shares.loc[trial, name], form=".1f")
            if shares is not None and trial in shares.index
            else Cell("–", "")
            for name in content.sources
        ]
        cells = [
            _text(trial),
            _text(row["name"]),
            _text(row["phase"]),
            _text(row["status"]),
            _number(row["runs"], form="d"),
            _number(row["score"]),
            _number(row["score_sd"], 2),
            *weights,
            _number(row["tokens"] if row["tokens"] == row["tokens"] else None, form=",d")
            if _known(row["tokens"])
            else Cell("–", ""),
            _number(row["cpu_seconds"], form=".1f"),
            _commands(runs.get(trial, [])),
        ]
        style = "failed" if row["status"] == "failed" else str(row["phase"] or "")
        rows.append(Row(cells, style if style in ("failed", "baseline") else ""))
    return Table(heads, rows)


def _known(value: Any) -> bool:
    import pandas as pd

    return not pd.isna(value)


def _runs_by_trial(content: ReportContent) -> dict[str, list[tuple[str, str, str]]]:
    found: dict[str, list[tuple[str, str, str]]] = {}
    reasons = content.frames.runs.set_index("run")["reason"].astype("str").to_dict()
    for run in content.frames.files:
        reason = str(reasons.get(run.run, ""))
        reason = "" if reason in ("nan", "None", "<NA>") else reason
        trial = str(run.manifest.get("trial"))
        found.setdefault(trial, []).append((run.run, content.commands.get(run.run, ""), reason))
    return found


def _commands(runs: Sequence[tuple[str, str, str]]) -> Cell:
    lines = []
    for run, command, reason in runs:
        lines.append(f"# {run}" + (f": {reason}" if reason else ""))
        lines.append(command or "(its command was not recorded)")
    return Cell(
        "", None, "\n".join(lines), "command" if len(runs) == 1 else f"{len(runs)} commands"
    )


def candidates(content: ReportContent) -> Table | None:
    """Return the candidates of the verdict: the reference, the finalists, then the rest by mean."""
    verdict = content.loaded.verdict
    if verdict is None:
        return None
    heads = [
        Heading("candidate"),
        Heading("mixture"),
        Heading("seeds", number=True),
        Heading("score", number=True),
        Heading(
            f"advantage over {verdict.reference} [{1 - verdict.alpha:.0%} interval]", number=True
        ),
        Heading("p, corrected", number=True),
        Heading("may be best"),
    ]
    sign = loss_sign(verdict.direction)
    ordered = sorted(
        verdict.candidates,
        key=lambda row: (row.name != verdict.reference, not row.finalist, sign * row.mean),
    )
    rows = []
    for row in ordered[:MOST_CANDIDATES]:
        advantage = row.advantage
        rows.append(
            Row(
                [
                    _text(row.name),
                    Cell(mixture_in_words(row.weights), long=True),
                    _number(len(row.seeds), form="d"),
                    _number(row.mean),
                    Cell(interval(advantage), advantage.value if advantage else ""),
                    _p(advantage),
                    _text("yes" if row.finalist else "no"),
                ],
                "baseline" if row.name == verdict.reference else "",
            )
        )
    return Table(heads, rows)


_SIGNS = {"gains": "▲ ", "pays": "▼ "}


def task_effects(content: ReportContent) -> Table | None:
    """Return the comparison of pick and reference on each task: better tasks first, then worse ones."""
    verdict = content.loaded.verdict
    if verdict is None or not verdict.tasks:
        return None
    heads = [
        Heading("task"),
        Heading("effect"),
        Heading(f"advantage [{1 - verdict.alpha:.0%} interval]", number=True),
        Heading("p, corrected", number=True),
        Heading(verdict.reference, number=True),
        Heading(verdict.pick, number=True),
        Heading("metric"),
        Heading("in score"),
        Heading("items", number=True),
    ]
    order = list(EFFECTS)
    ordered = sorted(verdict.tasks, key=lambda row: (order.index(row.effect), row.task))
    rows = [
        Row(
            [
                _text(row.task),
                _text(_SIGNS.get(row.effect, "") + EFFECTS[row.effect]),
                Cell(interval(row.advantage), row.advantage.value if row.advantage else ""),
                _p(row.advantage),
                _number(row.reference),
                _number(row.pick),
                _text(row.metric),
                _text("yes" if row.in_score else "no"),
                _number(row.items, form="d"),
            ],
            EFFECTS[row.effect] if row.effect in _SIGNS else "",
        )
        for row in ordered
    ]
    return Table(heads, rows)


def surrogates(content: ReportContent) -> Table | None:
    """Return the leaderboard of surrogates."""
    if content.fit is None:
        return None
    heads = [
        Heading("surrogate"),
        Heading("rank correlation", number=True),
        Heading("R²", number=True),
        Heading("error (SD of the score)", number=True),
        Heading("regret", number=True),
    ]
    rows = [
        Row(
            [
                _text(r["name"]),
                *(
                    _number(r[key], form=".3f")
                    for key in ("rank_correlation", "r2", "rmse", "regret")
                ),
            ]
        )
        for r in content.fit.leaderboard.to_dict("records")
    ]
    return Table(heads, rows)


def audit_failures(realised: pd.DataFrame) -> Table | None:
    """Return the stages and sources whose realised share fails the audit."""
    bad = realised[realised["fails"]]
    if bad.empty:
        return None
    heads = [
        Heading("run"),
        Heading("stage"),
        Heading("source"),
        Heading("requested (%)", number=True),
        Heading("realised (%)", number=True),
        Heading("gap (points)", number=True),
    ]
    rows = [
        Row(
            [
                _text(r["run"]),
                _text(r["stage"]),
                _text(r["source"]),
                _number(r["asked"], form=".3f"),
                _number(r["realised"], form=".3f"),
                _number(r["gap"], form="+.3f"),
            ],
            "failed",
        )
        for r in bad.to_dict("records")
    ]
    return Table(heads, rows)


def ledger(frame: pd.DataFrame) -> Table | None:
    """Return the cost per phase with its total."""
    if frame.empty:
        return None
    heads = [
        Heading("phase"),
        Heading("runs", number=True),
        Heading("tokens", number=True),
        Heading("training (CPU h)", number=True),
        Heading("scoring (CPU h)", number=True),
        Heading("wall (h)", number=True),
        Heading("FLOPs", number=True),
    ]
    total = frame.drop(columns="phase").sum()
    rows = [_ledger_row(str(r["phase"]), r) for r in frame.to_dict("records")]
    rows.append(Row(_ledger_row("total", total).cells, "baseline"))
    return Table(heads, rows)


def _ledger_row(phase: str, row: Mapping[str, Any] | pd.Series[Any]) -> Row:
    return Row(
        [
            _text(phase),
            _number(int(row["runs"]), form="d"),
            _number(int(row["tokens"]), form=",d"),
            _number(row["train_hours"], 3),
            _number(row["score_hours"], 3),
            _number(row["wall_hours"], 3),
            _number(row["flops"], 3),
        ]
    )


def data_sources(content: ReportContent) -> Table | None:
    """Return the sources of the runs with every value that occurs in their configs."""
    about: dict[str, dict[str, set[str]]] = {}
    for run in content.frames.files:
        config = run.manifest.get("config") or {}
        for name, spec in sources_of(config).items():
            values = {"store": (config.get("stores") or {}).get(name), **spec}
            for key in ("domain", "tokens_available", "licence", "url", "store"):
                if values.get(key) not in (None, ""):
                    about.setdefault(name, {}).setdefault(key, set()).add(str(values[key]))
    if not about:
        return None
    heads = [Heading("source"), Heading("domain"), Heading("tokens available", number=True)]
    heads += [Heading("licence"), Heading("from"), Heading("prepared store")]
    rows = []
    for name, found in about.items():
        domain, tokens, licence, url, store = (
            " / ".join(sorted(found.get(key, ())))
            for key in ("domain", "tokens_available", "licence", "url", "store")
        )
        many = f"{float(tokens):,.0f}" if tokens and " / " not in tokens else tokens
        cells = [Cell(name), Cell(domain or "–"), Cell(many or "–", tokens)]
        rows.append(
            Row(
                [*cells, *(Cell(text or "not stated", long=True) for text in (licence, url, store))]
            )
        )
    return Table(heads, rows)


def left_out(content: ReportContent) -> Table | None:
    """Return the runs that the verdict left out, with reasons."""
    verdict = content.loaded.verdict
    if verdict is None or not verdict.left_out:
        return None
    rows = [Row([_text(run), Cell(why, long=True)]) for run, why in verdict.left_out.items()]
    return Table([Heading("run"), Heading("reason")], rows)
