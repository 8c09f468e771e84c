"""Text of a table that another program wrote, before its columns are parsed."""

from __future__ import annotations

from pathlib import Path

from ablations.errors import DataError, Problem

__all__ = ["table_text"]


def table_text(path: Path) -> str:
    """Return a table's text without a byte order mark.

    Raises:
        DataError: no such file, or not text in UTF-8.
    """
    if not path.is_file():
        raise DataError(Problem(str(path), "no such table"))
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            Problem(
                str(path),
                "not text in UTF-8",
                found=f"byte {error.object[error.start]:#04x} at {error.start}",
                do="save the table as CSV in UTF-8",
            )
        ) from None
