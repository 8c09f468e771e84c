"""Score the checkpoints of a run in a worker process.

    checkpoints/<step> ─▶ exports/<step> ─▶ details/<step>/*.parquet ─▶ a row of scores.jsonl

A checkpoint of a vision-language model is scored as it is. Its text part becomes the export, of those steps
whose exports stay.

A row is appended when everything behind it is on disk: after a kill, scoring goes on at the checkpoint
where it was. Checkpoints that need not stay are removed after they are scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import CheckpointError, EvaluationError
from ablations.evaluation.specs import EvaluationSpec
from ablations.files import LineTail, write_text
from ablations.processes.ended import Result
from ablations.record.lease import only_process
from ablations.record.run_record import RunRecord
from ablations.training.specs import Device, KeepCheckpoints
from ablations.training.training_process import Task, run_in_worker

if TYPE_CHECKING:
    from ablations.evaluation.scoring import ScoringPlace

__all__ = [
    "WORKER",
    "ScoringJob",
    "export_step",
    "left_to_score",
    "remove_scored",
    "resolved_device",
    "score_here",
    "score_run",
    "scoring_place",
    "value_of",
]

WORKER = "ablations.evaluation.scoring_worker"
"""Module that the warm server of a scoring imports."""

Advance = Callable[[str], None]
"""Called with a text for each task that begins."""


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """Checkpoints to score and the tasks to score them on; can be pickled."""

    directory: Path
    """Folder of the run."""
    steps: tuple[int, ...]
    """Checkpoints to score, ascending."""
    last_step: int
    """Last checkpoint of the run, whose export stays."""
    tokens_per_step: int
    evaluation: EvaluationSpec
    tokenizer: Path
    """Folder of the tokenizer, copied into every export."""
    data_dir: Path
    """Folder that contains ``benchmarks/``."""
    stores: Mapping[str, Path]
    """Source → token store, for the held-out tasks."""
    items: Mapping[str, str] = field(default_factory=dict)
    """Identity of the items when the run began."""
    keep: KeepCheckpoints
    """Scored checkpoints and exports that stay."""
    reference: str | None = None
    """Model that preferences are scored against, a folder or a name on the hub; None = there is none."""
    threads: int | None = None
    """Threads of torch; None = the cores of this process."""
    device: Device = "auto"
    dtype: str | None = None
    """Type of the weights; None = bfloat16 on CUDA, float32 on a CPU."""

    @property
    def task_count(self) -> int:
        """Number of tasks for each checkpoint."""
        return len(self.evaluation.all_tasks(tuple(self.stores)))


def score_run(job: ScoringJob, *, in_process: bool, advance: Advance) -> float:
    """Score the checkpoints, in this process or in a worker; return the CPU seconds.

    Raises:
        EvaluationError: no task of a checkpoint could be scored, or the worker died.
        UserError: a checkpoint or a token store is missing.
    """
    if not job.steps:
        return 0.0
    if in_process:
        return score_here(job, advance)
    log = job.directory / "scoring.log"
    log.unlink(missing_ok=True)
    progress = LineTail(log)

    def report() -> None:
        for line in progress.read():
            advance(line)

    task = Task(
        module=WORKER,
        function="score_in_worker",
        argument=job,
        log=job.directory / "worker.log",
    )
    return float(value_of(run_in_worker(task, report)))


def value_of(result: Result) -> Any:
    """Return the value of a scoring that ended well.

    Raises:
        EvaluationError: the worker died, or a package that scoring needs is missing.
        UserError: what the worker raised.
    """
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
    return result.value


def score_in_worker(job: ScoringJob) -> float:
    """Call :func:`score_here` and write its progress to a file."""
    log = job.directory / "scoring.log"
    write_text(log, "")
    with log.open("a", buffering=1) as stream:
        return score_here(job, lambda text: print(text, file=stream))


def score_here(job: ScoringJob, advance: Advance) -> float:
    """Export and score in this process, checkpoint by checkpoint; return the CPU seconds.

    A damaged checkpoint gets a row without scores that gives the reason. If it is the last one, which
    decides the run's score, it is refused.
    """
    import torch

    from ablations.evaluation.scoring import row_kinds, score_checkpoints, without_scores

    began = time.process_time()
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    record = RunRecord(job.directory)
    with only_process(job.directory, "scoring.lock", "another process is scoring this run"):
        exports, lost = _exports(job, record)
        kinds = row_kinds(job.stores)
        for step, reason in lost.items():
            scores = without_scores(step, job.evaluation, kinds, reason)
            record.add_scores(scores.row(step * job.tokens_per_step))

        def watch(step: int, task: str, _number: int, _count: int) -> None:
            advance(f"step {step}: {task}")

        place, details = scoring_place(job), job.directory / "details"
        for scores in score_checkpoints(
            exports, job.evaluation, details=details, place=place, watch=watch
        ):
            record.add_scores(scores.row(scores.step * job.tokens_per_step))
            remove_scored(job, record)
    return time.process_time() - began


def scoring_place(job: ScoringJob) -> ScoringPlace:
    """Return the folders of a job's items, and the device that runs the model."""
    from ablations.evaluation.scoring import ScoringPlace

    return ScoringPlace(
        data_dir=job.data_dir,
        stores=job.stores,
        items=job.items,
        reference=_reference(job),
        device=resolved_device(job.device),
        dtype=job.dtype,
    )


