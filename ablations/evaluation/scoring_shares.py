"""Score the checkpoints of a run in several worker processes, each on its own device.

    caller ─┬─▶ worker 0   takes a part, scores it, takes the next   ─▶ details/<step>/<task>.parquet
            ├─▶ worker 1   …                                         ─▶ .scoring-…/part-<n>.json
            └── joins the parts of a checkpoint, seals its details, appends its row of scores.jsonl

A part is a checkpoint, or one task of a checkpoint where fewer checkpoints than workers are left. Values,
details and seals are those of one process with the same number of threads. Rows are appended in the order of
steps.

A worker that dies, or an error of one, ends the others. Checkpoints whose rows are there stay scored, and
the same command goes on with the rest. Workers hold ``scoring.lock`` together, so that the next caller waits
for those of a caller that was killed; they work in its folder, which the next caller removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ablations.errors import CheckpointError
from ablations.evaluation.finished_scores import finish_scores
from ablations.evaluation.results import CheckpointScores, MetricScore, TaskScores
from ablations.evaluation.scoring_process import (
    WORKER,
    ScoringJob,
    export_step,
    left_to_score,
    remove_scored,
    score_run,
    scoring_place,
    value_of,
)
from ablations.evaluation.specs import EvaluationSpec
from ablations.files import LineTail, read_json, write_sealed, write_text
from ablations.record.lease import only_process
from ablations.record.run_record import RunRecord
from ablations.training.hosts import local_ranks
from ablations.training.specs import ExecutionSpec
from ablations.training.training_process import Task, run_side_by_side
from ablations.training.visible_gpus import visible_gpus

__all__ = ["Part", "Share", "parts_of", "score_on_devices", "score_share", "scoring_processes"]

_LOCK = "scoring.lock"
_FOLDER = ".scoring-"


@dataclass(frozen=True)
class Part:
    """Work that one worker does at a time."""

    step: int
    """The checkpoint."""
    tasks: tuple[str, ...]
    """The tasks to score it on."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Work of one worker; can be pickled."""

    job: ScoringJob
    parts: tuple[Part, ...]
    """Parts of the job, of which the workers take one after the other."""
    folder: Path
    """Folder of the parts that are taken, and of those that are done."""
    worker: int
    """Number of the worker, from 0 on, and of its GPU."""
    workers: int


def scoring_processes(execution: ExecutionSpec) -> int:
    """Return the number of processes that score a run on its first host: one for each of its devices.

    They are the GPUs that ``CUDA_VISIBLE_DEVICES`` gives to the run, else as many as the run has ranks; on a
    CPU, one for each rank that has a core.
    """
    ranks = local_ranks(execution)
    gpus = [] if execution.device == "cpu" else visible_gpus()
    if not gpus:
        return min(ranks, len(os.sched_getaffinity(0)))
    return len(gpus) if "CUDA_VISIBLE_DEVICES" in os.environ else min(ranks, len(gpus))


def parts_of(
    steps: Sequence[int], evaluation: EvaluationSpec, sources: Sequence[str], workers: int
) -> list[Part]:
    """Return the parts of a scoring in the order in which they are taken.

    Each worker gets the same number of checkpoints. Those that are left are divided by task; tasks that
    generate text are first, because they take longest.
    """
    tasks = evaluation.all_tasks(sources)
    slow_first = sorted(tasks, key=lambda name: tasks[name].max_new_tokens is None)
    whole = len(steps) if not tasks else len(steps) // workers * workers
    return [
        *(Part(step, tuple(tasks)) for step in steps[:whole]),
        *(Part(step, (name,)) for step in steps[whole:] for name in slow_first),
    ]


def score_on_devices(
    job: ScoringJob, workers: int, *, in_process: bool, advance: Callable[[str], None]
) -> float:
    """Score the checkpoints of a run in ``workers`` processes; return their CPU seconds.

    With one worker, one part or ``in_process`` it is :func:`score_run`.

    Raises:
        EvaluationError: no task of a checkpoint could be scored, or a worker died.
        UserError: a checkpoint or a token store is missing.
    """
    record = RunRecord(job.directory)
    steps = sorted(left_to_score(job, record)) if workers > 1 and not in_process else []
    parts = parts_of(steps, job.evaluation, tuple(job.stores), workers)
    if len(parts) < 2:
        return score_run(job, in_process=in_process, advance=advance)
    with _own_folder(job, record) as folder:
        count = min(workers, len(parts))
        shares = [
            Share(job=job, parts=tuple(parts), folder=folder, worker=number, workers=count)
            for number in range(count)
        ]
        log, joined = job.directory / "scoring.log", _Joined(job, record, parts, folder)
        write_text(log, "")
        progress = LineTail(log)

        def look() -> None:
            for line in progress.read():
                advance(line)
            joined.look()

        tasks = [
            Task(
                module=WORKER,
                function="score_share",
                argument=share,
                log=job.directory / "worker.log",
            )
            for share in shares
        ]
        return float(sum(value_of(run_side_by_side(tasks, look))))


