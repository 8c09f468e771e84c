"""Find the secrets of the environment in configs and messages.

A config may read any variable: ``${oc.env:HF_TOKEN}``. Records, folders and messages keep the values of a
config, so the value of a variable whose name suggests a secret must reach none of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.errors import Problem

__all__ = ["secret_problems", "without_secrets"]

_WORDS = {"TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "KEY", "PAT"}
_LENGTH = 8
"""Shorter values would be found in innocent words."""


def secret_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each text of plain values that holds a secret; the message does not."""
    secrets = _secrets()
    for where, text in _texts(config, "") if secrets else ():
        for value, name in secrets.items():
            if value in text:
                yield Problem(
                    where,
                    "holds a secret, which records would keep",
                    found=f"the value of the environment variable {name}",
                    do="take it out: libraries read it from the environment themselves",
                )


def without_secrets(text: str) -> str:
    """Return a message with the name of the variable in the place of each secret."""
    for value, name in _secrets().items():
        text = text.replace(value, f"(the value of {name})")
    return text


def _secrets() -> dict[str, str]:
    """Return value → variable, the longest value first: one may stand in another."""
    found = {
        value: name
        for name, value in os.environ.items()
        if len(value) >= _LENGTH
        and _WORDS & set(name.upper().split("_"))
        and not value.startswith("/")  # where a secret is kept, not the secret
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, where)
