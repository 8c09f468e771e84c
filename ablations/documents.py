"""Documents that commands print with ``json=true``: one JSON object on standard output, and nothing else.

    {"command": "ls", "version": 1, "ok": true, "exit_code": 0, "result": {…}, "error": null}

``result`` is a dataclass of the command's own; ``ablations/schemas/<command>.json`` describes the whole.
A version is raised when a field is removed or changes its meaning; a field that is added keeps it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from ablations.errors import AblationError, UserError

__all__ = ["Answer", "ErrorDocument", "ProblemDocument", "document_text", "only_document", "plain"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of a command for a program."""

    result: Any = None
    """A dataclass, as the command's schema describes it; None if there is none."""
    exit_code: int = 0
    error: AblationError | None = None
    """Problems found; a plan that breaks a rule has a result too."""


@dataclass(frozen=True, kw_only=True)
class ProblemDocument:
    """One fault of the request."""

    where: str
    """Config key, file with line and column, or argument at fault."""
    what: str
    """The fault."""
    found: str | None
    """Value found."""
    allowed: str | None
    """Accepted values."""
    do: str | None
    """Advice: the command or setting to try next."""


@dataclass(frozen=True, kw_only=True)
class ErrorDocument:
    """Reason for which a command did not do all that it was asked."""

    kind: Literal["request", "work"]
    """request = the command or a config is wrong (exit code 2); work = the work failed (exit code 1)."""
    message: str
    """The message for people."""
    problems: tuple[ProblemDocument, ...]
    """Each fault of a request; empty if the work failed."""


def document_text(
    command: str, version: int, answer: Answer, censor: Any = lambda text: text
) -> str:
    """Return the document of a command as JSON.

    Args:
        command: Its name.
        version: Version of its schema.
        answer: What it answers.
        censor: Takes what must not be shown out of a text.
    """
    error = None if answer.error is None else _error(answer.error)
    body = {
        "command": command,
        "version": version,
        "ok": answer.exit_code == 0,
        "exit_code": answer.exit_code,
        "result": plain(answer.result),
        "error": plain(error),
    }
    return str(censor(json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)))


def _error(error: AblationError) -> ErrorDocument:
    problems = error.problems if isinstance(error, UserError) else ()
    return ErrorDocument(
        kind="request" if isinstance(error, UserError) else "work",
        message=str(error),
        problems=tuple(
            ProblemDocument(
                where=problem.where,
                what=problem.what,
                found=None if problem.found is None else str(problem.found),
                allowed=None if problem.allowed is None else str(problem.allowed),
                do=problem.do,
            )
            for problem in problems
        ),
    )


def plain(value: Any) -> Any:
    """Return JSON values: dataclasses as objects, a number that is not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(inner) for inner in value]
    if hasattr(value, "item") and callable(value.item):  # a number of numpy's
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def only_document() -> Iterator[None]:
    """Send what this process and its children print meanwhile to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
