"""Snapshot as a table for a terminal: active runs first, then the best of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablations.quantities import clock
from analysis.direction import loss_sign
from analysis.watch.snapshot import RunState, Snapshot

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["snapshot_table"]

SILENT_SECONDS = 120.0
"""Seconds without a new row after which an active run is shown as silent; scoring may take this long."""

_STYLES = {"done": "", "failed": "red", "training": "cyan", "scoring": "blue", "pending": "dim"}


def snapshot_table(snapshot: Snapshot, rows: int) -> Table:
    """Return the table.

    Args:
        snapshot: Snapshot from `snapshot.look`.
        rows: Most rows to show.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        title=_title(snapshot),
        title_justify="left",
        caption=_caption(snapshot, rows),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    shown = _shown(snapshot, rows)
    longest = max((len(run.run) for run in shown), default=0)
    # A long reason must not narrow the other columns, so all columns except the note have minimum widths.
    for heading, least in (("run", min(longest, 24)), ("what", 8), ("status", 8)):
        table.add_column(heading, no_wrap=True, min_width=least)
    for heading, least in (("read", 4), ("loss", 4), ("tokens/s", 8), ("score", 6)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=least)
    table.add_column("note", no_wrap=True)
    for run in shown:
        table.add_row(
            run.run,
            run.name or run.phase,
            run.status,
            f"{run.share:.0%}",
            _number(run.loss, ".2f"),
            _number(run.tokens_per_second, ",.0f"),
            _number(run.score, ".4f"),
            _note(run),
            style=_STYLES.get(run.status, ""),
        )
    return table


def _shown(snapshot: Snapshot, rows: int) -> list[RunState]:
    sign = loss_sign(snapshot.direction)
    rank = {"training": 0, "scoring": 0, "failed": 2, "pending": 3}

    def order(run: RunState) -> tuple[int, float, str]:
        score = sign * run.score if run.score is not None else 0.0
        return rank.get(run.status, 1), score, run.run

    return sorted(snapshot.runs, key=order)[:rows]


def _title(snapshot: Snapshot) -> str:
    counts = ", ".join(f"{n} {status}" for status, n in sorted(snapshot.counts.items()))
    trials = len({run.trial for run in snapshot.runs})
    of = f" of {max(trials, snapshot.planned_trials)}" if snapshot.planned_trials else ""
    return f"study {snapshot.study}: {trials}{of} trials begun; runs: {counts or 'none'}"


def _caption(snapshot: Snapshot, rows: int) -> str:
    parts = []
    left = snapshot.seconds_left
    if left is not None:
        end = "planned trials" if snapshot.planned_trials else "recorded runs"
        parts.append(f"about {clock(left)} until the {end} end")
    elif any(run.working for run in snapshot.runs):
        parts.append("the time left is known when a run has ended")
    hidden = len(snapshot.runs) - rows
    if hidden > 0:
        parts.append(f"{hidden} runs not shown")
    return "; ".join(parts)


def _note(run: RunState) -> str:
    if run.status == "failed":
        return run.reason.splitlines()[0] if run.reason else ""
    if run.status == "paused":
        return f"paused at {run.share:.0%}"
    if run.working and run.silent_seconds is not None and run.silent_seconds > SILENT_SECONDS:
        return f"silent {clock(run.silent_seconds)}"
    if run.taken_seconds is not None:
        return f"took {clock(run.taken_seconds)}"
    return ""


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
