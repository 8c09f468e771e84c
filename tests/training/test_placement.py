"""Number of threads that a rank uses on a CPU."""

from __future__ import annotations

import os

import pytest

from ablations.training.placement import cpu_threads, threads_of_a_rank
from ablations.training.specs import ExecutionSpec


@pytest.mark.parametrize(
    ("exported", "cores", "ranks", "threads"),
    [
        ("1", 16, 1, 1),
        ("3", 16, 2, 3),
        ("12", 2, 1, 12),
        ("4,2", 16, 1, 4),
        (None, 2, 1, 2),
        (None, 64, 1, 8),
        (None, 8, 4, 2),
        (None, 2, 4, 1),
        ("", 2, 1, 2),
        ("0", 2, 1, 2),
        ("many", 2, 1, 2),
    ],
)
def test_the_environment_decides_and_else_the_cores(
    monkeypatch: pytest.MonkeyPatch, exported: str | None, cores: int, ranks: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    if exported is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", exported)
    assert cpu_threads(ExecutionSpec(dp=ranks)) == threads


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    assert [threads_of_a_rank(ranks) for ranks in (1, 3, 6, 24)] == [8, 4, 2, 1]
