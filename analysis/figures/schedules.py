"""Figures of the data: timeline of a schedule, epochs and their cap, realised and requested shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from analysis.figures.theme import (
    GREY,
    INK,
    PALETTE,
    SYMBOLS,
    axis,
    blank,
    empty_figure,
    short_ticks,
    shorten,
    source_styles,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ablations.mixture.schedule import LearningRate, Schedule

__all__ = [
    "MOST_MARKS",
    "epochs_against_cap",
    "epochs_frame",
    "realised_against_asked",
    "realised_frame",
    "stage_timeline",
    "timeline_frame",
]


MOST_MARKS = 1000
"""Most marks of one kind that a figure draws; the ends of every row are among them."""


def timeline_frame(
    schedule: Schedule, learning_rate: LearningRate | None = None, *, points: int = 200
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stages and the learning rate over tokens.

    Returns:
        One row per stage and source (stage, source, weight, start and end in tokens), and one row per
        point of the learning rate (tokens, lr), including its corners.
    """
    import pandas as pd

    per_step = schedule.tokens_per_step
    rows = []
    for number, stage in enumerate(schedule.stages):
        start = schedule.first_step(number)
        for source in schedule.sources:
            rows.append(
                {
                    "stage": stage.name,
                    "source": source,
                    "weight": stage.mixture.get(source, 0.0),
                    "start": start * per_step,
                    "end": (start + stage.steps) * per_step,
                }
            )
    stages = pd.DataFrame(rows)
    if learning_rate is None:
        return stages, pd.DataFrame(columns=["tokens", "lr"])
    total = schedule.total_steps
    corners = {0, learning_rate.warmup_steps, learning_rate.decay_start, total - 1}
    steps = sorted(
        {round(i * (total - 1) / points) for i in range(points + 1)}
        | {step for step in corners if 0 <= step < total}
    )
    curve = pd.DataFrame(
        {"tokens": [(s + 1) * per_step for s in steps], "lr": [learning_rate.at(s) for s in steps]}
    )
    return stages, curve


def stage_timeline(stages: pd.DataFrame, curve: pd.DataFrame) -> go.Figure:
    """Draw the shares of tokens stacked per stage, with the learning rate above them."""
    if stages.empty:
        return empty_figure("no schedule to show")
    names = [str(name) for name in dict.fromkeys(stages["source"])]
    # A phone's legend has one name per line, and scrolls if it would be higher than this.
    figure = blank(height=460 + 20 * max(0, len(names) - 6))
    figure.layout.legend.maxheight = 0.7
    for name, style in source_styles(names).items():
        _add_source(figure, stages[stages["source"] == name], name, style)
    spans = stages.drop_duplicates("stage")
    for number, row in enumerate(spans.itertuples(), start=1):
        figure.add_annotation(
            x=(row.start + row.end) / 2,
            y=1.0,
            yanchor="bottom",
            text=f"<b>{number}</b>",
            showarrow=False,
            font={"size": 12},
        )
    _add_learning_rate(figure, curve)
    legend = " · ".join(f"{n} {name}" for n, name in enumerate(spans["stage"], start=1))
    title = axis(
        "training so far", "tokens", tickformat="~s", range=[0, float(stages["end"].max())]
    )
    title["title"]["text"] += "<br>stages: " + wrapped(legend, 38)
    figure.layout.update(barmode="stack", bargap=0)
    figure.layout.margin.t = 16
    figure.layout.xaxis = title
    figure.layout.yaxis = axis(
        "share of the stage's tokens",
        tickformat=".0%",
        range=[0, 1.12],
        tickvals=[0, 0.25, 0.5, 0.75, 1.0],
    )
    return figure


