"""Checks of values that are written into ``#SBATCH`` lines, where nothing can be quoted.

A line break in one of them would be an option more. So partitions, times and job names are held to what
Slurm reads, and any other value to printable characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ablations.errors import Problem

__all__ = ["job_word", "line_problems", "partition_problems", "time_problems"]

_PARTITION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(,[A-Za-z0-9_][A-Za-z0-9._-]*)*")

_TIME = re.compile(r"[0-9]+(:[0-9]{2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{2}){0,2}")

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


def partition_problems(where: str, value: str) -> Iterator[Problem]:
    """Yield what is wrong with the names of partitions, a comma between two."""
    if not _PARTITION.fullmatch(value):
        yield Problem(
            where,
            "not a partition",
            found=repr(value),
            allowed="letters, digits, '.', '_' and '-', a comma between two partitions",
        )


def time_problems(where: str, value: str) -> Iterator[Problem]:
    """Yield what is wrong with a time limit."""
    if not _TIME.fullmatch(value):
        yield Problem(
            where,
            "not a time limit",
            found=repr(value),
            allowed="MM, MM:SS, HH:MM:SS or D-HH[:MM[:SS]], as Slurm reads them",
        )


def line_problems(where: str, values: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with further options, key → value, of one line each."""
    for key, value in values.items():
        if not _KEY.fullmatch(key) or not str(value).isprintable():
            yield Problem(
                f"{where}.{key}",
                "not an option of one line",
                found=repr(value),
                allowed="a key of letters, digits and '-', and a value of printable characters",
            )


def job_word(name: str) -> str:
    """Return ``name`` as a part of a job's name: whatever Slurm might read otherwise becomes ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
