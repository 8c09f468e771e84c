"""Epoch caps and simulated epoching: what a budget allows a mixture to read."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ablations.errors import Problem
from ablations.mixture.repeats import RepeatLaw
from ablations.mixture.schedule import Schedule

__all__ = ["beyond_cap", "broken_caps", "simulated_slices"]

_CAP_TOLERANCE = 1e-6
"""Relative; a weight that was chosen to meet the cap exactly may miss it by rounding."""


def beyond_cap(epochs: float, epoch_cap: float) -> bool:
    """Return whether a source is read more often than the cap allows."""
    return epochs > epoch_cap * (1.0 + _CAP_TOLERANCE)


def broken_caps(
    schedule: Schedule,
    available_tokens: Mapping[str, float],
    *,
    epoch_cap: float,
    full_tokens: float | None = None,
    exempt: Collection[str] = (),
    law: RepeatLaw | None = None,
) -> list[Problem]:
    """Return a problem for every source that would be read more often than ``epoch_cap``.

    Args:
        schedule: What would be read.
        available_tokens: Tokens per source: of the prepared store, or of the whole source when
            ``full_tokens`` is given.
        epoch_cap: Most epochs over the whole schedule.
        full_tokens: Judge the schedule stretched to this budget (the full run's) instead.
        exempt: Sources that may be read more often (``mixture.epoch_cap_exempt``).
        law: Law of repeats that ``epoch_cap`` comes from; None = it is ``mixture.epoch_cap``.
    """
    stretch = 1.0 if full_tokens is None else full_tokens / schedule.total_tokens
    problems = []
    for name, read in schedule.tokens().items():
        available = available_tokens.get(name, 0.0)
        epochs = stretch * read / available if available > 0 else math.inf * (read > 0)
        if read and name not in exempt and beyond_cap(epochs, epoch_cap):
            most = epoch_cap * available / (stretch * schedule.total_tokens)
            problems.append(
                Problem(
                    f"source.{name}",
                    "read more often than mixture.epoch_cap"
                    if law is None
                    else f"its last epoch is worth less than {law.least_value:g} of a fresh one "
                    f"by the law of repeats of {law.study!r}",
                    found=f"{epochs:.2f} epochs ({stretch * read:.4g} of {available:.4g} tokens)",
                    allowed=f"{epoch_cap:g} epochs, a mean weight of at most {most:.4f}",
                    do="lower its weight, shorten the schedule, "
                    + ("raise mixture.epoch_cap, " if law is None else "")
                    + f"or say why it may be: +mixture.epoch_cap_exempt.{name}=REASON",
                )
            )
    return problems


def simulated_slices(
    schedule: Schedule,
    windows: Mapping[str, int],
    full_available_tokens: Mapping[str, float],
    full_tokens: float,
) -> dict[str, int]:
    """Source → windows to read so that the proxy's epochs equal the full run's.

    The full run reads ``tokens / available`` epochs of a source; a proxy of a thousandth of its budget
    sees the same repetition on a thousandth of the source. A source is never cut below one window,
    nor above what is prepared.
    """
    scale = schedule.total_tokens / full_tokens
    slices = {}
    for name, prepared in windows.items():
        wanted = full_available_tokens[name] * scale / schedule.sequence_length
        slices[name] = max(1, min(prepared, round(wanted)))
    return slices
