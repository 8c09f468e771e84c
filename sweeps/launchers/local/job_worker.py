"""One job in a process of its own, forked from the warm server."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["CPU_LINE", "Job", "Workplace", "run_in_child"]

CPU_LINE = "CPU time of this job: "
"""Begins the last line of a job's log."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What Hydra needs to compose and run one job, carried as a whole."""

    context: Any
    """HydraContext: config loader and callbacks."""
    config: Any
    """The multirun's own config."""
    task_function: Any
    singletons: Any
    overrides: Sequence[str]
    index: int

    def run(self) -> Any:
        """Compose the job's config and call the task; a raised exception is in the return value."""
        from hydra.core.utils import run_job

        returned = run_job(
            hydra_context=self.context,
            config=self._composed(),
            task_function=self.task_function,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        returned.cfg = returned.hydra_cfg = None  # the driver has them
        return returned

    def _composed(self) -> Any:
        """Return the job's config, which is Hydra's current one from now on."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.singleton import Singleton
        from hydra.core.utils import setup_globals
        from omegaconf import open_dict

        from ablations.config.hydra_section import require_harmless

        setup_globals()
        Singleton.set_state(self.singletons)
        loader = self.context.config_loader
        config = loader.load_sweep_config(self.config, list(self.overrides))
        require_harmless(loader, config)  # a file that only this job's words name
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{self.index}"
            config.hydra.job.num = self.index
        HydraConfig.instance().set_config(config)
        return config


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a job runs."""

    log: Path
    """File that gets what the job and its children print, appended."""
    environment: Mapping[str, str]
    cores: Sequence[int]
    """CPU threads it is bound to."""


def run_in_child(payload: bytes, place: Workplace, results: Connection) -> None:
    """Body of the forked process: its own session, its own log, one job, one answer."""
    import cloudpickle

    # The driver may have died between its request and this fork: what it asked for is then the next
    # driver's to launch. A run that has begun goes on without its driver.
    driver = multiprocessing.parent_process()
    if driver is not None and not driver.is_alive():
        return
    # A Ctrl-C at the driver goes to the driver alone; it decides what ends.
    os.setsid()
    _redirect(place.log)
    os.environ.update(place.environment)
    _bind(place.cores)
    returned: Any
    try:
        job: Job = cloudpickle.loads(payload)
        returned = job.run()
    except Exception as error:
        returned = error
    # Since the fork, waited-for children included: what a run costs beyond its training and scoring.
    used = os.times()
    seconds = used.user + used.system + used.children_user + used.children_system
    print(f"{CPU_LINE}{seconds:.2f} s", flush=True)
    # A driver that died in the meantime reads the run's folder when it comes back.
    with contextlib.suppress(BrokenPipeError):
        results.send_bytes(_portable(returned))


def _redirect(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _bind(cores: Sequence[int]) -> None:
    os.sched_setaffinity(0, cores)
    # OpenMP read its environment when the server imported torch: too late for OMP_NUM_THREADS.
    if (torch := sys.modules.get("torch")) is not None:
        asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        torch.set_num_threads(int(asked) if asked.isdecimal() and int(asked) else len(cores))


def _portable(returned: Any) -> bytes:
    """Pickled; an exception that cannot be is sent as its text."""
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps(returned)
        cloudpickle.loads(content)
    except Exception:
        value = getattr(returned, "_return_value", returned)
        content = cloudpickle.dumps(RuntimeError(f"{type(value).__name__}: {value}"))
    return content
