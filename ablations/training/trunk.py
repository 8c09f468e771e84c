"""Trunk of a training: its first steps, which other trainings share, and their start from its checkpoint.

    trunk   ──────────────●                 one training of the first steps, with a checkpoint at its end
    arms                  ├──── decay: 70/30
                          └──── decay: 30/70

Two trainings share a trunk if everything that their first steps depend on is equal: model, optimiser,
batch, seed, learning rate, token stores, and the stages up to there. The key of the trunk is a digest of
that. A training that starts from the trunk continues as after a kill: its losses and weights are those of
the training alone, to the last bit on a CPU.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ablations.files import append_json_line, read_json, read_json_lines, replacing
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.record.identity import fingerprint
from ablations.training.checkpoints import (
    PARTIAL,
    checkpoint_steps,
    is_whole,
    read_state,
    require_intact,
    require_whole,
    write_state,
)
from ablations.training.run_logger import Logbook
from ablations.training.specs import PLACE_FIELDS
from ablations.training.started import start_digest
from ablations.training.train_job import TrainJob

__all__ = ["TRUNK_EVENT", "Trunk", "adopt", "first_steps", "trunk_of"]

TRUNK_EVENT = "trunk"
"""Kind of the event of a run that started from a trunk: step, the trunk's name, and no cost."""


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """Training that others continue from its end."""

    job: TrainJob
    key: str
    """Ten digits of the digest of all that the steps depend on, the seed left out."""

    @property
    def step(self) -> int:
        """Return the number of steps of the trunk."""
        return self.job.schedule.total_steps


def trunk_of(
    job: TrainJob, step: int, stores: Mapping[str, str], folder: Path | None = None
) -> Trunk:
    """Return the trunk of the first ``step`` steps of a job.

    Args:
        job: A training that starts no run's checkpoint; its learning rate is on the plateau up to ``step``.
        step: Last step of the trunk.
        stores: Source → digest of its token store.
        folder: Folder of the trunks; the trunk has ``<key>-<seed>`` in it. None = the folder of the job.
    """
    schedule = first_steps(job.schedule, step)
    rate = LearningRate(
        peak=job.learning_rate.peak,
        warmup_steps=job.learning_rate.warmup_steps,
        decay_steps=0,
        total_steps=step,
    )
    steps = (*(one for one in job.checkpoint_steps if one < step), step)
    slices = {n: w for n, w in (job.slices or {}).items() if n in schedule.sources}
    training = asdict(job.training)
    del training["checkpoints"]
    execution = {n: v for n, v in asdict(job.execution).items() if n not in PLACE_FIELDS}
    key = fingerprint(
        {
            "model": asdict(job.model),
            "training": training,
            "ranks": execution,
            "rate": [rate.peak, rate.warmup_steps],
            "stages": [[stage.steps, list(stage.mixture.items())] for stage in schedule.stages],
            "stores": {name: stores[name] for name in schedule.sources},
            "slices": slices,
            "checkpoints": steps,
            **_of_rows(job),
        }
    )[:10]
    directory = job.directory if folder is None else folder / f"{key}-{job.seed}"
    return Trunk(
        key=key,
        job=replace(
            job,
            directory=directory.absolute(),
            schedule=schedule,
            learning_rate=rate,
            stores={name: job.stores[name] for name in schedule.sources},
            slices=slices if job.slices is not None else None,
            checkpoint_steps=steps,
            stop_step=None,
        ),
    )


def _of_rows(job: TrainJob) -> dict[str, Any]:
    """Return what the first steps of a training on rows depend on besides."""
    if not job.method.of_rows:
        return {}
    assert job.start_model is not None
    assert job.tokenizer is not None
    return {
        "method": asdict(job.method),
        "start": start_digest(job.start_model),
        "tokenizer": read_json(job.tokenizer / "spec.json")["hash"],
        "pictures": job.most_pictures,
    }