def _exports(job: ScoringJob, record: RunRecord) -> tuple[dict[int, Path], dict[int, str]]:
    """Export the checkpoints that have no scores yet; return the exports, and the reasons of the failures.

    Raises:
        CheckpointError: the last one cannot be exported.
    """
    from ablations.training.export import tidy_exports

    tidy_exports(record.exports_dir)
    exports: dict[int, Path] = {}
    lost: dict[int, str] = {}
    for step in left_to_score(job, record):
        try:
            exports[step] = export_step(job, record, step)
        except CheckpointError as error:
            if step == job.last_step:
                raise
            lost[step] = str(error)
    return exports, lost


def left_to_score(job: ScoringJob, record: RunRecord) -> list[int]:
    """Return the steps of the job that have no scores yet.

    A process that was killed may have scored some of them since the job was made. A checkpoint without the
    run's score is scored again: its package or its items may be installed now.
    """
    has_score = job.evaluation.score is not None
    scored = {row["step"] for row in record.scores() if not has_score or row["score"] is not None}
    return [step for step in job.steps if step not in scored]


def export_step(job: ScoringJob, record: RunRecord, step: int) -> Path:
    """Return the transformers folder to score: the checkpoint itself where it is one, else its export.

    An export, also that of a vision-language model's text part, is made unless it is there.

    Raises:
        CheckpointError: it cannot be exported.
    """
    from ablations.training.checkpoints import is_transformers
    from ablations.training.export import export_checkpoint
    from ablations.training.vlm.text_part import is_vlm, write_text_part

    checkpoint = record.checkpoints_dir / str(step)
    if not is_transformers(checkpoint):
        return export_checkpoint(checkpoint, record.export(step), job.tokenizer)
    if (job.keep == "all" or step == job.last_step) and is_vlm(checkpoint):
        write_text_part(checkpoint, record.export(step))
    return checkpoint


def resolved_device(asked: Device) -> str:
    """Return the device to score on: ``auto`` is a CUDA device if torch sees one, else the CPU."""
    import torch

    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def _reference(job: ScoringJob) -> Path | None:
    """Return the folder of the model that a DPO run began from."""
    if job.reference is None:
        return None
    from ablations.training.started import started_from

    return started_from(job.directory, job.reference)


def remove_scored(job: ScoringJob, record: RunRecord) -> None:
    """Remove the scored checkpoints and exports that ``job.keep`` does not keep."""
    from ablations.training.checkpoints import prune
    from ablations.training.export import remove_export

    scored = {row["step"] for row in record.scores()}
    prune(record.checkpoints_dir, keep=job.keep, scored=scored, final_step=job.last_step)
    if job.keep == "all":
        return
    for step in scored - {job.last_step}:
        remove_export(record.export(step))
