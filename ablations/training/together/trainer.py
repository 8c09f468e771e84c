"""train_together: the runs of a swarm, a group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablations.errors import AblationError, ConfigError, Problem
from ablations.training.checkpoints import read_state
from ablations.training.nanotron.trainer import failure, outcome_of, prepare
from ablations.training.start import Start
from ablations.training.trainer import TrainJob, TrainOutcome
from ablations.training.worker import Task, run_in_worker

__all__ = ["train_together"]

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
    if problems := _problems(jobs):
        raise ConfigError(problems)
    starts = _common_start(jobs, [prepare(job) for job in jobs])
    if starts[0].step >= jobs[0].schedule.total_steps:
        return [outcome_of(job) for job in jobs]
    task = Task(
        module="ablations.training.together.group",
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


def _problems(jobs: Sequence[TrainJob]) -> list[Problem]:
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
    if step == 0 or any(state is None for state in states):
        return [Start(kind="start", step=0) for _ in jobs]
    return [
        replace(start, step=step, checkpoint=folder, windows=state.windows if state else None)
        for start, folder, state in zip(starts, folders, states, strict=True)
    ]
