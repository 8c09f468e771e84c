"""Print a verdict on a terminal: the sentence first, then the evidence as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ablations.terminal import named_column, table_console
from sweeps.verdict.contrasts import Estimate
from sweeps.verdict.messages import gains, number
from sweeps.verdict.p_values import p_equals, p_value
from sweeps.verdict.verdict_record import Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["show"]

_COLOUR = {"winner": "green", "tie": "yellow", "keep-baseline": "cyan"}
_EFFECT = {
    "gains": "[green]better[/]",
    "pays": "[red]worse[/]",
    "not shown": "not significant",
    "unknown": "[dim]unknown[/]",
    "blind": "[yellow]picture not used[/]",
}
"""Text of the difference on a task, by its value on disk."""


def show(verdict: Verdict, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print the verdict: the answer, the candidates, and the tasks that differ.

    Args:
        verdict: Verdict to print.
        console: Console to print to; None = a new one.
        verbose: Also print each task, task quality, transfer, noise, caveats and the rule.
    """
    # Imported here, as in the commands: reading a verdict needs no terminal.
    from rich.text import Text

    out = console or table_console()
    out.print(Text(verdict.sentence, style=f"bold {_COLOUR[verdict.outcome]}"))
    for line in (verdict.answer, verdict.settle_text or _regret(verdict)):
        if line:
            out.print(Text(line))
    out.print(_candidates(verdict))
    for line in _task_lines(verdict):
        out.print(Text(line))
    if verbose:
        _show_details(verdict, out)
    else:
        caveats = len(verdict.caveats) + len(verdict.left_out)
        noted = f", {caveats} caveat{'s' if caveats != 1 else ''}" if caveats else ""
        out.print(Text(f"verbose=true also prints each task, the noise{noted}.", style="dim"))


def _show_details(verdict: Verdict, out: Console) -> None:
    from rich.text import Text

    if verdict.settle_text:
        out.print(Text(_regret(verdict)))
    out.print(_tasks(verdict))
    if any(s.monotonicity is not None or s.variance_ratio is not None for s in verdict.signal):
        out.print(_quality(verdict))
    if verdict.transfer:
        out.print(_transfer(verdict))
    out.print(Text(_noise(verdict)))
    for caveat in verdict.caveats:
        out.print(Text(f"- {caveat}"))
    for run, why in verdict.left_out.items():
        out.print(Text(f"- left out: {run}: {why}", style="dim"))
    out.print(Text(f"Rule: {verdict.rule}", style="dim"))


def _task_lines(verdict: Verdict) -> list[str]:
    """Return one line each for the tasks on which the pick is better, worse, and neither; then pictures."""
    lines = []
    for effect, words in (("gains", "Better on"), ("pays", "Worse on")):
        rows = [row for row in verdict.tasks if row.effect == effect and row.advantage is not None]
        rows.sort(key=lambda row: -abs(row.advantage.value) if row.advantage else 0.0)
        parts = [
            f"{row.task} {row.metric} ({number(row.advantage.value)})"
            for row in rows
            if row.advantage
        ]
        if parts:
            lines.append(f"{words}: {', '.join(parts)}")
    same = sum(row.effect in ("not shown", "unknown") for row in verdict.tasks)
    if same:
        lines.append(f"No significant difference on {same} of {len(verdict.tasks)} tasks.")
    blind = [row.task for row in verdict.tasks if row.effect == "blind"]
    if blind:
        lines.append(f"A lead without use of the picture on: {', '.join(blind)}")
    return lines + [
        f"Pictures of {row.task} in {row.candidate}: {'used' if row.used else 'not used'}, {gains(row)}"
        for row in verdict.pictures
    ]


