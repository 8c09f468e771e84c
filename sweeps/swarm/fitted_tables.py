"""Compare the tables of a swarm with the checksums in the fit that was written beside them."""

from __future__ import annotations

import os
from pathlib import Path

from ablations.errors import DataError
from ablations.files import file_sha256
from ablations.record.stored import stored_object

__all__ = ["FIT_FILE", "changed"]

FIT_FILE = "fit.json"
"""File of a fit, beside the tables that it was made from; it contains their checksums."""


def changed(table: Path) -> list[str]:
    """Return a note if a table is not the one that was written with the fit beside it."""
    record = table.parent / FIT_FILE
    if not os.path.lexists(record):
        return []
    try:
        written = (stored_object(record).get("tables") or {}).get(table.name)
    except DataError:
        return [f"{table.name}: cannot be compared with what was written: {record} is damaged"]
    if written in (None, file_sha256(table)):
        return []
    return [f"{table.name}: changed since it was written with {FIT_FILE}; read as it is"]
