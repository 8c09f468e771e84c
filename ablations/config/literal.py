"""Text of others inside a config file that Hydra reads.

Hydra resolves ``${…}`` wherever it stands: ``${oc.env:TOKEN}`` in a file that somebody else wrote
would put a variable of the reader's environment into a repository's name. A backslash before it makes
it text::

    >>> print(literal("data/${oc.env:HOME}/wiki"))
    data/\\${oc.env:HOME}/wiki
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["literal"]

_OPENS = re.compile(r"(\\*)\$\{")


def literal(value: Any) -> Any:
    """Return plain values whose text OmegaConf resolves to what ``value`` holds.

    Backslashes count only directly before ``${``, where two stand for one (OmegaConf's grammar).
    """
    if isinstance(value, str):
        return _OPENS.sub(r"\1\1\\${", value)
    if isinstance(value, Mapping):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [literal(item) for item in value]
    return value