def _add_source(figure: go.Figure, rows: pd.DataFrame, name: str, style: Mapping[str, str]) -> None:
    pattern = {
        "shape": style["pattern"],
        "fillmode": "overlay",
        "fgcolor": "white",
        "size": 6,
        "solidity": 0.25,
    }
    figure.add_bar(
        x=(rows["start"] + rows["end"]) / 2,
        y=rows["weight"],
        width=rows["end"] - rows["start"],
        name=shorten(name, 20),
        marker={
            "color": style["colour"],
            "line": {"color": "white", "width": 1},
            "pattern": pattern,
        },
        hovertext=[
            f"<b>{r.stage}</b>: {name} {r.weight:.1%}<br>{r.weight * (r.end - r.start):.4g} tokens"
            for r in rows.itertuples()
        ],
        hoverinfo="text",
    )


def _add_learning_rate(figure: go.Figure, curve: pd.DataFrame) -> None:
    """Draw a dark line with a white rim, which is visible on every colour and pattern."""
    if curve.empty:
        return
    for width, colour, shown in ((6, "white", False), (2.5, INK, True)):
        figure.add_scatter(
            x=curve["tokens"],
            y=curve["lr"],
            yaxis="y2",
            mode="lines",
            name="learning rate",
            line={"color": colour, "width": width},
            showlegend=shown,
            hovertemplate="learning rate %{y:.3g}<extra></extra>",
        )
    top = 1.25 * float(curve["lr"].max())
    figure.layout.yaxis2 = axis(
        "learning rate",
        overlaying="y",
        side="right",
        showgrid=False,
        # By default plotly puts the ticks of an overlaid axis at those of the other: 0.00334815.
        tickmode="auto",
        tickformat="~g",
        nticks=5,
        range=[0, top],
    )


