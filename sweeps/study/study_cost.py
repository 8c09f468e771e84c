"""Cost of a study before it runs, and its known trials, for ``ablate plan -m …``. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.table import Table

from ablations.terminal import table_console
from sweeps.study.budget import affordable_runs
from sweeps.study.rung_request import RungRequest
from sweeps.study.specs import SearchSpec
from sweeps.study.strategy import Strategy
from sweeps.study.thresholds import Threshold, threshold_table
from sweeps.study.trunks import Trunks

__all__ = [
    "StudyCost",
    "estimate_cost",
    "estimate_rung_cost",
    "print_cost",
    "sweep_trunks",
    "with_trunks",
]


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """Number of runs in each phase, and the planned cost of one run."""

    runs: Mapping[str, int | None]
    """Phase → number of runs; None if it depends on the cost of the runs."""
    run_price: Mapping[str, float]
    """``tokens``, ``flops``, ``gpu_hours`` of one run, and ``usd`` if its devices have a price."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Phase → share of a full run that each of its runs costs; 1 for phases that are not named."""
    notes: tuple[str, ...] = ()
    """Lines below the table."""

    def price(self, phase: str, name: str) -> float | None:
        """Return the cost of a phase, of all phases for ``all``; None if it is not known."""
        if name not in self.run_price:
            return None
        runs = self.runs if phase == "all" else {phase: self.runs[phase]}
        if any(count is None for count in runs.values()):
            return None
        units = sum((count or 0) * self.shares.get(one, 1.0) for one, count in runs.items())
        return units * self.run_price[name]

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


def estimate_rung_cost(
    spec: SearchSpec,
    strategy: Strategy,
    run_price: Mapping[str, float],
    rungs: RungRequest,
    plain: StudyCost,
) -> StudyCost:
    """Return the cost of a search whose explored runs pause; ``plain`` with the reason if they do not."""
    plan, share, price = rungs.plan, rungs.rung.share, rungs.rung.price
    if plan is None:
        return replace(plain, notes=(rungs.note,))
    extra = max(0, len(spec.confirm.seeds) - 1)
    finalists = spec.confirm.finalists
    picks = int(spec.confirm.pick and finalists > 0)
    own_model = rungs.rung.model is not None
    at = f"to {share:.0%} of the tokens{', smaller model' if own_model else ''}"
    then = "in full" if own_model else "from there on"
    runs = {
        "baselines": len(strategy.baselines),
        f"design ({spec.strategy.design}), {at}": plan.design,
        f"proposals ({spec.strategy.proposer}), {at}": plan.low_runs - plan.design,
        f"pairs of the guard, {then}": plan.pairs,
        f"finalists, {then}": plan.finalists,
        "confirmation, at most": finalists
        and (finalists + 1) * extra + picks * len(spec.confirm.seeds),
    }
    names = list(runs)
    shares = dict.fromkeys(names[1:3], price)
    if not own_model:
        shares |= dict.fromkeys(names[3:5], 1.0 - price)
    paused = plan.low_runs - (0 if own_model else plan.finalists)
    disk = f"paused runs keep about {paused * rungs.state_bytes / 1e9:.3g} GB of checkpoints"
    notes = (f"{disk} ({paused} runs at the end of the search)", rungs.note)
    return StudyCost(
        runs=runs, run_price=run_price, shares=shares, notes=tuple(note for note in notes if note)
    )


def with_trunks(cost: StudyCost, spec: SearchSpec, trunks: Trunks) -> StudyCost:
    """Return the cost of a search whose runs share their first steps, with what that saves."""
    if not spec.trunks:
        return cost
    if not trunks.share:
        return replace(cost, notes=(*cost.notes, f"no trunk: {trunks.reason}"))
    seeds = {*(spec.seeds or (0,)), *(spec.confirm.seeds if spec.confirm.finalists else ())}
    shared = replace(
        cost,
        runs={**cost.runs, "trunks, one for each seed": len(seeds)},
        shares=dict.fromkeys(cost.runs, 1.0 - trunks.share)
        | {"trunks, one for each seed": trunks.share},
    )
    group = trunks.groups[0]
    note = f"the first {group.steps:,} steps ({group.share:.0%}) are equal in all trials: trained once a seed"
    before, after = (one.price("all", "flops") for one in (cost, shared))
    if before and after is not None:
        note += f", which saves {before - after:.3g} of {before:.3g} FLOPs"
    return replace(shared, notes=(*cost.notes, note))


def sweep_trunks(trunks: Trunks, seeds: int) -> list[str]:
    """Return the trunks of a plain sweep in words."""
    return [
        f"{len(group.keys)} trials share their first {group.steps:,} steps ({group.share:.0%}), trained once"
        f"{' a seed' if seeds > 1 else ''}: saves {(len(group.keys) - 1) * group.share * seeds:.3g} full runs"
        for group in trunks.groups
    ] or [f"no trunk: {trunks.reason}"]


def print_cost(
    spec: SearchSpec,
    strategy: Strategy,
    cost: StudyCost,
    thresholds: Sequence[Threshold] = (),
    console: Console | None = None,
) -> None:
    """Print the cost of a search, its thresholds, and the trials that are known beforehand."""
    out = console or table_console()
    table = Table(title=spec.question or "the study", title_justify="left")
    columns = {"tokens": "tokens", "flops": "FLOPs", "gpu_hours": "device hours"}
    if "usd" in cost.run_price:
        columns["usd"] = "dollars"
    for heading in ("phase", "runs", *columns.values()):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase, runs in [*cost.runs.items(), ("all", cost.total_runs)]:
        costs = [
            "–" if (price := cost.price(phase, name)) is None else f"{price:.4g}"
            for name in columns
        ]
        table.add_row(phase, "as the budget allows" if runs is None else str(runs), *costs)
    out.print(table)
    for note in cost.notes:
        out.print(note)
    if searched := threshold_table(thresholds):
        out.print(searched)
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
