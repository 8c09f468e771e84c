"""Result of a process: its answer, or the way it ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

__all__ = ["Result", "how_ended"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Outcome of a child: the value that its function returned, or one of the other two."""

    value: Any = None
    error: BaseException | None = None
    """Exception that its function raised."""
    died: str | None = None
    """Description of an end without an answer; see :func:`how_ended`."""


def how_ended(code: int | None) -> str:
    """Return the end of a process as a predicate, for example ``was killed by SIGKILL``.

    Args:
        code: Its return code, negative for a signal; None if its server ended first.
    """
    if code is None:
        return "lost the server that it was forked from"
    if code >= 0:
        return f"ended with exit code {code}"
    named = {number.value for number in signal.Signals}  # of real-time signals, only two
    return f"was killed by {signal.Signals(-code).name if -code in named else f'signal {-code}'}"
