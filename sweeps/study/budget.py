"""Cost of a study so far, compared with its budget.

Exploring and confirming have separate shares: ``confirm_share`` of a budget in tokens, FLOPs or
GPU-hours is reserved for confirmation, so that exploring cannot use up the seeds that the verdict
needs. Runs in flight count at the mean cost of the runs that ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sweeps.study.specs import BudgetSpec
from sweeps.study.trial import Trial

__all__ = ["Account", "Ledger", "affordable_runs", "affordable_trials", "ledger_of"]

Purpose = Literal["explore", "confirm"]
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Account:
    """Cost of the runs of one purpose."""

    runs: int = 0
    failed: int = 0
    """Runs that failed or were pruned, among ``runs``."""
    tokens: float = 0.0
    flops: float = 0.0
    device_hours: float = 0.0

    def plus(self, other: Account) -> Account:
        """Return the sum of both."""
        return Account(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Cost of a study's runs by purpose, with its budget."""

    budget: BudgetSpec
    explored_trials: int
    """Number of exploring trials, running and failed ones included."""
    explore: Account
    confirm: Account
    paused: Account = Account()
    """Runs that paused at a low rung, among those of ``explore``."""
    trunks: Account = Account()
    """First steps that runs share, trained once; their runs count no trial."""

    def may_explore(self, in_flight: int) -> bool:
        """Return whether one more exploring run fits besides ``in_flight`` runs without a cost yet."""
        limit = self.budget.trials
        if limit is not None and self.explored_trials >= limit:
            return False
        return self._fits(self.explore, 1.0 - self.budget.confirm_share, in_flight)

    def may_confirm(self, in_flight: int) -> bool:
        """Return whether one more confirming run fits; budget left over from exploring counts too."""
        return self._fits(self.explore.plus(self.confirm), 1.0, in_flight)

    def _fits(self, spent: Account, share: float, in_flight: int) -> bool:
        both = self.explore.plus(self.confirm)
        spent = spent.plus(self.trunks)
        for limit, name in (
            (self.budget.tokens, "tokens"),
            (self.budget.flops, "flops"),
            (self.budget.gpu_hours, "device_hours"),
        ):
            if limit is None:
                continue
            # A paused run is cheaper than the full run that is asked about.
            full = both.runs - self.paused.runs
            cost = (getattr(both, name) - getattr(self.paused, name)) / full if full else 0.0
            # Half a run of slack: costs of runs differ in the last digits.
            if getattr(spent, name) + cost * (in_flight + 1) > limit * share + 0.5 * cost:
                return False
        return True

    def plain(self) -> dict[str, Any]:
        """Return the content of ``ledger.json``."""
        return {
            "budget": asdict(self.budget),
            "explored_trials": self.explored_trials,
            "explore": asdict(self.explore),
            "confirm": asdict(self.confirm),
            "total": asdict(self.explore.plus(self.confirm).plus(replace(self.trunks, runs=0))),
            **({"paused": asdict(self.paused)} if self.paused.runs else {}),
            **({"trunks": asdict(self.trunks)} if self.trunks.runs else {}),
        }


def ledger_of(budget: BudgetSpec, trials: Iterable[Trial], trunks: Account | None = None) -> Ledger:
    """Return the cost of a study's trials: a pure function of their outcomes.

    Args:
        budget: Limits of the study.
        trials: Trials with their outcomes.
        trunks: Cost of the steps that runs share; None = they share none.
    """
    accounts: dict[Purpose, Account] = {"explore": Account(), "confirm": Account()}
    explored, paused = 0, Account()
    for trial in trials:
        explored += trial.spec.phase not in ("confirm", "grid")
        for seed, outcome in trial.outcomes.items():
            confirming = trial.spec.phase == "confirm" or seed not in trial.spec.seeds
            purpose: Purpose = "confirm" if confirming else "explore"
            paid = Account(
                runs=1,
                failed=int(outcome.status not in ("done", "paused")),
                tokens=outcome.tokens,
                flops=outcome.flops,
                device_hours=outcome.device_seconds / _SECONDS_PER_HOUR,
            )
            accounts[purpose] = accounts[purpose].plus(paid)
            if outcome.status == "paused":
                paused = paused.plus(paid)
    return Ledger(
        budget=budget,
        explored_trials=explored,
        paused=paused,
        trunks=trunks or Account(),
        **accounts,
    )


def affordable_trials(
    budget: BudgetSpec, run_price: Mapping[str, float], runs_per_trial: int
) -> int | None:
    """Return the number of trials within the exploring share; None if no limit applies.

    Args:
        budget: Limits of the study.
        run_price: ``tokens``, ``flops``, ``gpu_hours`` of one run, as far as they are known.
        runs_per_trial: Number of seeds while exploring.
    """
    limits = [float(budget.trials)] if budget.trials is not None else []
    for name in ("tokens", "flops", "gpu_hours"):
        limit, price = getattr(budget, name), run_price.get(name, 0.0)
        if limit is not None and price > 0.0:
            limits.append(limit * (1.0 - budget.confirm_share) / (price * runs_per_trial))
    return math.floor(min(limits) + 1e-9) if limits else None


def affordable_runs(budget: BudgetSpec, run_price: Mapping[str, float]) -> int | None:
    """Return the number of runs within ``tokens``, ``flops`` and ``gpu_hours``; None if none is set."""
    limits = [
        limit / price
        for name in ("tokens", "flops", "gpu_hours")
        if (limit := getattr(budget, name)) is not None and (price := run_price.get(name, 0.0)) > 0
    ]
    return math.floor(min(limits) + 1e-9) if limits else None
