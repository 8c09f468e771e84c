"""Canonical JSON: equal texts for equal values, to compare the configs of many runs."""

from __future__ import annotations

from typing import Any

__all__ = ["canonical"]


def canonical(value: Any) -> str:
    """Return the value as JSON with sorted keys; what JSON has no kind for as its ``str``.

    Thousands of configs are compared: orjson takes a fifth of the time of Python's own writer.
    """
    import orjson

    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=str, option=options).decode()
