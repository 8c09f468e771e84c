"""train_together: the runs of a swarm, a group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablations.errors import AblationError, ConfigError, Problem
from ablations.training.checkpoints import read_state, require_intact
from ablations.training.nanotron.trainer import failure, outcome_of, prepare
from ablations.training.start import Start
from ablations.training.trainer import TrainJob, TrainOutcome
from ablations.training.worker import Task, run_in_worker

__all__ = ["together_problems", "train_together", "train_together_here"]

_WORKER = "ablations.training.together.group"
_SHARED = ("model", "training", "execution", "learning_rate", "checkpoint_steps")


def train_together(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    """Train jobs of one shape as one batched model, in a worker process; their outcomes in order.

    Each run folder is what :class:`NanotronTrainer` would have left, checkpoints included, and the
    losses are those of each job alone but for rounding. A group goes on from the newest
    step that all of its jobs have a checkpoint of.

    Raises:
        ConfigError: the jobs differ in more than mixture, seed, sources and folder, begin from other
            runs' checkpoints, or ask for several ranks.
    """
    if not jobs:
        return []
    starts = _starts(jobs)
    if starts[0].step >= jobs[0].schedule.total_steps:
        return [outcome_of(job) for job in jobs]
    task = Task(
        module=_WORKER,
        function="train_group",
        argument=(list(jobs), starts),
        log=jobs[0].directory / "worker.log",
    )
    result = run_in_worker(task)
    if isinstance(result.error, AblationError):
        raise result.error
    if result.value is not None:
        outcomes: list[TrainOutcome] = result.value
        return outcomes
    reason = result.died or f"{result.error}; {task.log} has the traceback"
    return [failure(job, reason) for job in jobs]


def train_together_here(jobs: Sequence[TrainJob]) -> list[TrainOutcome]:
    """As :func:`train_together` in this process, which must be a disposable one; errors come as they are."""
    from ablations.training.together.group import train_group

    starts = _starts(jobs)
    if starts[0].step >= jobs[0].schedule.total_steps:
        return [outcome_of(job) for job in jobs]
    return train_group((jobs, starts))


def _starts(jobs: Sequence[TrainJob]) -> list[Start]:
    if problems := together_problems(jobs):
        raise ConfigError(problems)
    return _common_start(jobs, [prepare(job) for job in jobs])


def together_problems(jobs: Sequence[TrainJob]) -> list[Problem]:
    """Why jobs cannot be trained as one batched model; empty where they can."""
    problems = [
        Problem(name, "differs between jobs that are to be trained together")
        for name in _SHARED
        if any(getattr(job, name) != getattr(jobs[0], name) for job in jobs)
    ]
    if len({job.directory.resolve() for job in jobs}) < len(jobs):
        problems.append(Problem("directory", "two jobs share a run folder"))
    if any(job.warm_start for job in jobs):
        problems.append(Problem("warm_start", "not for proxies trained together"))
    if jobs[0].execution.ranks > 1:
        problems.append(
            Problem("execution", "several ranks", allowed="one rank for proxies trained together")
        )
    return problems


def _common_start(jobs: Sequence[TrainJob], starts: Sequence[Start]) -> list[Start]:
    """All from the newest step that all have; a fresh start where there is none."""
    step = min(start.step for start in starts)
    folders = [job.checkpoints_dir / str(step) for job in jobs]
    states = [read_state(folder) if folder.exists() else None for folder in folders]
    for folder in folders if step else ():
        if folder.exists():
            require_intact(folder, weights_only=False)
    if step == 0 or any(state is None for state in states):
        return [Start(kind="start", step=0) for _ in jobs]
    return [
        replace(start, step=step, checkpoint=folder, windows=state.windows if state else None)
        for start, folder, state in zip(starts, folders, states, strict=True)
    ]
