"""Agreement of a launcher with the hosts that a run asks for.

A launcher that gives a run more hosts than ``execution.nodes`` leaves them idle, and one that gives fewer
leaves the first host waiting. Both are refused before anything is submitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ablations.errors import Problem

__all__ = ["node_problems"]

_DO = "use hydra/launcher=slurm_nodes, which takes as many nodes as execution.nodes states"


def node_problems(
    config: Mapping[str, Any], launcher: Mapping[str, Any] | None
) -> Iterator[Problem]:
    """Yield where the launcher and the hosts of a run disagree.

    Args:
        config: Composed config of a run; one without ``execution`` is of another application.
        launcher: Options of ``hydra.launcher``; None if it is not known.
    """
    execution = config.get("execution")
    if not isinstance(execution, Mapping) or launcher is None:
        return
    asked = execution.get("nodes") or 1
    for name in ("rendezvous", "node_rank"):
        if execution.get(name) is not None:
            yield Problem(
                f"execution.{name}",
                "is for a single run that is started by hand on each host",
                found=execution[name],
                do="leave it out: the launcher gives the hosts of a study's runs",
            )
    if not str(launcher.get("_target_", "")).endswith(".SlurmLauncher"):
        if asked != 1:
            yield Problem(
                "execution.nodes",
                "this launcher gives a run one host",
                found=asked,
                allowed="1",
                do=_DO,
            )
        return
    given = launcher.get("nodes") or 1
    if given != asked:
        yield Problem(
            "hydra.launcher.nodes",
            "not the number of hosts that a run uses",
            found=given,
            allowed=f"{asked} (execution.nodes)",
            do=_DO,
        )
    tasks = launcher.get("tasks_per_node") or 1
    if tasks != 1:
        yield Problem(
            "hydra.launcher.tasks_per_node",
            "a run is one task on each node, which starts the ranks itself",
            found=tasks,
            allowed="1",
        )
