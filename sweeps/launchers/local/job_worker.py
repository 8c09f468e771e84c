"""One job of a launcher, in a process of its own that was forked from the warm server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CPU_LINE", "Job", "run_job_in_child"]

CPU_LINE = "CPU time of this job: "
"""Prefix of the last line of a job's log."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that Hydra needs to compose and run one job."""

    context: Any
    """HydraContext: config loader and callbacks."""
    config: Any
    """Config of the multirun."""
    task_function: Any
    singletons: Any
    overrides: Sequence[str]
    index: int

    def run(self) -> Any:
        """Compose the job's config and call the task; the return value contains its exception."""
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
        require_harmless(loader, config)  # it may contain files that only this job's overrides name
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{self.index}"
            config.hydra.job.num = self.index
        HydraConfig.instance().set_config(config)
        return config


def run_job_in_child(payload: bytes) -> bytes:
    """Run a job in this process, which is its own; return Hydra's ``JobReturn``.

    Both are pickled by cloudpickle, because Hydra's task function may be defined in ``__main__``.

    Raises:
        RuntimeError: the return value cannot be pickled; its type and text.
    """
    import cloudpickle

    try:
        job: Job = cloudpickle.loads(payload)
        returned = job.run()
    finally:
        # Since the fork, waited-for children included: the run's cost beyond its training and scoring.
        used = os.times()
        seconds = used.user + used.system + used.children_user + used.children_system
        print(f"{CPU_LINE}{seconds:.2f} s", flush=True)
    try:
        content: bytes = cloudpickle.dumps(returned)
        cloudpickle.loads(content)
    except Exception:
        value = returned._return_value
        raise RuntimeError(f"{type(value).__name__}: {value}") from None
    return content
