"""Direction of a score or metric in the analysis: the one place that turns it into a sign.

A score's direction is a word (``maximize``, ``minimize``); a metric states whether higher is better.
:func:`sweeps.study.specs.loss_sign` is the home of the first; this module adds what frames need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps.study.specs import Direction, loss_sign

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gain_sign", "loss_sign", "lower_is_better", "minimised"]


def lower_is_better(direction: Direction | None) -> bool:
    """Return whether a lower value is better; None counts as ``minimize``, as in `loss_sign`."""
    return loss_sign(direction) > 0.0


def gain_sign(higher_is_better: bool) -> float:
    """Return the factor that turns a value so that more is better."""
    return -loss_sign("maximize" if higher_is_better else "minimize")


def minimised(frame: pd.DataFrame) -> bool:
    """Return whether a lower score is better in a frame with a column ``direction``."""
    return bool((frame["direction"] == "minimize").any())
