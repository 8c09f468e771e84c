"""One run, from prepared sources to a scored record.

    plan ─▶ record ─▶ train ─▶ audit ─▶ export and score every checkpoint ─▶ result.json

Each arrow leaves an artifact that the next one reads, so the same call skips what is done and goes on
with what is not. A finished run is returned as it is; a killed one resumes from its newest whole
checkpoint; a failed one is tried again::

    finished = execute(load(config))
    finished.result["score"]
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablations.config.schema import RunConfig, dump
from ablations.data.catalogue import ADDED_FILTERS
from ablations.data.manifest import StoreManifest
from ablations.errors import ConfigError, HeldError, Problem, TrainingError
from ablations.evaluation.scoring_process import ScoringJob, score_run
from ablations.files import free_bytes
from ablations.mixture.audit import Audit, audit
from ablations.plan import Plan, make_plan
from ablations.prepared import require_prepared, tokenizer_folder
from ablations.progress import Quiet, Watcher
from ablations.record.failures import preempted, recorded
from ablations.record.lease import forget_dead
from ablations.record.run_record import HOLDER, RunRecord, fingerprint
from ablations.rescoring import last_scores, score_again, unscored_steps
from ablations.training.checkpoints import checkpoint_steps, require_whole
from ablations.training.train_job import TrainJob, TrainOutcome, WarmStart

__all__ = ["Finished", "Work", "execute", "identity", "make_job", "open_work", "trial_name"]


@dataclass(frozen=True)
class Finished:
    """A run that is done."""

    record: RunRecord
    result: Mapping[str, Any]
    """The content of ``result.json``."""
    skipped: bool = False
    """Whether it had been done before, and nothing was."""


def execute(
    config: RunConfig,
    *,
    here: bool = False,
    progress: Watcher | None = None,
    config_yaml: str | None = None,
) -> Finished:
    """Do what is left of a run.

    Args:
        config: The run.
        here: Train and score in this process, which must be disposable: both leave marks on global
            state. By default each happens in a worker process.
        progress: Told of phases and steps.
        config_yaml: The config as composed, for the record; by default made from ``config``.

    Raises:
        UserError: the run cannot be done as asked; nothing was lost.
        WorkError: training or scoring failed; the record holds where and why.
    """
    work = open_work(config, here=here, progress=progress, config_yaml=config_yaml)
    record = work.record
    done = record.result()
    if done is not None and done["status"] == "done":
        if not (steps := unscored_steps(record, config.evaluation, done)):
            # Nobody holds a finished run again, who would take a killed holder's lease away.
            forget_dead(record.path / "lock", record.path / HOLDER)
            return Finished(record, done, skipped=True)
        with record.hold():
            return Finished(record, score_again(work, steps, done))
    with record.hold():
        try:
            return Finished(record, work.run())
        except HeldError:
            raise  # a worker of an earlier life still trains it
        except (Exception, SystemExit) as error:
            if preempted(error):
                raise  # the cluster takes the job back and runs it again: the run goes on there
            reported = recorded(record.path, error, work.fail)
            if reported is error:
                raise
            raise reported from error


def open_work(
    config: RunConfig,
    *,
    here: bool = False,
    progress: Watcher | None = None,
    config_yaml: str | None = None,
) -> Work:
    """What :func:`execute` would do, checked and its record opened; nothing of it is done.

    Raises:
        UserError: the run cannot be done as asked.
    """
    plan = make_plan(config)
    plan.require()
    require_prepared(config, plan.prepared)
    _warm_start(config, plan)
    plain = identity(config)
    trial = trial_name(config, plain)
    runs_dir = Path(config.runs_dir)
    record = RunRecord.at(runs_dir, study=config.study, trial=trial, seed=config.seed)
    _require_room(config, plan, record)
    record = RunRecord.create(
        runs_dir,
        study=config.study,
        trial=trial,
        seed=config.seed,
        config=plain,
        items=items_of(config),
        config_yaml=config_yaml if config_yaml is not None else _yaml(plain),
        labels=config.labels,
    )
    return Work(config, plan, record, here, progress or Quiet())


def identity(config: RunConfig) -> dict[str, Any]:
    """What defines the result: the plain config, with the tokens that the prepared stores really hold."""
    plain = dump(config)
    for where in ("mirror", "batch_tokens"):  # where items come from and how they are batched
        plain["evaluation"].pop(where)
    _leave_out_unused(plain)
    plain["stores"] = {
        name: _store_identity(config.store_folder(name)) for name in config.build_schedule().sources
    }
    return plain


def _leave_out_unused(plain: dict[str, Any]) -> None:
    """Leave out fields that came after runs had been recorded, where they have no effect.

    A record of before stays that of the same run.
    """
    if not plain["mixture"]["epoch_cap_exempt"]:
        del plain["mixture"]["epoch_cap_exempt"]
    if not plain["schedule"]["lr"]["tail_steps"]:
        del plain["schedule"]["lr"]["tail_steps"]
    for source in plain["source"].values():
        for key in ADDED_FILTERS:
            if not source[key]:
                del source[key]


def items_of(config: RunConfig) -> dict[str, str]:
    """Item file → SHA-256 of what the run is scored on, held-out documents left out.

    Raises:
        DataError: an item file is not the one that was prepared.
    """
    from ablations.evaluation.items import ItemSources, item_digests

    evaluation = config.evaluation
    sources = ItemSources(
        benchmarks=Path(config.data_dir) / "benchmarks",
        mirror=Path(evaluation.mirror) if evaluation.mirror else None,
        prefer_hub=evaluation.origin == "hub",
    )
    return item_digests(evaluation.tasks.values(), sources)


def trial_name(config: RunConfig, plain: Mapping[str, Any]) -> str:
    """The trial's name, or eight digits of the fingerprint (the seed left out) where it has none."""
    if config.trial is not None:
        return config.trial
    return fingerprint({**plain, "seed": None})[:8]


