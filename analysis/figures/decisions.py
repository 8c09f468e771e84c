"""Figures for decisions: rank transfer between proxies, task quality, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.figures.theme import (
    GREY,
    INK,
    PALETTE,
    PATTERNS,
    axis,
    blank,
    empty_figure,
    number,
    short_ticks,
    write_over,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from sweeps.verdict.task_quality import TaskQuality

__all__ = [
    "cost_ledger",
    "cost_ledger_frame",
    "rank_transfer",
    "rank_transfer_frame",
    "signal_frame",
    "task_signal",
]


def rank_transfer_frame(
    small: Mapping[str, float], large: Mapping[str, float], *, minimised: bool
) -> pd.DataFrame:
    """Return scores and ranks (1 = best), one row per mixture that ran at both proxy sizes."""
    import pandas as pd

    shared = [name for name in small if name in large]
    frame = pd.DataFrame(
        {
            "mixture": shared,
            "small": [small[n] for n in shared],
            "large": [large[n] for n in shared],
        }
    )
    for side in ("small", "large"):
        frame[f"{side}_rank"] = frame[side].rank(ascending=minimised)
    return frame


def rank_transfer(frame: pd.DataFrame, *, small: str, large: str, agreement: str = "") -> go.Figure:
    """Draw the rank of each mixture at one proxy size against its rank at another.

    Args:
        frame: Frame from :func:`rank_transfer_frame`.
        small: Name of the smaller proxy.
        large: Name of the larger proxy.
        agreement: Text above the plot: rank correlation and decision accuracy with their intervals.
    """
    if len(frame) < 3:
        return empty_figure("rank transfer needs three mixtures run at both sizes")
    figure = blank(height=460)
    edge = len(frame) + 1
    figure.add_scatter(
        x=[0, edge],
        y=[0, edge],
        mode="lines",
        name="same rank",
        hoverinfo="skip",
        line={"color": GREY, "dash": "dash", "width": 1},
    )
    figure.add_scatter(
        x=frame["small_rank"],
        y=frame["large_rank"],
        mode="markers",
        name="mixture",
        marker={"size": 10, "color": PALETTE[0], "line": {"color": INK, "width": 0.8}},
        hovertext=[
            f"<b>{r.mixture}</b><br>{small}: {r.small:.5g} (rank {r.small_rank:g})"
            f"<br>{large}: {r.large:.5g} (rank {r.large_rank:g})"
            for r in frame.itertuples()
        ],
        hoverinfo="text",
    )
    if agreement:
        write_over(figure, agreement)
    figure.layout.xaxis = axis(f"rank at {small}", "1 = best", range=[0, edge])
    figure.layout.yaxis = axis(f"rank at {large}", "1 = best", range=[0, edge])
    return figure


_CRITERIA = (
    ("variance_ratio", "mixtures over noise", "variances"),
    ("monotonicity", "monotone in tokens", "Spearman"),
    ("above_chance", "above chance", "run noises"),
    ("stability", "stable ranking", "Kendall τ"),
)


def signal_frame(signals: Sequence[TaskQuality]) -> pd.DataFrame:
    """Return one row for each task and criterion: value (missing = not measured), least, passes."""
    import pandas as pd

    from sweeps.verdict import task_quality

    least = {
        "variance_ratio": task_quality.MIN_VARIANCE_RATIO,
        "monotonicity": task_quality.MIN_MONOTONICITY,
        "above_chance": task_quality.MIN_ABOVE_CHANCE,
        "stability": task_quality.MIN_STABILITY,
    }
    rows = []
    for found in signals:
        for key, criterion, unit in _CRITERIA:
            value = getattr(found, key)
            rows.append(
                {
                    "task": found.task,
                    "criterion": criterion,
                    "unit": unit,
                    "least": least[key],
                    "value": float("nan") if value is None else float(value),
                    "passes": None if value is None else value >= least[key],
                    "warnings": ", ".join(found.warnings),
                }
            )
    columns = ["task", "criterion", "unit", "least", "value", "passes", "warnings"]
    return pd.DataFrame(rows, columns=columns)


def task_signal(frame: pd.DataFrame) -> go.Figure:
    """Draw the measured value of each task (rows) and criterion (columns) with ✓ or ✗, a dash if none."""
    if frame.empty:
        return empty_figure("task quality is measured by the verdict")
    criteria = [criterion for _, criterion, _ in _CRITERIA]
    tasks = sorted(frame["task"].unique(), reverse=True)
    cells = {(r.task, r.criterion): r for r in frame.itertuples()}
    mark = {True: " ✓", False: " ✗"}
    level = [[_level(cells[t, c]) for c in criteria] for t in tasks]
    text = [
        [f"{_short(cells[t, c].value)}{mark.get(cells[t, c].passes, '')}" for c in criteria]
        for t in tasks
    ]
    hover = [[_signal_hover(cells[t, c]) for c in criteria] for t in tasks]
    figure = blank(height=120 + 26 * len(tasks), legend=False)
    figure.add_heatmap(
        z=level,
        x=[_criterion_label(cells[tasks[0], c]) for c in criteria],
        y=tasks,
        text=text,
        texttemplate="%{text}",
        hovertext=hover,
        hoverinfo="text",
        xgap=2,
        ygap=2,
        zmin=0,
        zmax=2,
        showscale=False,
        textfont={"size": 11},
        colorscale=[[0, "#F3C7A5"], [0.5, "#F2F2F2"], [1, "#BFDDF0"]],
    )
    figure.layout.xaxis = axis(
        "criterion, its unit, its least value",
        showgrid=False,
        side="top",
        tickangle=0,
        tickfont={"size": 9},
    )
    figure.layout.yaxis = axis("task", showgrid=False, **short_ticks(tasks, 20))
    return figure


def _short(value: float) -> str:
    """Format with two digits and no exponent, because four columns have to fit a phone."""
    return f"{value:.0f}" if abs(value) >= 10 else number(value, 2)


def _level(cell: Any) -> int:
    return 1 if cell.passes is None else 2 if cell.passes else 0


def _criterion_label(cell: Any) -> str:
    words = cell.criterion.replace(" ", "<br>")
    return f"{words}<br><i>{cell.unit}</i><br>≥ {cell.least:g}"


def _signal_hover(cell: Any) -> str:
    return (
        f"<b>{cell.task}</b><br>{cell.criterion}: {number(cell.value)} {cell.unit}, "
        f"at least {cell.least:g}" + (f"<br>{cell.warnings}" if cell.warnings else "")
    )


def cost_ledger_frame(cost: pd.DataFrame) -> pd.DataFrame:
    """Return runs, CPU-hours, wall hours, FLOPs and tokens, one row per phase; failed runs are a phase."""
    table = cost.astype({"phase": "str", "status": "str"}).copy()
    table["phase"] = table["phase"].fillna("run").where(table["status"] != "failed", "failed")
    grouped = table.groupby("phase", sort=False)
    frame = grouped.agg(
        runs=("run", "count"),
        train=("train_cpu_seconds", "sum"),
        score=("eval_cpu_seconds", "sum"),
        wall=("wall_seconds", "sum"),
        flops=("flops", "sum"),
        tokens=("tokens", "sum"),
    ).reset_index()
    for name in ("train", "score", "wall"):
        frame[name] /= 3600.0
    return frame.rename(
        columns={"train": "train_hours", "score": "score_hours", "wall": "wall_hours"}
    )


def cost_ledger(frame: pd.DataFrame) -> go.Figure:
    """Draw the CPU time per phase, with training and scoring stacked."""
    if frame.empty or not (frame["train_hours"] + frame["score_hours"]).sum() > 0:
        return empty_figure("no run has recorded its cost yet")
    figure = blank(height=150 + 40 * len(frame))
    unit, factor = ("hours", 1.0)
    if float((frame["train_hours"] + frame["score_hours"]).max()) < 0.5:
        unit, factor = ("minutes", 60.0)
    phases = [
        f"{phase} · {runs}" for phase, runs in zip(frame["phase"], frame["runs"], strict=True)
    ]
    for place, (column, label) in enumerate(
        (("train_hours", "training"), ("score_hours", "scoring"))
    ):
        figure.add_bar(
            y=phases,
            x=factor * frame[column],
            orientation="h",
            name=label,
            marker={
                "color": PALETTE[place],
                "line": {"color": INK, "width": 0.5},
                "pattern": {
                    "shape": PATTERNS[place],
                    "fillmode": "overlay",
                    "fgcolor": "white",
                    "solidity": 0.3,
                },
            },
            hovertext=[
                f"<b>{r.phase}</b>, {r.runs} runs<br>{label} {factor * h:.3g} CPU {unit}"
                f"<br>{r.flops:.3g} FLOPs, {r.tokens:,} tokens"
                for r, h in zip(frame.itertuples(), frame[column], strict=True)
            ],
            hoverinfo="text",
        )
    figure.layout.barmode, figure.layout.bargap = "stack", 0.35
    figure.layout.legend.traceorder = "normal"
    figure.layout.xaxis = axis("CPU time", f"CPU {unit}", rangemode="tozero")
    figure.layout.yaxis = axis("phase · runs", "", showgrid=False, autorange="reversed")
    return figure
