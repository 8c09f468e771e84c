"""Tables of a report, except that of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis.direction import loss_sign
from analysis.frames import finals
from analysis.frames.config_columns import sources_of
from analysis.report.content import ReportContent
from analysis.report.summaries import EFFECTS, mixture_in_words
from analysis.report.tables import (
    Cell,
    Heading,
    Row,
    Table,
    interval,
    number_cell,
    p_cell,
    signed,
    text_cell,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "audit_failures",
    "candidates",
    "data_sources",
    "ledger",
    "left_out",
    "pictures",
    "surrogates",
    "task_effects",
]

MOST_CANDIDATES = 30
"""Most rows of the candidates' table."""


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
                    text_cell(row.name),
                    Cell(mixture_in_words(row.weights), long=True),
                    number_cell(len(row.seeds), form="d"),
                    number_cell(row.mean),
                    Cell(interval(advantage), advantage.value if advantage else ""),
                    p_cell(advantage),
                    text_cell("yes" if row.finalist else "no"),
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
                text_cell(row.task),
                text_cell(_SIGNS.get(row.effect, "") + EFFECTS[row.effect]),
                Cell(interval(row.advantage), row.advantage.value if row.advantage else ""),
                p_cell(row.advantage),
                number_cell(row.reference),
                number_cell(row.pick),
                text_cell(row.metric),
                text_cell("yes" if row.in_score else "no"),
                number_cell(row.items, form="d"),
            ],
            EFFECTS[row.effect] if row.effect in _SIGNS else "",
        )
        for row in ordered
    ]
    return Table(heads, rows)


def pictures(content: ReportContent) -> Table | None:
    """Return what pictures do to the answers of pick and reference; None for a study without pictures.

    Bits per byte and exact match are means over the last checkpoints of a candidate's runs.
    """
    verdict = content.loaded.verdict
    if verdict is None or not verdict.pictures:
        return None
    bound = f"[at least, {1 - verdict.alpha / 2:.1%}]"
    heads = [
        Heading("task"),
        Heading("candidate"),
        Heading(f"gain {bound}", number=True),
        Heading(f"over another picture {bound}", number=True),
        Heading("bits per byte", number=True),
        Heading("without the picture", number=True),
        Heading("exact match", number=True),
        Heading("chance", number=True),
        Heading("picture used"),
        Heading("in score"),
    ]
    finals_of = finals(content.frames.scores)
    rows = []
    for row in verdict.pictures:
        own = finals_of[
            (finals_of["trial"].astype("str") == content.trial_of(row.candidate))
            & (finals_of["task"].astype("str") == row.task)
        ]
        rows.append(
            Row(
                [
                    text_cell(row.task),
                    text_cell(row.candidate),
                    Cell(_bounded(row.gain, row.gain_low), _sorted_by(row.gain)),
                    Cell(
                        _bounded(row.shuffled_gain, row.shuffled_gain_low),
                        _sorted_by(row.shuffled_gain),
                    ),
                    number_cell(_mean_of(own, "bpb", "value")),
                    number_cell(_mean_of(own, "bpb_without", "value")),
                    number_cell(_mean_of(own, "exact_match", "value")),
                    number_cell(_mean_of(own, "exact_match", "chance")),
                    text_cell("yes" if row.used else "no"),
                    text_cell("yes" if row.in_score else "no"),
                ],
                "baseline" if row.candidate == verdict.reference else "",
            )
        )
    return Table(heads, rows)


def _bounded(value: float | None, low: float | None) -> str:
    """Format a gain with the lower end of its interval, which is corrected for the candidates."""
    if value is None:
        return "not measured"
    return f"{signed(value)} [{'unknown' if low is None else signed(low)}]"


def _sorted_by(value: float | None) -> float | str:
    return "" if value is None else value


def _mean_of(scores: pd.DataFrame, metric: str, column: str) -> float | None:
    """Return the mean of a column over the rows of one metric; None if there are none."""
    values = scores.loc[scores["metric"].astype("str") == metric, column].dropna()
    return None if values.empty else float(values.mean())


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
                text_cell(r["name"]),
                *(
                    number_cell(r[key], form=".3f")
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
                text_cell(r["run"]),
                text_cell(r["stage"]),
                text_cell(r["source"]),
                number_cell(r["asked"], form=".3f"),
                number_cell(r["realised"], form=".3f"),
                number_cell(r["gap"], form="+.3f"),
            ],
            "failed",
        )
        for r in bad.to_dict("records")
    ]
    return Table(heads, rows)


def ledger(frame: pd.DataFrame, counted: str = "tokens") -> Table | None:
    """Return the cost per phase with its total; ``counted`` is what the runs' budgets count."""
    if frame.empty:
        return None
    heads = [
        Heading("phase"),
        Heading("runs", number=True),
        Heading(counted, number=True),
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
            text_cell(phase),
            number_cell(int(row["runs"]), form="d"),
            number_cell(int(row["tokens"]), form=",d"),
            number_cell(row["train_hours"], 3),
            number_cell(row["score_hours"], 3),
            number_cell(row["wall_hours"], 3),
            number_cell(row["flops"], 3),
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
    rows = [Row([text_cell(run), Cell(why, long=True)]) for run, why in verdict.left_out.items()]
    return Table([Heading("run"), Heading("reason")], rows)