def _store_identity(folder: Path) -> str:
    manifest = StoreManifest.read(folder)
    files = {file.name: file.sha256 for file in manifest.files}
    return fingerprint({"files": files, "heldout": manifest.heldout.sha256})[:16]


def _yaml(plain: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(plain), sort_keys=False)


def make_job(config: RunConfig, plan: Plan, directory: Path) -> TrainJob:
    """The training of a run."""
    schedule = plan.schedule
    return TrainJob(
        directory=directory.absolute(),  # a warm worker may have been started elsewhere
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
    )


def _warm_start(config: RunConfig, plan: Plan) -> WarmStart | None:
    """The checkpoint that a run begins from, if any.

    Raises:
        CheckpointError: it is not there, or not whole.
    """
    start = config.warm_start
    if start.checkpoint is None:
        return None
    folder = Path(start.checkpoint)
    require_whole(folder, "warm_start.checkpoint")
    return WarmStart(
        checkpoint=folder.absolute(),
        load_optimizer=start.load_optimizer,
        first_step=plan.first_step,
    )


def _require_room(config: RunConfig, plan: Plan, record: RunRecord) -> None:
    """Refuse a run whose checkpoints the disk cannot hold, before anything is trained.

    Raises:
        ConfigError: there is less room than the checkpoints and exports still to be written take.
    """
    if (record.result() or {}).get("status") == "done":
        return
    written = {*checkpoint_steps(record.checkpoints_dir), *(row["step"] for row in record.scores())}
    left = sum(step not in written for step in plan.checkpoint_steps)
    needed = plan.disk_bytes * left / len(plan.checkpoint_steps)
    free = free_bytes(record.path)
    if needed > free:
        raise ConfigError(
            Problem(
                "runs_dir",
                f"too little disk for {left} checkpoints",
                found=f"{free / 1e9:,.1f} GB free at {config.runs_dir}",
                allowed=f"about {needed / 1e9:,.1f} GB",
                do="set runs_dir to a larger disk, or lower training.checkpoints",
            )
        )