@contextlib.contextmanager
def _own_folder(job: ScoringJob, record: RunRecord) -> Iterator[Path]:
    """Make the folder of one call's parts, after the workers of an earlier call have ended."""
    from ablations.training.export import tidy_exports

    with only_process(job.directory, _LOCK, "another process is scoring this run"):
        for left in job.directory.glob(f"{_FOLDER}*"):
            shutil.rmtree(left, ignore_errors=True)
        tidy_exports(record.exports_dir)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=job.directory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------------- in the caller's process


class _Joined:
    """The parts that are done, joined to rows."""

    def __init__(
        self, job: ScoringJob, record: RunRecord, parts: Sequence[Part], folder: Path
    ) -> None:
        self._job, self._record, self._folder = job, record, folder
        self._waiting = dict(enumerate(parts))
        self._done: dict[int, list[dict[str, Any]]] = {}

    def look(self) -> None:
        """Append the row of each checkpoint whose parts are all done, unless an earlier one is missing.

        Raises:
            EvaluationError: no task of a checkpoint could be scored.
        """
        for number in [n for n in self._waiting if _part_file(self._folder, n).exists()]:
            part = self._waiting.pop(number)
            done = self._done.setdefault(part.step, [])
            done.append(read_json(_part_file(self._folder, number)))
        left = min((part.step for part in self._waiting.values()), default=None)
        for step in sorted(self._done):
            if left is not None and step >= left:
                return
            scores = self._scores(step, self._done.pop(step))
            self._record.add_scores(scores.row(step * self._job.tokens_per_step))
            remove_scored(self._job, self._record)

    def _scores(self, step: int, done: Sequence[dict[str, Any]]) -> CheckpointScores:
        from ablations.evaluation.scoring import row_kinds, without_scores

        job = self._job
        lost = [part["lost"] for part in done if part["lost"]]
        if lost:
            return without_scores(step, job.evaluation, row_kinds(job.stores), lost[0])
        found = {name: _task(plain) for part in done for name, plain in part["tasks"].items()}
        order = job.evaluation.all_tasks(tuple(job.stores))
        tasks = {name: found[name] for name in order}
        seconds = sum(part["seconds"] for part in done)
        return finish_scores(step, job.evaluation, tasks, job.directory / "details", seconds)


def _task(plain: dict[str, Any]) -> TaskScores:
    metrics = {name: MetricScore(**metric) for name, metric in plain["metrics"].items()}
    return TaskScores(**{**plain, "metrics": metrics})


def _part_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number}.json"


# ------------------------------------------------------------------------- in the workers' processes


def score_share(share: Share) -> float:
    """Score one part after the other until all are taken; return the CPU seconds."""
    from ablations.evaluation.scoring import Scorer

    began = time.process_time()
    job, details = share.job, share.job.directory / "details"
    with (
        _with_the_others(job.directory / _LOCK),
        (job.directory / "scoring.log").open("a", buffering=1) as progress,
    ):

        def watch(step: int, task: str, _number: int, _count: int) -> None:
            print(f"step {step}: {task}", file=progress)

        place = scoring_place(job)
        place = replace(place, device=_device(share, place.device))
        scorer = Scorer(job.evaluation, details=details, place=place, watch=watch)
        for number in _take(share):
            write_sealed(_part_file(share.folder, number), _score(share, number, scorer))
    return time.process_time() - began


def _score(share: Share, number: int, scorer: Any) -> dict[str, Any]:
    """Return the scores of a part as plain values, or the reason why its checkpoint is lost.

    Raises:
        CheckpointError: the last checkpoint, which decides the run's score, cannot be exported.
    """
    part, began = share.parts[number], time.process_time()
    try:
        folder = _export(share, part.step)
    except CheckpointError as error:
        if part.step == share.job.last_step:
            raise
        return {"lost": str(error), "tasks": {}, "seconds": time.process_time() - began}
    tasks = scorer.score(part.step, folder, part.tasks)
    plain = {name: asdict(scores) for name, scores in tasks.items()}
    return {"lost": None, "tasks": plain, "seconds": time.process_time() - began}


def _export(share: Share, step: int) -> Path:
    """Export a checkpoint, which one of its workers does for all."""
    from filelock import FileLock

    with FileLock(share.folder / f"export-{step}.lock"):
        return export_step(share.job, RunRecord(share.job.directory), step)


def _take(share: Share) -> Iterator[int]:
    """Yield the parts that no other worker has taken, until all are."""
    for number in range(len(share.parts)):
        with contextlib.suppress(FileExistsError):
            (share.folder / f"taken-{number}").touch(exist_ok=False)
            yield number


def _device(share: Share, device: str) -> str:
    """Return the worker's own device of the job's kind; set the threads of torch."""
    import torch

    from ablations.processes.child import exported_threads
    from ablations.training.placement import threads_of_a_rank

    if device != "cpu":
        device = f"cuda:{share.worker % torch.cuda.device_count()}"
    threads = share.job.threads
    if threads is None and device == "cpu":
        threads = exported_threads() or threads_of_a_rank(share.workers)
    if threads is not None:
        torch.set_num_threads(threads)
    return device


@contextlib.contextmanager
def _with_the_others(lock: Path) -> Iterator[None]:
    """Hold the lock of the run's scoring together with the other workers; the kernel frees it at death."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(
            OSError
        ):  # a file system without locks, where the caller's made no file
            stream = stack.enter_context(lock.open("rb+"))
            fcntl.flock(stream, fcntl.LOCK_SH)
        yield
