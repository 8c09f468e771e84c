"""Several runs of one shape, trained as one batched model before each goes on alone.

    run 0 ─▶ plan, record ─┐                              ┌─▶ run 0: audit, export, score, result
    run 1 ─▶ plan, record ─┼─▶ one training for all of them ─┼─▶ run 1: …
    run 2 ─▶ plan, record ─┘                              └─▶ run 2: …

A swarm of models of 1M to 60M parameters leaves a large GPU idle when they are trained one by one
(ablations/training/together). This only trains ahead: what each run is, its record, its checkpoints
and its losses are those that it has alone, and :func:`ablations.run.execute` finds the training done.
Whatever cannot be trained together (another shape, a warm start, several ranks, another
step to resume from, too little memory) is left to the run itself, which trains alone as ever.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from ablations.errors import AblationError, ConfigError, TrainingError
from ablations.run import TRAINED_TOGETHER, Work, open_work
from ablations.schema import RunConfig
from ablations.training.nanotron.trainer import prepare
from ablations.training.together.trainer import together_problems, train_together_here

__all__ = ["train_ahead"]

Read = Callable[[], RunConfig]
"""Composes and checks the config of one run; may raise."""


def train_ahead(reads: Sequence[Read]) -> list[str | None]:
    """Train what can be trained together, in this process, which must be a disposable one.

    Returns:
        For each run the reason that it failed for, by now in its record; None = it goes on alone.
    """
    reasons: list[str | None] = [None] * len(reads)
    with ExitStack() as held:
        opened = {i: work for i, read in enumerate(reads) if (work := _opened(read, held))}
        for group in _groups(list(opened.values())):
            _train(group)
        for i, work in opened.items():
            outcome = work.outcome
            if outcome is not None and outcome.status == "failed":
                error = TrainingError(outcome.reason or "failed", step=outcome.last_step)
                reasons[i] = str(error)
                work.fail(str(error))
    return reasons


def _opened(read: Read, held: ExitStack) -> Work | None:
    """A run with its record held; None where there is nothing to train, or what ails it is its own to say."""
    try:
        work = open_work(read(), here=True)
        if (work.record.result() or {}).get("status") != "done":
            held.enter_context(work.record.hold())
            return work
    except Exception as error:
        print(f"not trained together: {error}", flush=True)
    return None


def _groups(works: Sequence[Work]) -> list[list[Work]]:
    """Runs of one shape that begin at one step: of runs at other steps, some would repeat some."""
    groups: dict[int, list[list[Work]]] = {}
    for work in works:
        job = work.job
        if together_problems([job]):
            continue
        with suppress(AblationError):  # a checkpoint that the run itself will refuse
            step = prepare(job).step
            if step < job.schedule.total_steps:
                _place(work, groups.setdefault(step, []))
    return [group for at_one_step in groups.values() for group in at_one_step]


def _place(work: Work, groups: list[list[Work]]) -> None:
    """Put a run to those of its shape."""
    for group in groups:
        if not together_problems([group[0].job, work.job]):
            group.append(work)
            return
    groups.append([work])


def _train(works: Sequence[Work]) -> None:
    """Train a group; where it does not fit in memory, its halves."""
    if len(works) < 2:
        return
    for work in works:
        work.record.set_status("training")
    print(f"training together: {', '.join(work.record.name for work in works)}", flush=True)
    began = time.time()
    if not _trained(works):
        return
    share = (time.time() - began) / len(works)
    for work in works:
        assert work.outcome is not None
        work.record.event(
            TRAINED_TOGETHER,
            step=work.outcome.last_step,
            runs=len(works),
            wall_seconds=share,
            cpu_seconds=work.outcome.cpu_seconds,
            device=work.outcome.device,
        )


def _trained(works: Sequence[Work]) -> bool:
    """Whether the group was trained as one; if not, nothing of it is lost, and its log says why."""
    import torch

    try:
        outcomes = train_together_here([work.job for work in works])
    except Exception as error:
        traceback.print_exc()
        too_large = isinstance(error, ConfigError | torch.OutOfMemoryError)
    else:
        for work, outcome in zip(works, outcomes, strict=True):
            work.outcome = outcome
        return True
    if too_large:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
        half = len(works) // 2
        _train(works[:half])
        _train(works[half:])
    return False
