"""Call ``ablate`` from a program that launches several runs, with the user's own command and changes.

An experiment names a program by ``program.kind``. The program repeats the command that started it in new
processes, with more overrides. Hydra therefore composes the same config again, and the user's command
resumes a run that died. Each process ends with the program. Otherwise its search would keep the study
locked, and the next command could not resume it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config.schema import conf_dir
from ablations.errors import WorkError
from ablations.processes.child import ending_with

__all__ = ["Caller", "called", "mapping_override", "newest_checkpoint"]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Caller that repeats the command of this process, with changes."""

    overrides: tuple[str, ...]
    """Overrides of the user's command."""
    config_dirs: tuple[str, ...] = ()
    """Config folders of the user's command."""

    @classmethod
    def of_this_command(cls, config: Mapping[str, Any]) -> Caller:
        """Return a caller for the command that Hydra is running now."""
        from hydra.core.hydra_config import HydraConfig

        own = str(conf_dir())
        return cls(
            overrides=tuple(HydraConfig.get().overrides.task),
            config_dirs=tuple(d for d in config.get("config_dirs", ()) if d != own),
        )

    def run(self, *changes: str, search: bool = False) -> None:
        """Call ``ablate run`` with ``changes`` after the user's overrides.

        Raises:
            WorkError: The command failed; it has printed the reason.
        """
        dirs = [part for folder in self.config_dirs for part in ("--config-dir", folder)]
        command = [*dirs, *(["--multirun"] if search else []), *self.overrides, "program=null"]
        self._call(["run", *command, *changes])

    def _call(self, arguments: Sequence[str]) -> None:
        module = [sys.executable, "-m", "sweeps.programs.subprocess_cli", str(os.getpid())]
        done = subprocess.run([*module, *arguments], check=False)
        if done.returncode:
            shown = " ".join(arguments)
            raise WorkError(f"`ablate {shown}` ended with exit code {done.returncode}")


def mapping_override(path: str, values: Mapping[str, float], *, sign: str = "++") -> list[str]:
    """Return one override for each key, each number with all its digits."""
    return [f"{sign}{path}.{key}={float(value)!r}" for key, value in values.items()]


def newest_checkpoint(run: Path) -> Path:
    """Return the last checkpoint folder of a run folder.

    Raises:
        WorkError: The run kept no checkpoint.
    """
    steps = [path for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
    if not steps:
        raise WorkError(f"{run}: no checkpoint is kept (training.keep_checkpoints)")
    return max(steps, key=lambda path: int(path.name))


def called(words: Sequence[str]) -> int:
    """Run one command in the process that a program started for it.

    Args:
        words: Process id of the program, then the arguments of ``ablate``.

    Returns:
        Exit code.
    """
    from ablations.cli import main

    program, *arguments = words
    with ending_with(int(program)):
        return main(arguments)


if __name__ == "__main__":
    sys.exit(called(sys.argv[1:]))
