"""p-values as text: never 0, because no finite study can show that."""

from __future__ import annotations

import math

__all__ = ["SMALLEST", "p_equals", "p_value"]

SMALLEST = 1e-4
"""Smallest p-value that is printed as a number: draws and tails of t are not known any better."""


def p_value(p: float | None, digits: int = 2) -> str:
    """Return a p-value for a table, ``< 0.0001`` if it is smaller; a dash if it is not known.

    >>> p_value(0.0123), p_value(0.0), p_value(None)
    ('0.012', '< 0.0001', '–')
    """
    if p is None or not math.isfinite(p):
        return "–"
    return f"< {SMALLEST:.4f}" if p < SMALLEST else f"{p:.{digits}g}"


def p_equals(p: float, digits: int = 2) -> str:
    """Return a p-value for a sentence.

    >>> p_equals(0.5), p_equals(3e-9)
    ('p = 0.5', 'p < 0.0001')
    """
    text = p_value(p, digits)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
