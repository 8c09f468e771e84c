"""Cost of a study before it runs, and its known trials, for ``ablate plan -m …``. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ablations.terminal import table_console
from sweeps.study.budget import affordable_runs
from sweeps.study.specs import SearchSpec
from sweeps.study.strategy import Strategy

__all__ = ["StudyCost", "estimate_cost", "print_cost"]


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """Number of runs in each phase, and the planned cost of one run."""

    runs: Mapping[str, int | None]
    """Phase → number of runs; None if it depends on the cost of the runs."""
    run_price: Mapping[str, float]
    """``tokens``, ``flops``, ``gpu_hours`` of one run, and ``usd`` if its devices have a price."""

    @property
    def total_runs(self) -> int | None:
        """Return the number of all runs; None if a phase has no number."""
        counts = [count for count in self.runs.values() if count is not None]
        return sum(counts) if len(counts) == len(self.runs) else None


def estimate_cost(
    spec: SearchSpec, strategy: Strategy, run_price: Mapping[str, float], affordable: int | None
) -> StudyCost:
    """Return the cost of a search."""
    seeds = len(spec.seeds) or 1
    planned = len(strategy.baselines) + len(strategy.design)
    limits = [limit for limit in (affordable, strategy.most_trials) if limit is not None]
    proposed = max(0, min(limits) - planned) if limits else None
    finalists = spec.confirm.finalists
    confirming = 0
    if finalists:
        extra = max(0, len(spec.confirm.seeds) - seeds)
        picks = int(spec.confirm.pick and spec.strategy.proposer == "surrogate")
        # The baseline is confirmed like the finalists. All seeds of the surrogate's pick are new runs.
        confirming = (finalists + 1) * extra + picks * len(spec.confirm.seeds)
    paid = affordable_runs(spec.budget, run_price)
    if paid is not None and proposed is not None:
        confirming = min(confirming, max(0, paid - (planned + proposed) * seeds))
    return StudyCost(
        runs={
            "baselines": len(strategy.baselines) * seeds,
            f"design ({spec.strategy.design})": len(strategy.design) * seeds,
            f"proposals ({spec.strategy.proposer})": None if proposed is None else proposed * seeds,
            "confirmation, at most": confirming,
        },
        run_price=run_price,
    )


def print_cost(
    spec: SearchSpec, strategy: Strategy, cost: StudyCost, console: Console | None = None
) -> None:
    """Print the cost of a search and the trials that are known beforehand."""
    out = console or table_console()
    table = Table(title=spec.question or "the study", title_justify="left")
    columns = {"tokens": "tokens", "flops": "FLOPs", "gpu_hours": "device hours"}
    if "usd" in cost.run_price:
        columns["usd"] = "dollars"
    for heading in ("phase", "runs", *columns.values()):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase, runs in [*cost.runs.items(), ("all", cost.total_runs)]:
        costs = [
            "–"
            if runs is None or name not in cost.run_price
            else f"{runs * cost.run_price[name]:.4g}"
            for name in columns
        ]
        table.add_row(phase, "as the budget allows" if runs is None else str(runs), *costs)
    out.print(table)
    trials = Table(title="trials known beforehand", title_justify="left")
    trials.add_column("trial")
    trials.add_column("what")
    named = [*strategy.baselines.items(), *(("design", point) for point in strategy.design)]
    for name, point in named:
        parts = [
            " ".join(f"{source} {weight:.3f}" for source, weight in value.items())
            if isinstance(value, dict)
            else f"{path}={value}"
            for path, value in point.items()
        ]
        trials.add_row(name, "; ".join(parts))
    out.print(trials)
