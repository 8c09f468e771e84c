"""From the checkpoints of a run to rows of scores, in a worker process.

    checkpoints/<step> ─▶ exports/<step> ─▶ details/<step>/*.parquet ─▶ a row of scores.jsonl

A row is appended when everything behind it is on disk: a killed scoring is taken up at the checkpoint
that it was at. Checkpoints that need not stay are removed after they are scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ablations.errors import CheckpointError, EvaluationError
from ablations.evaluation.specs import EvaluationSpec
from ablations.files import write_text
from ablations.record.lease import only_process
from ablations.record.run_record import RunRecord
from ablations.training.specs import Device, KeepCheckpoints
from ablations.training.training_process import Task, run_in_worker

__all__ = ["ScoringJob", "resolved_device", "score_here", "score_run"]

Advance = Callable[[str], None]
"""Told of every task that is begun."""


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """Which checkpoints to score, on what; picklable."""

    directory: Path
    """The run folder."""
    steps: tuple[int, ...]
    """Checkpoints to score, ascending."""
    last_step: int
    """The run's last checkpoint, whose export stays."""
    tokens_per_step: int
    evaluation: EvaluationSpec
    tokenizer: Path
    """Folder of the tokenizer, copied into every export."""
    data_dir: Path
    """Holds ``benchmarks/``."""
    stores: Mapping[str, Path]
    """Source → token store, for the held-out tasks."""
    items: Mapping[str, str] = field(default_factory=dict)
    """What the items were when the run began."""
    keep: KeepCheckpoints
    """Which scored checkpoints and exports stay."""
    threads: int | None = None
    """torch threads; None = this process's cores."""
    device: Device = "auto"

    @property
    def task_count(self) -> int:
        """Tasks a checkpoint is scored on."""
        return len(self.evaluation.all_tasks(tuple(self.stores)))


def score_run(job: ScoringJob, *, in_process: bool, advance: Advance) -> float:
    """Score what is asked for; CPU seconds of it.

    Raises:
        EvaluationError: not one task of a checkpoint could be scored, or the worker died.
        UserError: a checkpoint or a token store is missing.
    """
    if not job.steps:
        return 0.0
    if in_process:
        return score_here(job, advance)
    said = _Said(job.directory / "scoring.log", advance)
    task = Task(
        module="ablations.evaluation.scoring_worker",
        function="score_in_worker",
        argument=job,
        log=job.directory / "worker.log",
    )
    result = run_in_worker(task, said.read)
    if isinstance(result.error, ImportError):
        raise EvaluationError(
            f"scoring cannot be imported here: {result.error}; install what requirements.lock lists"
        ) from result.error
    if result.error is not None:
        raise result.error
    if result.died is not None:
        raise EvaluationError(
            f"scoring ended early: {result.died}; see worker.log in the run folder"
        )
    return float(result.value)


def score_in_worker(job: ScoringJob) -> float:
    """:func:`score_here`, telling of its tasks through a file."""
    log = job.directory / "scoring.log"
    write_text(log, "")
    with log.open("a", buffering=1) as stream:
        return score_here(job, lambda text: print(text, file=stream))


def score_here(job: ScoringJob, advance: Advance) -> float:
    """Export and score in this process, checkpoint by checkpoint; CPU seconds.

    A checkpoint that is damaged has no scores, and the reason stands in its row; the last one, which
    the run is judged by, is refused.
    """
    import torch

    from ablations.evaluation.scoring import ScoringPlace, score_checkpoints, without_scores

    began = time.process_time()
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    record = RunRecord(job.directory)
    with only_process(job.directory, "scoring.lock", "another process is scoring this run"):
        exports, lost = _exports(job, record)
        for step, reason in lost.items():
            scores = without_scores(step, job.evaluation, job.stores, reason)
            record.add_scores(scores.row(step * job.tokens_per_step))
        place = ScoringPlace(
            data_dir=job.data_dir,
            stores=job.stores,
            items=job.items,
            device=resolved_device(job.device),
        )

        def watch(step: int, task: str, _number: int, _count: int) -> None:
            advance(f"step {step}: {task}")

        for scores in score_checkpoints(
            exports, job.evaluation, details=job.directory / "details", place=place, watch=watch
        ):
            record.add_scores(scores.row(scores.step * job.tokens_per_step))
            _retire(job, record)
    return time.process_time() - began


def _exports(job: ScoringJob, record: RunRecord) -> tuple[dict[int, Path], dict[int, str]]:
    """Exports of the checkpoints that have no scores yet, and why some cannot be exported.

    Raises:
        CheckpointError: it is the last one.
    """
    from ablations.training.export import export_checkpoint, tidy_exports

    tidy_exports(record.exports_dir)
    # A process that was killed may have scored some of them since the job was made. One without the
    # score that was asked for is scored again: its package or its items may be there by now.
    asked = job.evaluation.score is not None
    scored = {row["step"] for row in record.scores() if not asked or row["score"] is not None}
    exports: dict[int, Path] = {}
    lost: dict[int, str] = {}
    for step in job.steps:
        if step in scored:
            continue
        checkpoint = record.checkpoints_dir / str(step)
        try:
            exports[step] = export_checkpoint(checkpoint, record.export(step), job.tokenizer)
        except CheckpointError as error:
            if step == job.last_step:
                raise
            lost[step] = str(error)
    return exports, lost


def resolved_device(asked: Device) -> str:
    """The device to score on: ``auto`` takes a CUDA device where torch sees one."""
    import torch

    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def _retire(job: ScoringJob, record: RunRecord) -> None:
    """Remove checkpoints and exports that the retention rule gives up; never one not scored."""
    from ablations.training.checkpoints import prune
    from ablations.training.export import remove_export

    scored = {row["step"] for row in record.scores()}
    prune(record.checkpoints_dir, keep=job.keep, scored=scored, final_step=job.last_step)
    if job.keep == "all":
        return
    for step in scored - {job.last_step}:
        remove_export(record.export(step))


class _Said:
    """Passes the tasks that a worker writes down on to the caller."""

    def __init__(self, log: Path, advance: Advance) -> None:
        self._log, self._advance, self._seen = log, advance, 0
        log.unlink(missing_ok=True)

    def read(self) -> None:
        """Tell of every new line."""
        if not self._log.exists():
            return
        lines = self._log.read_text().splitlines()
        for line in lines[self._seen :]:
            self._advance(line)
        self._seen = len(lines)