class Work:
    """The steps of one run, in order."""

    def __init__(
        self, config: RunConfig, plan: Plan, record: RunRecord, here: bool, progress: Watcher
    ) -> None:
        self.config, self.plan, self.record = config, plan, record
        self.here, self.progress = here, progress
        self.job = make_job(config, plan, record.path)
        self.began = time.time()
        self.outcome: TrainOutcome | None = None
        self.scoring_cpu_seconds = 0.0
        self.audited: Audit | None = None

    def run(self) -> dict[str, Any]:
        """Train, audit, score; the result, which is on disk when this returns."""
        # The result of a failed try: its reason stays in the events, and the run is under way again.
        (self.record.path / "result.json").unlink(missing_ok=True)
        self.train()
        self.check()
        self.score()
        result = self.result()
        self.record.write_result(result)
        self.record.set_status("done")
        return result

    def train(self) -> None:
        """Train to the end of the schedule, in a worker process unless told otherwise."""
        from ablations.training.nanotron.nanotron_trainer import NanotronTrainer

        self.record.set_status("training")
        self.progress.phase("training", self.job.schedule.total_steps)
        trainer = NanotronTrainer()
        train = trainer.train_here if self.here else trainer.train
        self.outcome = train(self.job, self.progress.step)
        if self.outcome.status == "failed":
            raise TrainingError(self.outcome.reason or "failed", step=self.outcome.last_step)

    def check(self) -> None:
        """Compare what was read with what was asked; a gap over the tolerance fails the run."""
        assert self.outcome is not None
        if self.outcome.windows is None:
            return
        schedule = self.plan.schedule
        windows = {
            name: round(tokens / (schedule.sequence_length + 1))
            for name, tokens in self.plan.available_tokens.items()
        }
        counts = np.array(self.outcome.windows, dtype=np.int64)
        limits = {**windows, **(self.plan.slices or {})}
        tolerance = self.config.mixture.audit_tolerance
        self.audited = audit(schedule, counts, limits, tolerance=tolerance)
        self.record.write_audit(self.audited.to_json())
        self.audited.require()

    def score(self) -> None:
        """Export and score every checkpoint that has no scores yet."""
        assert self.outcome is not None
        self.record.set_status("scoring")
        scored = {row["step"] for row in self.record.scores()}
        self.score_steps([step for step in self.job.checkpoint_steps if step not in scored])

    def score_steps(self, steps: Sequence[int]) -> None:
        """Export and score the checkpoints of ``steps``."""
        scoring = ScoringJob(
            directory=self.record.path.absolute(),
            steps=tuple(steps),
            tokens_per_step=self.plan.schedule.tokens_per_step,
            evaluation=self.config.evaluation,
            tokenizer=tokenizer_folder(self.config).absolute(),
            data_dir=Path(self.config.data_dir).absolute(),
            stores=self.job.stores,
            items=self.record.manifest.items,
            keep=self.config.training.keep_checkpoints,
            last_step=self.job.checkpoint_steps[-1],
            threads=self.config.execution.threads,
            device=self.config.execution.device,
        )
        if steps:
            self.progress.phase("scoring", len(steps) * max(1, scoring.task_count))
        self.scoring_cpu_seconds = score_run(scoring, here=self.here, advance=self.progress.advance)

    def result(self) -> dict[str, Any]:
        """The content of ``result.json`` of a run that is done."""
        return {
            **self._common("done", None),
            **last_scores(self.record, self.config.evaluation),
            "scored": len(self.record.scores()),
            "audit_ok": self.audited.ok if self.audited is not None else None,
        }

    def fail(self, reason: str) -> None:
        """Record that the run failed: as an event, in the result, then in the manifest."""
        step = self.outcome.last_step if self.outcome else None
        self.record.event("failed", step=step, reason=reason)
        self.record.write_result(self.failure(reason))
        self.record.set_status("failed", reason)

    def failure(self, reason: str) -> dict[str, Any]:
        """The content of ``result.json`` of a run that failed."""
        rule = self.config.evaluation.score
        return {
            **self._common("failed", reason),
            "score": None,
            "direction": rule.direction if rule else None,
            "metrics": {},
            "audit_ok": self.audited.ok if self.audited is not None else None,
        }

    def _common(self, status: str, reason: str | None) -> dict[str, Any]:
        step = self.outcome.last_step if self.outcome else 0
        return {
            "status": status,
            "reason": reason,
            "step": step,
            "tokens": step * self.plan.schedule.tokens_per_step,
            "cost": self._cost(step),
        }

    def _cost(self, step: int) -> dict[str, Any]:
        """Return what the run took: seconds since it was last begun, FLOPs of the whole training."""
        schedule = self.plan.schedule
        tokens = (step - self.plan.first_step) * schedule.tokens_per_step
        flops = self.config.model.flops_per_token(schedule.sequence_length) * tokens
        return {
            "train_cpu_seconds": self.outcome.cpu_seconds if self.outcome else 0.0,
            "eval_cpu_seconds": self.scoring_cpu_seconds,
            "wall_seconds": time.time() - self.began,
            "flops": float(flops),
            "device": self.outcome.device if self.outcome else None,
        }
