"""Text that every later step can encode: cleaned once, where a row becomes a document or an item."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["clean", "clean_values", "decoded"]

_LONE = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs. JSON may escape one alone, a cut emoji; UTF-8 has no bytes for it."""


def clean(text: str) -> tuple[str, int]:
    """Return ``text`` with U+FFFD for each lone surrogate, and how many there were.

    >>> clean("a\\ud83db")
    ('a�b', 1)
    """
    if text.isascii():
        return text, 0
    return _LONE.subn("\ufffd", text)


def decoded(content: bytes, encoding: str = "utf-8") -> tuple[str, int]:
    """Return ``content`` as text, with U+FFFD for what is not of its encoding, and how many bytes that was.

    >>> decoded(b"caf\xe9 au lait")
    ('caf� au lait', 1)

    Raises:
        LookupError: an unknown encoding.
    """
    try:
        return content.decode(encoding), 0
    except UnicodeDecodeError:
        kept = content.decode(encoding, errors="ignore").encode(encoding)
        return content.decode(encoding, errors="replace"), max(1, len(content) - len(kept))


def clean_values(value: Any) -> Any:
    """Return a JSON value whose texts, keys included, are clean."""
    if isinstance(value, str):
        return clean(value)[0]
    if isinstance(value, dict):
        return {clean_values(key): clean_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean_values(inner) for inner in value]
    return value