def _regret(verdict: Verdict) -> str:
    regret = verdict.regret
    if regret.chance is None:
        return "The chance of regret is not known."
    beyond = f" by more than {number(regret.margin)}" if regret.margin else ""
    expected = (
        f"; expected loss {number(regret.expected)} if taken, "
        f"{number(regret.expected_if_kept)} if not"
        if regret.expected is not None
        else ""
    )
    return (
        f"Chance that {verdict.pick} is worse than {verdict.reference}{beyond}: "
        f"{regret.chance:.1%}{expected}."
    )


def _candidates(verdict: Verdict) -> Table:
    table = _table(
        f"candidates ({verdict.score}, {verdict.direction}; 95% intervals; p corrected for all candidates)"
    )
    mixtures = any(row.weights for row in verdict.candidates)
    named_column(table, "candidate")
    for heading in (*(["mixture"] if mixtures else []), "seeds"):
        table.add_column(heading)
    for heading in ("score", f"better than {verdict.reference} by", "p"):
        table.add_column(heading, justify="right")
    table.add_column("may be best")
    for row in verdict.candidates:
        mixture = " ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items())
        table.add_row(
            row.name,
            *([mixture] if mixtures else []),
            ",".join(map(str, row.seeds)),
            number(row.mean, 4),
            *_cells(row.advantage),
            "yes" if row.finalist else "",
        )
    return table


def _tasks(verdict: Verdict) -> Table:
    table = _table(
        f"{verdict.pick} against {verdict.reference}, task by task "
        "(95% intervals; p corrected for all tasks)"
    )
    named_column(table, "task")
    for heading in (verdict.reference, verdict.pick, "better by", "p"):
        table.add_column(heading, justify="right")
    table.add_column("difference")
    table.add_column("in score")
    for row in verdict.tasks:
        table.add_row(
            f"{row.task} {row.metric}",
            number(row.reference, 4),
            number(row.pick, 4),
            *_cells(row.advantage),
            _EFFECT[row.effect],
            "yes" if row.in_score else "–",
        )
    return table


def _cells(estimate: Estimate | None) -> tuple[str, str]:
    """Return a difference with its interval, in one cell that a narrow terminal may break, and its p."""
    if estimate is None:
        return "", ""
    interval = (estimate.low, estimate.high) if math.isfinite(estimate.low) else None
    return _with_interval(estimate.value, interval), p_value(estimate.p_corrected)


def _quality(verdict: Verdict) -> Table:
    table = _table("task quality (reported; the score is the study's own)")
    named_column(table, "task")
    for heading in ("mixtures / noise", "monotone", "above chance", "stable ranking"):
        table.add_column(heading, justify="right")
    table.add_column("warnings")
    for row in verdict.signal:
        table.add_row(
            row.task,
            number(row.variance_ratio),
            number(row.monotonicity, 2),
            number(row.above_chance),
            number(row.stability, 2),
            ", ".join(row.warnings) or "none",
        )
    return table


def _transfer(verdict: Verdict) -> Table:
    table = _table("transfer between proxies")
    for heading in ("from", "to", "mixtures", "rank correlation", "same decision"):
        table.add_column(heading)
    for row in verdict.transfer:
        table.add_row(
            row.small,
            row.large,
            str(row.mixtures),
            _with_interval(row.rank_correlation, row.rank_interval),
            _with_interval(row.decision_accuracy, row.decision_interval) + f" of {row.pairs} pairs",
        )
    return table


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return number(value)
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def _noise(verdict: Verdict) -> str:
    noise = verdict.noise
    parts = [f"Noise: from {noise.source}"]
    if noise.run_sd is not None:
        parts.append(f"SD of one run {number(noise.run_sd)} ({noise.df:.3g} degrees of freedom)")
    if noise.item_error is not None:
        parts.append(f"items add {number(noise.item_error)}")
    if noise.bootstrap is not None:
        low, high = noise.bootstrap
        parts.append(f"bootstrap over seeds and items {number(low)} to {number(high)}")
    if noise.permutation_p is not None:
        parts.append(f"permutation {p_equals(noise.permutation_p)}")
    return "; ".join(parts) + "."


def _table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
