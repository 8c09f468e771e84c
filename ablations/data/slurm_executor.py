"""Submission of a source's ranks as Slurm jobs, through datatrove's executor."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.executor import SlurmPipelineExecutor, slurm

from ablations.data.prepare_jobs import SUBMITTED, job_name
from ablations.errors import WorkError
from ablations.files import write_json

__all__ = ["Stage", "submit_jobs"]


class _Jobs(SlurmPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor without its job that adds up statistics, which nobody reads.

    It starts the ranks with this Python, which need not be activated. A job whose dependency failed is
    cancelled by Slurm instead of waiting for ever.
    """

    after = ""
    """Line of the script after the work, if that ended well."""

    def launch_merge_stats(self) -> None:
        """Submit nothing."""

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """Return the script of a job."""
        python = f"{shlex.quote(sys.executable)} -m datatrove.tools."
        script = run_script.replace(
            "launch_pickled_pipeline", f"{python}launch_pickled_pipeline", 1
        )
        text: str = super().get_launch_file_contents(sbatch_args, script)
        return f"{text}{self.after}\n"


class Stage(NamedTuple):
    """Jobs of a source that begin when those of the stage before have ended."""

    name: str
    """First word of the jobs' name."""
    steps: list[Any]
    """Pipeline of a task."""
    tasks: int
    folder: Path
    """Folder in which datatrove notes the tasks that are done."""


def submit_jobs(
    source: str,
    store: Path,
    folder: Path,
    stages: Sequence[Stage],
    *,
    at_once: int | None,
    options: Mapping[str, Any],
) -> tuple[str, ...]:
    """Submit the tasks that are not done, stage after stage.

    Args:
        source: Name of the source.
        store: Folder of its store.
        folder: Folder of its jobs, which the last one removes.
        stages: Stages in order; the last one is a single task that makes the store.
        at_once: Most tasks of a stage that run at the same time; None = all.
        options: Options of datatrove's executor that all stages share.

    Returns:
        The ids of the jobs.

    Raises:
        WorkError: Slurm refused a job; those before it are cancelled.
    """
    names = [job_name(stage.name, source, store) for stage in stages]
    folder.mkdir(parents=True, exist_ok=True)
    note = {"names": names, "jobs": [], "time": time.time()}
    write_json(folder / SUBMITTED, note)
    shutil.rmtree(stages[-1].folder, ignore_errors=True)  # one that failed may be marked as done
    extra = {"kill-on-invalid-dep": "yes", **(options.get("sbatch_args") or {})}
    made: list[_Jobs] = []
    for stage, name in zip(stages, names, strict=True):
        jobs = _Jobs(
            pipeline=stage.steps,
            tasks=stage.tasks,
            workers=at_once or -1,
            job_name=name,
            logging_dir=str(stage.folder),
            slurm_logs_folder=str(stage.folder / "slurm"),
            depends=made[-1] if made else None,
            **{**options, "sbatch_args": extra},
        )
        made.append(jobs)
    made[-1].after = f"rm -rf {shlex.quote(str(folder))} || true"
    try:
        with _variables_by_environment():
            made[-1].run()
    except (OSError, subprocess.SubprocessError) as error:
        if ids := _ids(made):
            subprocess.run(["scancel", *ids], check=False, capture_output=True)
        (folder / SUBMITTED).unlink(missing_ok=True)
        raise WorkError(f"{source}: Slurm took no job: {error}") from error
    with contextlib.suppress(OSError):  # the last job may have ended, and removed the folder
        if (folder / SUBMITTED).exists():
            write_json(folder / SUBMITTED, {**note, "jobs": _ids(made)})
    return _ids(made)


@contextlib.contextmanager
def _variables_by_environment() -> Iterator[None]:
    """Give datatrove's variables to sbatch in its environment, and not by ``--export=ALL,NAME=value``.

    With such a list the node starts a login shell before every task, to learn the user's environment
    (sbatch(1)). One that waited for a lock made each task a minute late, and Slurm called the task lost.
    """
    given = slurm.launch_slurm_job

    def submit(script: str, id_of: Callable[[str], str], *words: str) -> str:
        listed = [word for word in words if word.startswith("--export=ALL,")]
        pairs = [pair.partition("=") for word in listed for pair in word.split(",")[1:]]
        before = {name: os.environ.get(name) for name, _, _ in pairs}
        os.environ.update({name: value for name, _, value in pairs})
        try:
            job: str = given(script, id_of, *(word for word in words if word not in listed))
            return job
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    slurm.launch_slurm_job = submit
    try:
        yield
    finally:
        slurm.launch_slurm_job = given


def _ids(made: Sequence[_Jobs]) -> tuple[str, ...]:
    """Return the ids of the jobs that were submitted; a stage that was done has none."""
    return tuple(str(jobs.job_id) for jobs in made if jobs.job_id not in (None, -1))
