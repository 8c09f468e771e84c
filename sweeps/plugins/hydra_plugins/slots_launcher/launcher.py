"""``hydra/launcher=slots``: run jobs on the GPUs or CPU threads of this machine, by a warm server.

The code is in :mod:`sweeps.launchers.local`. As in every plugin module: no heavy import, no postponed
annotations beside a dataclass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 - OmegaConf reads these

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class SlotsLauncherConf:
    """Options of ``hydra.launcher``."""

    _target_: str = "hydra_plugins.slots_launcher.launcher.SlotsLauncher"
    # Number of slots, or the CUDA_VISIBLE_DEVICES of each; null = all GPUs, else all CPU threads.
    slots: Any = None
    # CPU threads of each slot; null = an even share.
    threads: Optional[int] = None  # noqa: UP045
    # GPUs of each slot.
    devices_per_slot: int = 1
    # Modules imported once, before runs are forked; those that the suite needs are added.
    preload: List[str] = field(  # noqa: UP006
        default_factory=lambda: ["hydra", "ablations.commands.run", "ablations.preload"]
    )


ConfigStore.instance().store(
    group="hydra/launcher", name="slots", node=SlotsLauncherConf, provider="ablations"
)


class SlotsLauncher(Launcher):
    """Launcher on slots; ``launch`` may be called from several threads."""

    def __init__(
        self, slots: Any, threads: int | None, devices_per_slot: int, preload: Any
    ) -> None:
        from sweeps.launchers.local.devices import slots_of
        from sweeps.launchers.local.pool import SlotPool

        plain: Any = OmegaConf.to_container(slots) if OmegaConf.is_config(slots) else slots
        modules = [str(name) for name in preload]
        self._imports = (
            "ablations.preload" in modules
        )  # else runs start cold, and import what they use
        self._pool = SlotPool(slots_of(plain, threads, devices_per_slot), modules)

    @property
    def width(self) -> int:
        """Number of runs at a time."""
        return len(self._pool.slots)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the jobs need; the first job starts the warm server."""
        from sweeps.launchers.local.suite_modules import PRELOADED, suite_modules

        if (kind := OmegaConf.select(config, "method.kind")) in PRELOADED:
            self._pool.also_preload(PRELOADED[kind])
        if self._imports:
            for module in suite_modules(config):
                self._pool.also_preload(module)
        self._context, self._task_function, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs, each on the next free slot; return when all have ended."""
        from concurrent.futures import ThreadPoolExecutor

        numbered = list(enumerate(job_overrides, initial_job_idx))
        if len(numbered) == 1:
            return [self._launch_one(numbered[0][1], numbered[0][0])]
        with ThreadPoolExecutor(self.width) as threads:
            return list(threads.map(lambda job: self._launch_one(job[1], job[0]), numbered))

    def stop(self) -> None:
        """End the runs in flight."""
        self._pool.stop()

    def end(self, name: str) -> None:
        """End the run in the folder ``name``."""
        self._pool.end(name)

    def _launch_one(self, overrides: Sequence[str], index: int) -> JobReturn:
        from hydra.core.singleton import Singleton

        from sweeps.launchers.local.job_worker import Job

        job = Job(
            context=self._context,
            config=self._config,
            task_function=self._task_function,
            singletons=Singleton.get_state(),
            overrides=overrides,
            index=index,
        )
        returned: JobReturn = self._pool.run(job, self._log(overrides, index))
        return returned

    def _log(self, overrides: Sequence[str], index: int) -> Path:
        prefix = "hydra.sweep.subdir="
        named = [o.removeprefix(prefix) for o in overrides if o.startswith(prefix)]
        folder = Path(str(self._config.hydra.sweep.dir)) / (named[-1] if named else str(index))
        return folder.resolve() / "worker.log"
