"""Compare results with numbers that an earlier version wrote to tests/golden/numbers.

A constant, a sign or an order that changes inside a computation changes one of these numbers. After a change
that is meant, write them again with ``PIN_NUMBERS=1 pytest …`` and read the difference.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden" / "numbers"

_DIGITS = 9
"""Digits that are written."""

_VARYING = {"created", "versions", "git_commit", "host", "user", "by", "path", "sha256"}
"""Keys whose values differ between two machines or days."""


def require_pinned(
    name: str, found: Any, *, relative: float = 1e-5, absolute: float = 1e-7
) -> None:
    """Require the numbers and texts of ``found`` to equal the file ``name``.

    Raises:
        AssertionError: something differs; the message names the first place.
    """
    file = FOLDER / f"{name}.json"
    plain = _plain(found)
    if os.environ.get("PIN_NUMBERS"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(_text(plain))
    before = json.loads(file.read_text())
    _compare(before, json.loads(json.dumps(plain)), "", relative, absolute)


def _text(plain: Any) -> str:
    """Return JSON with each innermost list on one line."""
    text = json.dumps(plain, indent=1, sort_keys=True)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", _on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{' '.join(line.strip() for line in found[1].splitlines())}]"


def _compare(before: Any, now: Any, place: str, relative: float, absolute: float) -> None:
    if isinstance(before, float | int) and isinstance(now, float | int):
        near = math.isclose(before, now, rel_tol=relative, abs_tol=absolute)
        assert near, f"{place}: {before} before, {now} now"
    elif isinstance(before, dict):
        assert isinstance(now, dict), place
        assert sorted(before) == sorted(now), place
        for key, value in before.items():
            _compare(value, now[key], f"{place}/{key}", relative, absolute)
    elif isinstance(before, list):
        assert isinstance(now, list), place
        assert len(before) == len(now), place
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            _compare(one, other, f"{place}/{number}", relative, absolute)
    else:
        assert before == now, f"{place}: {before!r} before, {now!r} now"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if str(k) not in _VARYING}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else repr(value)
    return value
