"""Errors that the platform raises on purpose, and their exit codes.

    AblationError
    ├── UserError              exit code 2: the request is wrong; nothing was lost
    │   ├── ConfigError        a config or an override, all its problems at once
    │   ├── DataError          a source or a token store: missing, truncated, foreign
    │   │   └── DamagedError   a file that is not what was written
    │   ├── CheckpointError    a checkpoint: missing, incomplete, of another model
    │   └── HeldError          another process holds the run or the study
    └── WorkError              exit code 1: the request was sound, the work failed
        ├── TrainingError      a training that ended early, with the step
        │   ├── DivergedError  NaN, infinity, or a loss that diverged
        │   └── HostLostError  exit code 75: a host of the training is gone; the same command goes on
        ├── EvaluationError    a task that could not be scored
        └── AuditError         the tokens read differ from the mixture

Each :class:`Problem` states what is wrong, what was found, what is allowed and what to do::

    >>> print(Problem("mixture.weights.wikki", "unknown source", allowed="chat, wiki",
    ...               do="did you mean 'wiki'?"))
    mixture.weights.wikki: unknown source; allowed: chat, wiki; did you mean 'wiki'?
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "AblationError",
    "AuditError",
    "CheckpointError",
    "ConfigError",
    "DamagedError",
    "DataError",
    "DivergedError",
    "EvaluationError",
    "HeldError",
    "HostLostError",
    "Problem",
    "TrainingError",
    "UserError",
    "WorkError",
    "nearest",
    "refused_by_system",
    "unknown_name",
]


@dataclass(frozen=True)
class Problem:
    """One fault, with what the reader needs to correct it."""

    where: str
    """The config key, file or argument at fault."""
    what: str
    """The fault."""
    found: object = None
    """The value found; omitted from the message when None."""
    allowed: object = None
    """Accepted values; omitted when None."""
    do: str | None = None
    """The next thing to try; omitted when None."""

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}"]
        if self.found is not None:
            parts.append(f"found: {self.found}")
        if self.allowed is not None:
            parts.append(f"allowed: {self.allowed}")
        if self.do is not None:
            parts.append(self.do)
        return "; ".join(parts)


class AblationError(Exception):
    """Root of the tree: catch it to catch everything the platform raises on purpose."""

    exit_code = 1


class UserError(AblationError):
    """Error for a request that cannot be carried out. It holds every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[UserError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class ConfigError(UserError, ValueError):
    """A config or an override that breaks a rule.

    It is a ValueError so that pydantic gathers it with the other problems of a config.
    """


class DataError(UserError):
    """A source or token store that is missing, truncated, swapped or foreign."""


class DamagedError(DataError, ValueError):
    """A file that is there and is not what was written: no JSON, or another checksum.

    It is a ValueError, so that a caller that can go on without the file catches it as one.
    """


class CheckpointError(UserError):
    """A checkpoint that is missing, incomplete, or belongs to another model or topology."""


class HeldError(UserError):
    """Another live process holds what this one asked for."""


class WorkError(AblationError):
    """The request was sound and the work failed."""


class TrainingError(WorkError):
    """A training that ended before its last step."""

    def __init__(self, reason: str, *, step: int | None = None) -> None:
        self.reason, self.step = reason, step
        super().__init__(reason if step is None else f"step {step}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_training_error, (type(self), self.reason, self.step)


class DivergedError(TrainingError):
    """NaN, infinity, or a loss beyond the divergence rule."""


class HostLostError(TrainingError):
    """A training on several hosts that lost one of them, or could not meet it.

    It is no failure of the run: nothing is recorded as one, and the same command goes on from the newest
    checkpoint. The exit code is sysexits' EX_TEMPFAIL.
    """

    exit_code = 75


class EvaluationError(WorkError):
    """A task that could not be scored."""


class AuditError(WorkError):
    """The tokens really read differ from the mixture asked for by more than the tolerance."""


def _rebuild_training_error(
    kind: type[TrainingError], reason: str, step: int | None
) -> TrainingError:
    return kind(reason, step=step)


_REMEDIES = {
    errno.EACCES: "change its permissions, or name another folder",
    errno.EPERM: "change its permissions, or name another folder",
    errno.EROFS: "name a folder that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "mend the links, which lead in a circle",
    errno.ENOTDIR: "name a folder: a file stands in its place",
    errno.EEXIST: "name a folder: a file stands in its place",
    errno.EISDIR: "name a file: a folder stands in its place",
    errno.ENOENT: "check the path",
    errno.ENOSPC: "free some space, and give the same command again",
    errno.EDQUOT: "free some space, and give the same command again",
    errno.EFBIG: "raise the limit on file sizes, and give the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), and give the same command again",
}
_WORK_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.EIO)
"""Errors that no other command line would have avoided."""


def refused_by_system(error: OSError) -> AblationError:
    """Return the error for a refusal of the operating system: path, reason and remedy.

    It is a :class:`UserError` if another path or permission would help, else a :class:`WorkError`.
    """
    paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
    where = " → ".join(paths) or "the system"
    problem = Problem(
        where,
        error.strerror or str(error) or type(error).__name__,
        do=_REMEDIES.get(error.errno or 0),
    )
    if error.errno in _REMEDIES and error.errno not in _WORK_FAILED:
        return UserError(problem)
    return WorkError(str(problem))


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Return the known names closest to ``name``, best first; empty when none is close."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.55)


def unknown_name(where: str, what: str, name: str, known: Iterable[str]) -> Problem:
    """Return the problem of a ``name`` that is not among the ``known`` ones, with the nearest of them."""
    names = sorted(known)
    close = nearest(name, names)
    shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
    do = f"did you mean {' or '.join(map(repr, close))}?" if close else None
    return Problem(where, f"unknown {what} {name!r}", allowed=shown or "none is known", do=do)
