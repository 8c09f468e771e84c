"""Progress display of a run: bars on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from ablations.quantities import clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ablations.training.train_job import StepRow

__all__ = ["Quiet", "RunProgress", "Watcher"]

_LINE_SECONDS = 10.0
"""Seconds between two lines if the output is no terminal."""


class Watcher(Protocol):
    """Interface of a progress display that :func:`ablations.execute.execute` calls."""

    def phase(self, text: str, total: int | None = None) -> None:
        """Begin a phase of ``total`` units; None = unknown."""

    def step(self, row: StepRow) -> None:
        """Show that an optimiser step is done."""

    def advance(self, text: str) -> None:
        """Show that one unit of the phase is done."""


class Quiet:
    """Watcher that shows nothing."""

    def phase(self, text: str, total: int | None = None) -> None:
        """Show nothing."""

    def step(self, row: StepRow) -> None:
        """Show nothing."""

    def advance(self, text: str) -> None:
        """Show nothing."""


class RunProgress:
    """Watcher that shows loss, tokens per second and time left; a context manager.

    Args:
        shown: Show progress; False = nothing.
    """

    def __init__(self, *, shown: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._shown = shown
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._total: int | None = None
        self._first: tuple[int, float] | None = None
        self._last_line = 0.0

    def __enter__(self) -> RunProgress:
        if self._shown and self._console.is_terminal:
            self._bars = _bars(self._console)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def phase(self, text: str, total: int | None = None) -> None:
        """Complete the bar of the phase before, and begin a new one."""
        self._phase, self._total, self._first = text, total, None
        if self._bars is not None:
            if self._task is not None:
                self._bars.update(self._task, completed=self._bars.tasks[self._task].total or 1)
            self._task = self._bars.add_task(text, total=total, note="")
        elif self._shown:
            of = "" if total is None else f": {total:,}"
            self._console.print(f"{text}{of}", highlight=False)

    def step(self, row: StepRow) -> None:
        """Set the bar to the row's step."""
        note = f"loss {row.loss:.3f}  {row.tokens_per_second:,.0f} tokens/s"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=row.step, note=note)
        else:
            self._line(f"step {row.step:,}/{self._total or 0:,}  {note}{self._left(row.step)}")

    def _left(self, step: int) -> str:
        """Return the words for the time that the phase still takes; none at its first step."""
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        first, began = self._first
        if step <= first or self._total is None:
            return ""
        seconds = (now - began) / (step - first) * max(0, self._total - step)
        return f"  {clock(seconds)} left"

    def advance(self, text: str) -> None:
        """Advance the bar by one unit."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=1, note=text)
        else:
            self._line(f"{self._phase}: {text}")

    def _line(self, text: str) -> None:
        if self._shown and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(text, highlight=False)


def _bars(console: object) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,  # type: ignore[arg-type]
    )
