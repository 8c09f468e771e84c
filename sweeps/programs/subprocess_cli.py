"""Calls of ``ablate`` from a program that gives out many runs: the user's own command, changed.

A program is named by an experiment (``program.kind``). It repeats the command that began it, with
further overrides, in processes of their own: what Hydra composed once is composed the same way again,
and a run that died is gone on with by giving the user's command again. Such a process ends with the program:
else its search would hold the study that the next command wants to go on with.
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
    """Gives the command that began this process again, with changes."""

    overrides: tuple[str, ...]
    """The user's own overrides."""
    config_dirs: tuple[str, ...] = ()
    """Config folders that the user added."""

    @classmethod
    def of_this_command(cls, config: Mapping[str, Any]) -> Caller:
        """The caller of the command that Hydra is running now."""
        from hydra.core.hydra_config import HydraConfig

        own = str(conf_dir())
        return cls(
            overrides=tuple(HydraConfig.get().overrides.task),
            config_dirs=tuple(d for d in config.get("config_dirs", ()) if d != own),
        )

    def run(self, *changes: str, search: bool = False) -> None:
        """``ablate run`` with ``changes`` after the user's overrides.

        Raises:
            WorkError: the command failed; it has said why.
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
    """One override a key, each number with all its digits."""
    return [f"{sign}{path}.{key}={float(value)!r}" for key, value in values.items()]


def newest_checkpoint(run: Path) -> Path:
    """The last checkpoint folder of a run folder.

    Raises:
        WorkError: there is none.
    """
    steps = [path for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
    if not steps:
        raise WorkError(f"{run}: no checkpoint is kept (training.keep_checkpoints)")
    return max(steps, key=lambda path: int(path.name))


def called(words: Sequence[str]) -> int:
    """Run one command in the process that a program started for it.

    Args:
        words: The pid of the program, then the words after ``ablate``.

    Returns:
        The exit code.
    """
    from ablations.cli import main

    program, *arguments = words
    with ending_with(int(program)):
        return main(arguments)


if __name__ == "__main__":
    sys.exit(called(sys.argv[1:]))
