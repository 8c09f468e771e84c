"""Run ``ablate stop``: end a running study; the same command goes on with it later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.commands.command_options import StopOptions, read_options
from sweeps.study.stopping import stop_study

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Stop the driver of a study and the runs of this host; print what goes on."""
    options = read_options(StopOptions, config, alone=True)
    stopped = stop_study(Path(options.runs_dir), options.study, options.wait_seconds)
    if stopped.driver is None and not stopped.runs:
        print(f"study {options.study}: nothing of it runs on this host")
    else:
        driver = "no driver" if stopped.driver is None else f"driver {stopped.driver}"
        runs = f"{len(stopped.runs)} run{'' if len(stopped.runs) == 1 else 's'}"
        print(f"study {options.study}: stopped {driver}, {runs} besides")
        print("the command that began it goes on with it: finished steps and runs are kept")
    for name in stopped.going_on:
        print(f"  goes on elsewhere: {name}")
    return 0
