"""Progress of a study: a live table in a terminal, elsewhere one line for each finished run."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from ablations.quantities import clock
from sweeps.study.specs import loss_sign
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import Trial, measure

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LiveView", "PlainView", "SilentView", "study_table", "view_for"]

_ROWS = 24
"""Largest number of trials shown: those in flight, then the best of the others."""

_QUIET_SECONDS = 60.0
"""Longest time without a line in a log."""


class SilentView:
    """Display that prints nothing."""

    def show(self, study: StudyState, in_flight: dict[Run, float], total: int | None) -> None:
        """Print nothing."""


class PlainView:
    """Display for logs and pipes: the state at once, a line for each run that ended, one in each minute."""

    def __init__(self) -> None:
        self._printed: set[Run] | None = None
        self._last = 0.0

    def show(self, study: StudyState, in_flight: dict[Run, float], total: int | None) -> None:
        """Print the runs that ended since the last call, or the state if nothing was printed lately."""
        ended = {Run(t.number, seed): t for t in study.trials for seed in t.outcomes}
        if self._printed is None:
            self._printed = set(ended)
            self._print(_began(study, len(ended), in_flight, total))
        for run, trial in ended.items():
            if run not in self._printed:
                self._printed.add(run)
                line = _line(study, trial, run.seed, len(in_flight), total)
                left = _seconds_left(study, in_flight, total)
                self._print(line + (f", about {clock(left)} left to explore" if left else ""))
        if in_flight and time.monotonic() - self._last >= _QUIET_SECONDS:
            self._print(_title(study, in_flight, total))

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        print(line, flush=True)


class LiveView:
    """Display for terminals: a table that is redrawn."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(refresh_per_second=2, transient=False)
        self._began = False

    def show(self, study: StudyState, in_flight: dict[Run, float], total: int | None) -> None:
        """Redraw the table."""
        if not self._began:
            self._live.start()
            self._began = True
        self._live.update(study_table(study, in_flight, total), refresh=not in_flight)
        if not in_flight:
            self._live.stop()
            self._began = False


def view_for(progress: bool) -> SilentView | PlainView | LiveView:
    """Return the display that fits the output; ``progress`` false = a silent one."""
    if not progress:
        return SilentView()
    return LiveView() if sys.stdout.isatty() else PlainView()


def study_table(study: StudyState, in_flight: dict[Run, float], total: int | None) -> Table:
    """Return a table of the trials in flight and the best others: state, objectives, time left."""
    from rich.table import Table

    objectives = study.spec.objectives
    table = Table(title=_title(study, in_flight, total), title_justify="left")
    for heading in ("trial", "phase", "what", "state", "seeds"):
        table.add_column(heading)
    for name in (*objectives, "time left"):
        table.add_column(name, justify="right")
    expected = _mean_seconds(study)
    for trial in _shown(study, in_flight):
        seeds = ",".join(str(seed) for seed in sorted(trial.outcomes))
        values = [_number(trial.value(objective)) for objective in objectives.values()]
        starts = [since for run, since in in_flight.items() if run.number == trial.number]
        left = _left(starts, expected)
        state = "running" if starts else ("waiting" if trial.state == "running" else trial.state)
        table.add_row(
            trial.spec.trial,
            trial.spec.phase,
            _description(trial),
            state,
            seeds,
            *values,
            left,
            style="red" if state == "failed" else None,
        )
    return table


def _shown(study: StudyState, in_flight: dict[Run, float]) -> list[Trial]:
    numbers = {run.number for run in in_flight}
    running = [trial for trial in study.trials if trial.number in numbers]
    first = next(iter(study.spec.objectives.values()))
    sign = loss_sign(first.direction)
    rest = [trial for trial in study.trials if trial.number not in numbers]

    def order(trial: Trial) -> tuple[bool, float, int]:
        value = trial.value(first)
        return (value is None, 0.0 if value is None else sign * value, trial.number)

    return [*running, *sorted(rest, key=order)][:_ROWS]


def _title(study: StudyState, in_flight: dict[Run, float], total: int | None) -> str:
    ended = sum(trial.state != "running" for trial in study.trials)
    failed = sum(trial.state == "failed" for trial in study.trials)
    parts = [
        f"study {study.study}",
        f"{ended}{_of(study, total)} trials",
        f"{len(in_flight)} runs in flight",
    ]
    if failed:
        parts.append(f"{failed} failed")
    if left := _seconds_left(study, in_flight, total):
        parts.append(f"about {clock(left)} left to explore")
    return ", ".join(parts)


def _began(study: StudyState, ended: int, in_flight: dict[Run, float], total: int | None) -> str:
    """Return the first line of a log: what is planned, what is done, what runs."""
    planned = f"{total} trials planned" if total is not None else "trials as the budget allows"
    before = f"{ended} runs have ended already" if ended else "none has ended"
    known = "" if ended else "; the time left is known when the first run has ended"
    return f"study {study.study}: {planned}, {before}, {len(in_flight)} runs in flight{known}"


def _seconds_left(
    study: StudyState, in_flight: dict[Run, float], total: int | None
) -> float | None:
    """Estimate the seconds until exploring ends, from the mean run; None if that is not known."""
    expected = _mean_seconds(study)
    if total is None or not expected or not in_flight:
        return None
    ended = sum(trial.state != "running" for trial in study.trials)
    return max(0, total - ended) * expected / len(in_flight)


def _line(study: StudyState, trial: Trial, seed: int, in_flight: int, total: int | None) -> str:
    outcome = trial.outcomes[seed]
    end = outcome.status if outcome.reason is None else f"{outcome.status}: {outcome.reason}"
    ended = sum(t.state != "running" for t in study.trials)
    runs = sum(len(t.outcomes) for t in study.trials)
    name, objective = next(iter(study.spec.objectives.items()))
    value = measure(outcome, objective.metrics)
    return (
        f"[trial {ended}{_of(study, total)}, run {runs}] "
        f"{trial.spec.trial}-{seed} {trial.spec.phase} {_description(trial)}: "
        f"{end}, {name} {_number(value)}, {outcome.device_seconds:.0f} s, {in_flight} in flight"
    )


def _of(study: StudyState, total: int | None) -> str:
    """Return `` of <total>``; confirmation may add the surrogate's pick to the budget's trials."""
    return f" of {max(total, len(study.trials))}" if total is not None else ""


def _description(trial: Trial) -> str:
    parts = [trial.spec.name] if trial.spec.name else []
    for path, value in trial.spec.point.items():
        if isinstance(value, dict):
            shares = " ".join(f"{name} {weight:.3f}" for name, weight in value.items())
            parts.append(shares)
        else:
            parts.append(f"{path}={_plain(value)}")
    return " ".join(parts) or " ".join(trial.spec.overrides)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _mean_seconds(study: StudyState) -> float | None:
    taken = [o.device_seconds for trial in study.trials[-64:] for o in trial.replicates]
    return sum(taken) / len(taken) if taken else None


def _left(starts: list[float], expected: float | None) -> str:
    if not starts or expected is None:
        return ""
    return clock(max(0.0, expected - (time.time() - max(starts))))
