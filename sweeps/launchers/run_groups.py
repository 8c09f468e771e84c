"""Several runs in one job of submitit, one after another: short runs share the wait and the imports.

    job ── warm server (imports once) ─┬─ run 1, in a child
                                       ├─ run 2, in a child
                                       └─ …

Each run is a child of a warm server, as on slots, so that it is isolated and computes what it would alone. A
run that fails or is killed does not end the others. When the queue requeues the job, it begins again with
its first run: those that have a result do nothing, the others resume.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

__all__ = ["RunGroups"]


class RunGroups(BaseSubmititLauncher):  # type: ignore[misc]
    """Launcher of groups of runs with the settings of a submitit launcher.

    Args:
        launcher: The launcher, after its ``setup``.
        preload: Modules that a job imports before its first run.
    """

    def __init__(self, launcher: Any, preload: Sequence[str]) -> None:
        self.__dict__.update(vars(launcher))
        self._EXECUTOR = launcher._EXECUTOR
        self._preload = tuple(preload)
        self._group: tuple[tuple[str, ...], ...] = ()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Submit one job for all of the runs; return what each returned, or how it ended, when it ends."""
        one = copy.copy(self)
        one._group = tuple(tuple(overrides) for overrides in job_overrides)
        # Hydra's launcher submits and names the job after its first run.
        returned: list[Sequence[Any]] = super(RunGroups, one).launch(
            [job_overrides[0]], initial_job_idx
        )
        return returned[0]

    def __call__(
        self,
        sweep_overrides: list[str],
        job_dir_key: str,
        job_num: int,
        job_id: str,
        singleton_state: dict[type, Any],
    ) -> list[Any]:
        """Do the runs of the group in this job."""
        # Imported here: the job has been started, and the driver needs neither.
        from ablations.processes.warm_server import warm_server
        from sweeps.launchers.local.job_worker import Job

        del sweep_overrides, job_dir_key, job_id
        server = warm_server(self._preload)
        return [
            _run(
                server,
                Job(
                    context=self.hydra_context,
                    config=self.config,
                    task_function=self.task_function,
                    singletons=singleton_state,
                    overrides=overrides,
                    index=index,
                ),
            )
            for index, overrides in enumerate(self._group, job_num)
        ]


def _run(server: Any, job: Any) -> Any:
    """Return what the run returned, or the exception that says how it ended."""
    import cloudpickle

    from sweeps.launchers.local.job_worker import run_job_in_child
    from sweeps.launchers.local.pool import result_of

    try:
        return result_of(server.start(run_job_in_child, cloudpickle.dumps(job)), "the job's output")
    except Exception as error:  # the other runs go on; the driver reads the run's folder
        return error
