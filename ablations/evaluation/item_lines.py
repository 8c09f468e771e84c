"""Rows of item files, and the fixed random order of items from which a limit takes the first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.data.text import clean_values
from ablations.errors import DataError, Problem

__all__ = ["item_row", "json_lines", "rank"]


def rank(item: Mapping[str, Any]) -> str:
    """Return the sort key of a fixed random order of items; it depends on the id alone."""
    return hashlib.sha256(item["id"].encode()).hexdigest()


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON objects.

    Raises:
        DataError: a line is not a JSON object; the message names it.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            yield item_row(line, f"{path}:{number}")


def item_row(line: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object of a line, without lone surrogates.

    Raises:
        DataError: it is not a JSON object; the message begins with ``where``.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(Problem(where, "not JSON", found=str(error))) from None
    if not isinstance(row, dict):
        raise DataError(Problem(where, "not a JSON object"))
    # A lone surrogate: escaped, or in bytes that json accepts.
    return clean_values(row) if b"\\u" in line or b"\xed" in line else row
