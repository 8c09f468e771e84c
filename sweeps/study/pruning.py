"""Median rule: end runs whose training loss falls behind, if ``search.strategy.pruner`` is set.

A run is ended if its training loss, averaged over a twentieth of the run, is above the median of the
finished runs at the same step. The rule applies after a third of the steps, and needs five finished
runs. Losses are comparable only if all runs read the same text, so a search over mixtures refuses the
rule (its loss curves cross early as well: docs/search.md).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablations.files import write_sealed
from ablations.record.run_record import RunRecord

__all__ = ["Curve", "Pruner", "behind", "curve_of"]

Curve = Mapping[int, float]
"""Step → loss."""

_LEAST_RUNS = 5
_GRACE_SHARE = 1.0 / 3.0
_WINDOW_SHARE = 0.05


def behind(curve: Curve, finished: Sequence[Curve]) -> str | None:
    """Return the reason to end the run of ``curve``; None if it should go on."""
    if len(finished) < _LEAST_RUNS or not curve:
        return None
    step, last = max(curve), max(max(other) for other in finished)
    if step < _GRACE_SHARE * last or step >= last:
        return None
    window = max(1, round(_WINDOW_SHARE * last))
    mine = _mean_until(curve, step, window)
    theirs = [loss for other in finished if (loss := _mean_until(other, step, window)) is not None]
    if mine is None or len(theirs) < _LEAST_RUNS:
        return None
    middle = statistics.median(theirs)
    if mine <= middle:
        return None
    return f"pruned: loss {mine:.4f} at step {step} is above the median {middle:.4f}"


def curve_of(run: Path) -> Curve:
    """Return the losses that a run recorded so far."""
    rows = RunRecord(run).metrics()
    return {row["step"]: row["loss"] for row in rows if row.get("loss") is not None}


class Pruner:
    """Pruner of runs in flight; caches the loss curves of finished runs."""

    def __init__(self) -> None:
        self._finished: dict[Path, Curve] = {}

    def look(self, in_flight: Sequence[Path], finished: Sequence[Path]) -> dict[Path, str]:
        """Return run folder → reason of the runs to end; the reason is written to disk first."""
        for run in finished:
            if run not in self._finished:
                self._finished[run] = curve_of(run)
        whole = [curve for curve in self._finished.values() if curve]
        ended = {}
        for run in in_flight:
            reason = behind(curve_of(run), whole)
            if reason is not None and not (run / "pruned.json").exists():
                write_sealed(run / "pruned.json", {"reason": reason})
                ended[run] = reason
        return ended


def _mean_until(curve: Curve, step: int, window: int) -> float | None:
    losses = [curve[s] for s in range(step - window + 1, step + 1) if s in curve]
    return sum(losses) / len(losses) if losses else None
