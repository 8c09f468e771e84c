"""``hydra/sweeper=ablations``: run a multirun as a study, by :mod:`sweeps.study.sweep`.

Hydra's scanner runs this module at every start, before it is in ``sys.modules``: it imports nothing
heavy, and postponed annotations beside a dataclass would crash every Hydra application.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class AblationsSweeperConf:
    """Options of the sweeper; the study's own are in the ``search`` group."""

    _target_: str = "hydra_plugins.ablations_sweeper.sweeper.AblationsSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="ablations", node=AblationsSweeperConf, provider="ablations"
)


class AblationsSweeper(Sweeper):
    """Sweeper for the study that ``search`` and the command line describe."""

    def __init__(self) -> None:
        self.config: Optional[DictConfig] = None  # noqa: UP045 - Hydra declares it so
        self.hydra_context: Optional[HydraContext] = None  # noqa: UP045
        self.launcher: Optional[Launcher] = None  # noqa: UP045
        self._task_function: Optional[TaskFunction] = None  # noqa: UP045

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the jobs need; the launcher is made when there is something to launch."""
        self.config, self.hydra_context = config, hydra_context
        self._task_function = task_function

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study; return its state, as other sweepers return their jobs' values."""
        from sweeps.study.composing import Composer, plain_config
        from sweeps.study.job_overrides import read_command
        from sweeps.study.study_plan import plan_study
        from sweeps.study.sweep import Hydra, read_request, run_study

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        base = plain_config(loader, self.config, read_command(arguments).fixed)
        launcher = self.config.hydra.launcher
        request = read_request(base, arguments, self._config_dirs(), launcher)
        if getattr(self._task_function, "command", None) == "plan":
            return plan_study(request, Composer(loader, self.config), self._config_dirs())
        hydra = Hydra(loader=loader, config=self.config, make_launcher=self._make_launcher)
        return run_study(request, arguments, hydra, _decide_task_quality)

    def _make_launcher(self, loader: ConfigLoader, config: DictConfig) -> Launcher:
        """Make the launcher of the command; its jobs are composed by ``loader``."""
        from hydra.core.plugins import Plugins

        assert self.hydra_context is not None
        assert self._task_function is not None
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=replace(self.hydra_context, config_loader=loader),
            task_function=self._task_function,
            config=config,
        )
        return self.launcher

    def _config_dirs(self) -> list[Path]:
        assert self.config is not None
        sources = self.config.hydra.runtime.config_sources
        return [Path(source.path) for source in sources if source.schema == "file"]


def _decide_task_quality(*asked: Any) -> Any:
    """Decide a study's score; imported here, so that the verdict's modules load only when needed."""
    from sweeps.verdict.task_quality import decide_task_quality

    return decide_task_quality(*asked)