def epochs_frame(sources: pd.DataFrame, audits: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs over the whole schedule and their cap, one row per run and source.

    Epochs are as read if the run was audited, else as requested. A source that is exempt from the cap
    is never over it. Columns: run, trial, source, epochs, cap, exemption (reason; missing if none),
    audited, over.
    """
    kinds = {"run": "str", "trial": "str", "source": "str"}
    keys = ["run", "trial", "source"]
    asked = (
        sources.astype(kinds)
        .groupby(keys, as_index=False)
        .agg(
            epochs=("epochs", "sum"),
            cap=("epoch_cap", "first"),
            exemption=("exemption", "first"),
            known=("available", "count"),
        )
    )
    asked = asked[asked["known"] > 0].drop(columns="known")
    read = audits.astype(kinds).groupby(keys, as_index=False)["epochs"].first()
    frame = asked.merge(read, on=keys, how="left", suffixes=("", "_read"))
    frame["audited"] = frame["epochs_read"].notna()
    frame["epochs"] = frame.pop("epochs_read").fillna(frame["epochs"])
    frame["over"] = frame["exemption"].isna() & (frame["epochs"] > frame["cap"] * (1 + 1e-9))
    return frame


def epochs_against_cap(frame: pd.DataFrame) -> go.Figure:
    """Draw the epochs of every source in every run: crosses are over the cap, triangles are exempt."""
    if frame.empty:
        return empty_figure("no source states its number of available tokens")
    names = sorted(frame["source"].unique(), reverse=True)
    figure = blank(height=130 + 44 * len(names))
    exempt = frame["exemption"].notna()
    parts = {
        "within the cap": frame[~frame["over"] & ~exempt],
        "over the cap": frame[frame["over"]],
        "exempt from the cap": frame[exempt],
    }
    _add_marks(
        figure,
        parts,
        x="epochs",
        y="source",
        hover=lambda r: (
            f"<b>{r.run}</b><br>{r.source}: {r.epochs:.3g} epochs{_limit(r.cap, r.exemption)}"
            f"<br>{'as read' if r.audited else 'as requested'}"
        ),
    )
    cap = float(frame["cap"].min())
    figure.add_vline(
        x=cap,
        line={"color": INK, "dash": "dash", "width": 1.5},
        annotation_text=f"cap {cap:g}",
        annotation_position="top",
    )
    figure.layout.margin.t = 28
    figure.layout.xaxis = axis("tokens read / available", "epochs", rangemode="tozero")
    # Broken by hand, as in the audit below, because long names leave little plot on a phone.
    figure.layout.xaxis.title.text = "tokens read / available<br>(epochs)"
    figure.layout.yaxis = axis("source", **short_ticks(names))
    return figure


def _limit(cap: float, exemption: Any) -> str:
    """Return the rest of a hover line: the cap, or the reason why it does not apply."""
    if isinstance(exemption, str):
        return f", exempt from the cap:<br>{wrapped(exemption)}"
    return f" of at most {cap:g}"


def _add_marks(
    figure: go.Figure,
    parts: Mapping[str, pd.DataFrame],
    *,
    x: str,
    y: str,
    hover: Callable[[Any], str],
) -> None:
    """Draw one mark per row: rings for the first of ``parts``, crosses for the second, then triangles."""
    styles = ((f"{SYMBOLS[0]}-open", PALETTE[0]), ("x", PALETTE[1]), ("triangle-up-open", INK))
    for (label, part), (symbol, colour) in zip(parts.items(), styles, strict=False):
        if part.empty:
            continue
        part = _thinned(part, x, y)
        figure.add_scatter(
            x=part[x],
            y=part[y],
            mode="markers",
            name=label,
            marker={"symbol": symbol, "size": 9, "color": colour, "line": {"width": 1.2}},
            hovertext=[hover(row) for row in part.itertuples()],
            hoverinfo="text",
        )


def _thinned(part: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return at most about :data:`MOST_MARKS` rows: both ends of every row of marks, and a sample."""
    if len(part) <= MOST_MARKS:
        return part
    rows = part.groupby(y, observed=True)[x]
    ends = part.loc[[*rows.idxmin(), *rows.idxmax()]].drop_duplicates()
    rest = part.drop(ends.index)
    sample = rest.sample(max(0, MOST_MARKS - len(ends)), random_state=0)
    return part.loc[ends.index.union(sample.index)]


def realised_frame(audits: pd.DataFrame) -> pd.DataFrame:
    """Return requested share, realised share and gap in percentage points, one row per audited share."""
    frame = audits.astype({"run": "str", "stage": "str", "source": "str"})
    frame = frame[["run", "stage", "source", "asked", "realised", "gap", "tolerance"]].copy()
    for name in ("asked", "realised", "gap", "tolerance"):
        frame[name] = 100.0 * frame[name]
    frame["row"] = frame["source"]
    if frame["stage"].nunique() > 1:
        frame["row"] += "<br>" + frame["stage"]
    frame["fails"] = frame["gap"].abs() > frame["tolerance"]
    return frame.dropna(subset=["gap"]).reset_index(drop=True)


def realised_against_asked(frame: pd.DataFrame) -> go.Figure:
    """Draw the realised minus the requested share of every run; the grey band is the tolerance."""
    if frame.empty:
        return empty_figure("no run has been audited yet")
    rows = list(dict.fromkeys(frame["row"]))[::-1]
    figure = blank(height=130 + (40 if "<br>" in rows[0] else 34) * len(rows))
    tolerance = float(frame["tolerance"].max())
    figure.add_vrect(
        x0=-tolerance, x1=tolerance, fillcolor=GREY, opacity=0.15, line_width=0, layer="below"
    )
    _add_marks(
        figure,
        {"passes": frame[~frame["fails"]], "fails": frame[frame["fails"]]},
        x="gap",
        y="row",
        hover=lambda r: (
            f"<b>{r.run}</b><br>{r.stage}, {r.source}<br>requested {r.asked:.3f}%, "
            f"realised {r.realised:.3f}%"
        ),
    )
    figure.layout.xaxis = axis("realised − requested", nticks=4, tickangle=0)
    # Broken by hand: two names per row leave the plot 120 of a phone's 390 pixels.
    figure.layout.xaxis.title.text = "realised − requested<br>(% points)"
    figure.layout.yaxis = axis(
        "source, stage" if "<br>" in rows[0] else "source",
        categoryorder="array",
        categoryarray=rows,
        **short_ticks(rows)
        | {"ticktext": ["<br>".join(map(shorten, row.split("<br>"))) for row in rows]},
    )
    return figure
