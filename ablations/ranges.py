"""Ranges for config fields. A value outside ends with a message before any work starts.

    seed: Seed = 0
    threads: Annotated[int, Interval(ge=1, le=1024)] | None = None

The upper ends are far above any real use; they end slips of the keyboard that would take the machine.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval

__all__ = ["Interval", "Limit", "Ranks", "Seed", "Share", "Threads", "Workers"]

Seed = Annotated[int, Interval(ge=0, lt=2**63)]
"""Seeds that numpy, torch and the samplers all accept."""

Share = Annotated[float, Interval(ge=0, le=1)]
"""A part of a whole."""

Ranks = Annotated[int, Interval(ge=1, le=65_536)]
"""Processes in one dimension of a training."""

Threads = Annotated[int, Interval(ge=1, le=1024)]
"""Threads of one process."""

Workers = Annotated[int, Interval(ge=1, le=1024)]
"""Processes, or slots, of one machine."""

Limit = Annotated[int, Interval(ge=1, lt=2**63)]
"""The most of something countable."""
