"""Execution of one run, from prepared sources to a scored record.

    finished = execute(load(config))
    finished.result["score"]

A run has seven steps, in this order. The first two are done by :func:`open_work`, the others by
:meth:`Work.run`:

1. Plan (``plan.py``): compute tokens, epochs, steps and disk space; refuse a run that breaks a rule, whose
   sources are not prepared, or whose checkpoints do not fit on the disk. Nothing is written yet.
2. Open the record (``record/``): make the run folder with ``manifest.json``, or find that of an earlier try.
3. Train (``training/``): write ``metrics.jsonl``, ``events.jsonl`` and ``checkpoints/<step>/``.
4. Audit (``mixture/audit.py``): compare the windows that were read with the mixture that was asked for; write
   ``audit.json``. A gap over the tolerance fails the run before it is scored.
5. Export (``training/export.py``): convert every checkpoint that has no scores to ``exports/<step>/``.
6. Score (``evaluation/``): evaluate the exports; add to ``scores.jsonl`` and ``details/<step>/``.
7. Record the result: write ``result.json`` (score, metrics, cost), or ``paused.json`` if the run pauses.

Every step starts from what the steps before wrote to disk. The same call returns a finished run unchanged,
resumes a killed run from its newest complete checkpoint, and tries a failed run again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.config.schema import RunConfig
from ablations.errors import ConfigError, HeldError, HostLostError, Problem, TrainingError
from ablations.evaluation.scoring_process import ScoringJob
from ablations.evaluation.scoring_shares import score_on_devices, scoring_processes
from ablations.files import free_bytes
from ablations.mixture.audit import Audit, audit, audit_rows
from ablations.pausing import leg_of, pause, run_cost
from ablations.plan import Plan, make_plan
from ablations.precision import hold_to_precision, with_precision
from ablations.prepared import require_prepared, tokenizer_folder
from ablations.progress import Quiet, Watcher
from ablations.quantities import byte_size
from ablations.record.failures import preempted, recorded
from ablations.record.legs import LegCost, earlier_legs
from ablations.record.paused import forget_pause
from ablations.record.run_record import RunRecord
from ablations.rescoring import last_scores, score_again, unscored_steps
from ablations.run_identity import identity, items_of, trial_name, yaml_of
from ablations.training.checkpoints import checkpoint_steps, require_whole
from ablations.training.train_job import TrainJob, TrainOutcome, WarmStart
from ablations.training.trainers import trainer_of
from ablations.trunks import share_trunk, trunk_fields

__all__ = [
    "Finished",
    "Work",
    "execute",
    "identity",
    "make_job",
    "open_work",
    "require_startable",
    "trial_name",
]


@dataclass(frozen=True)
class Finished:
    """Finished run."""

    record: RunRecord
    result: Mapping[str, Any]
    """Content of ``result.json``."""
    skipped: bool = False
    """True if the run was done already, so that this call did nothing."""


def execute(
    config: RunConfig, *, in_process: bool = False, progress: Watcher | None = None
) -> Finished:
    """Do the steps of a run that are not done yet.

    A finished run without a score is scored again, if its checkpoints still exist; see ``rescoring.py``.

    Args:
        config: The run.
        in_process: Train and score in this process, which must end with the run, because both change global
            state. By default each of them has a worker process.
        progress: Receives phases and steps.

    Raises:
        UserError: the run cannot be done as configured; nothing was lost.
        WorkError: training or scoring failed; the record contains the step and the reason.
    """
    work = open_work(config, in_process=in_process, progress=progress)
    record = work.record
    done = record.result()
    if done is not None and done["status"] == "done":
        if not (steps := unscored_steps(record, config.evaluation, done)):
            # Nobody else holds a finished run again: a process killed at its very end left it open.
            record.close()
            return Finished(record, done, skipped=True)
        with record.hold():
            return Finished(record, score_again(work, steps, done))
    with record.hold():
        try:
            return Finished(record, work.run())
        except HeldError:
            raise  # a worker of an earlier call is still training it
        except HostLostError as error:  # no failure of the run, which goes on from its checkpoint
            record.event("host_lost", step=error.step, reason=error.reason)
            raise
        except (Exception, SystemExit) as error:
            if preempted(error):
                raise  # the cluster queues the job again, and the run continues there
            reported = recorded(record.path, error, work.fail)
            if reported is error:
                raise
            raise reported from error


def open_work(
    config: RunConfig, *, in_process: bool = False, progress: Watcher | None = None
) -> Work:
    """Plan and check a run, open its record, and return the steps that are left; do none of them.

    Raises:
        UserError: the run cannot be done as configured.
    """
    asked, config = config, with_precision(config)
    plan = make_plan(config)
    require_startable(config, plan)
    plain = identity(config)
    trial = trial_name(config, plain)
    runs_dir = Path(config.runs_dir)
    named: dict[str, Any] = {"study": config.study, "trial": trial, "seed": config.seed}
    record = RunRecord.at(runs_dir, **named)
    _require_disk_space(config, plan, record)
    hold_to_precision(asked)
    record = RunRecord.create(
        runs_dir,
        **named,
        config=plain,
        items=items_of(config),
        config_yaml=yaml_of(plain),
        labels=config.labels,
    )
    return Work(config, plan, record, in_process, progress or Quiet())


def require_startable(config: RunConfig, plan: Plan) -> None:
    """Refuse a run that could not begin now; write nothing.

    Raises:
        UserError: its plan breaks a rule, its sources are not prepared, or its checkpoint is not there.
    """
    plan.require()
    require_prepared(config, plan.prepared)
    _warm_start(config, plan)


def make_job(config: RunConfig, plan: Plan, directory: Path) -> TrainJob:
    """Return the training job of a run, with checkpoints under ``directory``."""
    schedule = plan.schedule
    return TrainJob(
        directory=directory.absolute(),  # a warm worker may have another working directory
        model=config.model,
        training=config.training,
        execution=config.execution,
        schedule=schedule,
        learning_rate=plan.learning_rate,
        stores={name: config.store_folder(name).absolute() for name in schedule.sources},
        slices=plan.slices,
        seed=config.seed,
        checkpoint_steps=plan.checkpoint_steps,
        warm_start=_warm_start(config, plan),
        stop_step=plan.stop_step,
        method=replace(config.method, vision=plan.vision.vision if plan.vision else None),
        most_pictures=plan.vision.pictures if plan.vision else 0,
        start_model=_start_model(config),
        tokenizer=tokenizer_folder(config).absolute() if config.method.of_rows else None,
    )


def _start_model(config: RunConfig) -> str | None:
    """Return the model that methods on rows begin from: a folder by its whole path, or a name on the hub."""
    named = config.warm_start.checkpoint
    if not config.method.of_rows or named is None:
        return None
    return str(Path(named).absolute()) if Path(named).is_dir() else named


def _warm_start(config: RunConfig, plan: Plan) -> WarmStart | None:
    """Return the checkpoint that a run starts from, if any.

    Raises:
        CheckpointError: it does not exist, or is incomplete.
    """
    start = config.warm_start
    if start.checkpoint is None or config.method.of_rows:
        return None
    folder = Path(start.checkpoint)
    require_whole(folder, "warm_start.checkpoint")
    return WarmStart(
        checkpoint=folder.absolute(),
        load_optimizer=start.load_optimizer,
        first_step=plan.first_step,
    )


def _require_disk_space(config: RunConfig, plan: Plan, record: RunRecord) -> None:
    """Refuse a run whose remaining checkpoints and exports do not fit on the disk.

    Raises:
        ConfigError: the disk has too little free space.
    """
    if (record.result() or {}).get("status") == "done":
        return
    written = {*checkpoint_steps(record.checkpoints_dir), *(row["step"] for row in record.scores())}
    left = len({s for s in plan.checkpoint_steps if s <= (plan.stop_step or s)} - written)
    needed = plan.disk_bytes * left / len(plan.checkpoint_steps)
    free = free_bytes(record.path)
    if needed > free:
        raise ConfigError(
            Problem(
                "runs_dir",
                f"too little disk for {left} checkpoints",
                found=f"{byte_size(free)} free at {config.runs_dir}",
                allowed=f"about {byte_size(needed)}",
                do="set runs_dir to a larger disk, or lower training.checkpoints",
            )
        )


class Work:
    """Steps of one run after its record is opened: train, audit, export and score, record the result."""

    def __init__(
        self, config: RunConfig, plan: Plan, record: RunRecord, in_process: bool, progress: Watcher
    ) -> None:
        self.config, self.plan, self.record = config, plan, record
        self.in_process, self.progress = in_process, progress
        self.job = make_job(config, plan, record.path)
        self.began = time.time()
        self.outcome: TrainOutcome | None = None
        self.scoring_cpu_seconds = 0.0
        self.audited: Audit | None = None
        self.earlier = LegCost()

    def run(self) -> dict[str, Any]:
        """Train, audit, export and score; return the result, which is on disk by then.

        The result of an earlier failed try is removed first; its reason is still in the events.
        """
        (self.record.path / "result.json").unlink(missing_ok=True)
        self.earlier = earlier_legs(self.record)
        self.train()
        self.check()
        self.score()
        if self.outcome and self.outcome.last_step < self.plan.schedule.total_steps:
            return pause(self)
        result = self.result()
        self.record.write_result(result)
        forget_pause(self.record)
        self.record.set_status("done")
        return result

    def train(self) -> None:
        """Train to the end of the schedule or to the pause, in worker processes or in this one.

        Raises:
            TrainingError: the training diverged, or a worker died.
        """
        self.record.set_status("training")
        share_trunk(self)
        self.progress.phase("training", self.job.schedule.total_steps)
        self.outcome = trainer_of(self.config.method).train(
            self.job, self.progress.step, in_process=self.in_process
        )
        if self.outcome.status == "failed":
            raise TrainingError(self.outcome.reason or "failed", step=self.outcome.last_step)

    def check(self) -> None:
        """Audit the training: compare the windows that were read with the mixture that was asked for.

        Raises:
            AuditError: a gap is over the tolerance.
        """
        assert self.outcome is not None
        if self.outcome.windows is None:
            return
        schedule, method = self.plan.schedule, self.config.method
        width = 1 if method.of_rows else schedule.sequence_length + 1
        windows = {
            name: round(tokens / width) for name, tokens in self.plan.available_tokens.items()
        }
        counts = np.array(self.outcome.windows, dtype=np.int64)
        limits = {**windows, **(self.plan.slices or {})}
        tolerance = self.config.mixture.audit_tolerance
        if method.of_rows:
            tokens = np.array(self.outcome.supervised, dtype=np.int64)
            self.audited = audit_rows(
                schedule,
                counts,
                tokens,
                limits,
                unit=method.unit,
                longest=self.config.training.sequence_length,
            )
        else:
            self.audited = audit(schedule, counts, limits, tolerance=tolerance)
        self.record.write_audit(self.audited.to_json())
        self.audited.require()

    def score(self) -> None:
        """Export and score every checkpoint that has no scores yet."""
        assert self.outcome is not None
        self.record.set_status("scoring")
        scored = {row["step"] for row in self.record.scores()}
        steps = set(self.job.checkpoint_steps) - scored
        self.score_steps(sorted(step for step in steps if step <= self.outcome.last_step))

    def score_steps(self, steps: Sequence[int]) -> None:
        """Export and score the checkpoints of ``steps``, in worker processes or in this one."""
        guards = {
            name: self.config.guard_folder(name).absolute()
            for name in self.config.evaluation.guards
        }
        scoring = ScoringJob(
            directory=self.record.path.absolute(),
            steps=tuple(steps),
            tokens_per_step=self.plan.schedule.tokens_per_step,
            evaluation=self.config.evaluation,
            tokenizer=tokenizer_folder(self.config).absolute(),
            data_dir=Path(self.config.data_dir).absolute(),
            stores={**self.job.stores, **guards},
            items=self.record.manifest.items,
            keep=self.config.training.keep_checkpoints,
            reference=self.job.start_model if self.config.method.kind == "dpo" else None,
            last_step=self.job.checkpoint_steps[-1],
            threads=self.config.execution.threads,
            device=self.config.execution.device,
            dtype=self.config.evaluation.dtype,
        )
        if steps:
            self.progress.phase("scoring", len(steps) * max(1, scoring.task_count))
        workers = scoring_processes(self.config.execution)
        self.scoring_cpu_seconds = score_on_devices(
            scoring, workers, in_process=self.in_process, advance=self.progress.advance
        )

    def result(self) -> dict[str, Any]:
        """Return the content of ``result.json`` for a run that is done."""
        scores = last_scores(self.record, self.config.evaluation)
        return self._result("done", None, {**scores, "scored": len(self.record.scores())})

    def fail(self, reason: str) -> None:
        """Record that the run failed, in this order: as an event, in the result, in the manifest."""
        step = self.outcome.last_step if self.outcome else None
        self.record.event("failed", step=step, reason=reason, **vars(leg_of(self)))
        rule = self.config.evaluation.score
        scores: dict[str, Any] = {
            "score": None,
            "direction": rule.direction if rule else None,
            "metrics": {},
        }
        self.record.write_result(self._result("failed", reason, scores))
        self.record.set_status("failed", reason)

    def _result(self, status: str, reason: str | None, scores: Mapping[str, Any]) -> dict[str, Any]:
        step = self.outcome.last_step if self.outcome else 0
        return {
            "status": status,
            "reason": reason,
            "step": step,
            "tokens": step * self.plan.schedule.tokens_per_step,
            "cost": run_cost(self, step),
            **trunk_fields(self),
            **scores,
            "audit_ok": self.audited.ok if self.audited is not None else None,
        }