def first_steps(schedule: Schedule, step: int) -> Schedule:
    """Return the schedule up to ``step``: the last stage is cut, later ones are left out."""
    stages, left = [], step
    for stage in schedule.stages:
        if left <= 0:
            break
        stages.append(replace(stage, steps=min(stage.steps, left)))
        left -= stage.steps
    return replace(schedule, stages=tuple(stages))


def adopt(job: TrainJob, trunk: Trunk) -> None:
    """Make the checkpoints and step rows of a finished trunk those of the job.

    A process that is killed here leaves a job that adopts again: the newest checkpoint is made last.
    Checkpoints share their files with the trunk's, where the file system can link.

    Raises:
        CheckpointError: the last checkpoint of the trunk is missing or damaged.
    """
    source = trunk.job.checkpoints_dir
    require_whole(source / str(trunk.step), "trunk")
    require_intact(source / str(trunk.step), "trunk", weights_only=False)
    job.checkpoints_dir.mkdir(parents=True, exist_ok=True)
    _copy_rows(job, trunk)
    for step in checkpoint_steps(source):
        wanted = step in trunk.job.checkpoint_steps
        if wanted and not is_whole(job.checkpoints_dir / str(step)):
            _copy_checkpoint(job, source / str(step))


def _copy_rows(job: TrainJob, trunk: Trunk) -> None:
    """Copy the rows of the trunk's steps and its spikes, and note the trunk; each once."""
    log, theirs = Logbook(job.directory), Logbook(trunk.job.directory)
    known = list(read_json_lines(log.events, needs="kind"))
    if any(event["kind"] == TRUNK_EVENT for event in known):
        return
    last = {row["step"]: row for row in read_json_lines(theirs.metrics, needs="step")}
    rows = [last[step] for step in sorted(last)]
    own = list(read_json_lines(log.metrics, needs="step"))
    if own[-len(rows) :] != rows:
        # The rows of a training that was killed before it took up the trunk stay: their time was spent.
        with replacing(log.metrics) as fresh:
            fresh.touch()
            for row in (*own, *rows):
                append_json_line(fresh, row, seal=True)
    had = {event["step"] for event in known if event["kind"] == "spike"}
    for event in read_json_lines(theirs.events, needs="kind"):
        if event["kind"] == "spike" and event["step"] not in had:
            log.event("spike", step=event["step"], reason=event.get("reason"))
    # The time of these steps is the trunk's: wall_seconds 0 makes them a leg that cost nothing.
    log.event(
        TRUNK_EVENT,
        step=trunk.step,
        trunk=trunk.job.directory.name,
        wall_seconds=0.0,
        step_seconds=sum(float(row.get("seconds") or 0.0) for row in rows),
    )


def _copy_checkpoint(job: TrainJob, source: Path) -> None:
    """Copy a checkpoint of the trunk, with the windows counted by the stages and sources of the job."""
    state = read_state(source)
    assert state is not None, "the platform wrote this checkpoint"
    partial = job.checkpoints_dir / PARTIAL / source.name
    shutil.rmtree(partial.parent, ignore_errors=True)
    shutil.copytree(
        source,
        partial,
        copy_function=_link,
        ignore=shutil.ignore_patterns("state.json", "checksums.json", "referenced_by"),
    )
    supervised = None if state.supervised is None else _in_full(job, state.supervised)
    write_state(
        partial, replace(state, windows=_in_full(job, state.windows), supervised=supervised)
    )
    partial.rename(job.checkpoints_dir / source.name)
    shutil.rmtree(partial.parent, ignore_errors=True)


def _in_full(job: TrainJob, counts: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Return counts [stage][source] of the trunk with zeros for what the trunk does not have.

    The sources of a schedule are ordered by their first appearance, so the trunk's come first.
    """
    stages, sources = len(job.schedule.stages), len(job.schedule.sources)
    rows = [(*row, *(0,) * (sources - len(row))) for row in counts]
    return (*rows, *((0,) * sources,) * (stages - len(rows)))


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
