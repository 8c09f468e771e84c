"""Text of others inside Markdown: a name shows as it is, and is no table, link or HTML."""

from __future__ import annotations

import re

__all__ = ["escaped", "in_code", "one_line"]

_MARKUP = re.compile(r"[\\|*\[\]~<>]|(?<!\w)_|_(?!\w)")
"""Signs that Markdown takes for a table, emphasis, a link, a strike or HTML; an underscore inside a word
is none. Backticks stay: our own sentences put commands into them, and no name may hold one."""

_BREAKS = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


def escaped(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, on one line."""
    html = {"<": "&lt;", ">": "&gt;"}
    return one_line(_MARKUP.sub(lambda sign: html.get(sign[0], "\\" + sign[0]), text))


def in_code(text: str) -> str:
    """Return ``text`` as a code span, on one line, whatever backticks it holds."""
    line = one_line(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def one_line(text: str) -> str:
    """Return ``text`` with a space in the place of its line breaks."""
    return _BREAKS.sub(" ", text)
