"""``ablate run``: train and score one run; ``-m`` hands the config to the sweeper instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ablations.commands.plan import check_search
from ablations.config.program_names import after_module, program_module, require_after
from ablations.config.schema import RunConfig, carry_out, load
from ablations.errors import ConfigError, Problem
from ablations.progress import RunProgress
from ablations.training.hosts import Hosts, hosts_of

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Do what is left of the run; print where its record is and what it scored."""
    program = config.get("program")
    if program:
        _refuse_hosts(program, config.get("execution") or {})
        # An experiment of many runs (annealing arms, stage by stage): it gives them out itself.
        code: int = program_module(program).main(config)
        return code
    # Imported here: `--help` and `--cfg` need no training.
    from ablations.execute import execute

    run = load(config, config.get("config_dirs", ()))
    if not _of_a_study():
        check_search(config)
    if config.get("after"):
        require_after(config["after"])
    hosts = hosts_of(run.execution)
    if hosts is not None and not hosts.is_first:
        return _help(run, hosts)
    with RunProgress(shown=carry_out(config).progress) as progress:
        finished = execute(run, in_process=_disposable(run), progress=progress)
    result = finished.result
    score = result.get("score")
    print(f"{finished.record.path}: {result['status']}", end="")
    print("" if score is None else f", score {score:.4f} ({result['direction']})")
    width = max(map(len, result["metrics"]), default=0)
    for name, value in sorted(result["metrics"].items()):
        print(f"  {name:<{width}}  {'missing' if value is None else format(value, '.4f')}")
    if after := config.get("after"):
        after_module(after).after_run(config, finished.record)
    return 0


def _help(run: RunConfig, hosts: Hosts) -> int:
    """Give the first host the ranks of this one; print how the run ended there."""
    # Imported here: runs on one host do not need it.
    from ablations.other_hosts import help_run

    record = help_run(run, hosts)
    ended = (record.result() or {}).get("status", "paused")
    print(f"{record.path}: {ended}; host {hosts.index} of {hosts.count} only trained")
    return 0


def _refuse_hosts(program: Mapping[str, Any], execution: Mapping[str, Any]) -> None:
    """Refuse several hosts for a program that decides between its runs.

    Raises:
        ConfigError: each host would decide for itself.
    """
    nodes = execution.get("nodes", 1)
    if nodes == 1 or program.get("kind") == "chain":
        return
    raise ConfigError(
        Problem(
            "execution.nodes",
            f"program.kind={program.get('kind')} runs on one host",
            found=nodes,
            allowed="1, or a program of kind chain",
        )
    )


def _of_a_study() -> bool:
    """Return whether this run is a study's: its driver checked the search, for all of them."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def _disposable(run: RunConfig) -> bool:
    """Return whether this process belongs to the run alone, as with a launcher that starts one for each job.

    Then training and scoring happen here: with the launcher's warm imports, and so that a killed job
    ends as a killed run, not as a failed one.
    """
    ranks = run.execution.dp * run.execution.tp * run.execution.pp
    return ranks == 1 and any(os.environ.get(name) for name in _OWN_PROCESS)


_OWN_PROCESS = ("ABLATIONS_SLOT", "SUBMITIT_EXECUTOR")
"""Set by the slots launcher and by submitit in the processes that they start for one job."""
