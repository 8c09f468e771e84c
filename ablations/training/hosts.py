"""Hosts of a training on several machines: how many there are, which one this is, where they meet.

    srun --nodes=2 --ntasks-per-node=1 ablate run execution.nodes=2 execution.dp=16
    ablate run execution.nodes=2 execution.dp=16 execution.rendezvous=first:29500 execution.node_rank=0

Under Slurm everything follows from the variables of the job step. Without it the same command is given on
each host, with the address of the first one and the host's own number. Torch is not imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ablations.errors import ConfigError, Problem
from ablations.training.specs import ExecutionSpec, split_endpoint

__all__ = ["MEETING_SECONDS", "Hosts", "first_host", "hosts_of", "local_ranks"]

MEETING_SECONDS = 600.0
"""The first host waits this long for the others, and they this long for a sign of the first."""

_FIRST_PORT, _PORTS = 20_000, 12_000
"""Ports below those that Linux gives to outgoing connections (from 32,768 on)."""

_BY_SRUN = "start the same command on every host: srun --nodes={n} --ntasks-per-node=1 ablate run …"
_BY_HAND = "or by hand, with execution.rendezvous=HOST:PORT and execution.node_rank=0, 1, …"


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """The hosts of one training, as one of them sees them."""

    count: int
    index: int
    """Number of this host, from 0 on; host 0 writes the record, audits and scores."""
    address: str
    """Name or address of host 0."""
    port: int
    """Port on host 0 at which the others meet it."""
    name: str
    """Name of this start of the training, the same on all hosts."""

    @property
    def is_first(self) -> bool:
        """Return whether this host is the one that writes the record."""
        return self.index == 0


def hosts_of(
    execution: ExecutionSpec, environment: Mapping[str, str] | None = None
) -> Hosts | None:
    """Return the hosts of a training; None for one host.

    Args:
        execution: Execution of the run.
        environment: Variables of the environment; None = this process's.

    Raises:
        ConfigError: nothing tells which of the hosts this is, or Slurm started another number of them.
    """
    if execution.nodes == 1:
        return None
    given = os.environ if environment is None else environment
    if execution.rendezvous is None:
        return _of_slurm(execution.nodes, given)
    address, port = split_endpoint(execution.rendezvous)
    index = execution.node_rank
    if index is None and given.get("SLURM_NODEID", "").isdecimal():
        index = int(given["SLURM_NODEID"])
    if index is None:
        raise ConfigError(
            Problem(
                "execution.node_rank",
                "not given, so this host does not know which one it is",
                allowed=f"0 to {execution.nodes - 1}, another one on each host",
            )
        )
    return Hosts(
        count=execution.nodes, index=index, address=address, port=port, name=f"{address}-{port}"
    )


def _of_slurm(count: int, given: Mapping[str, str]) -> Hosts:
    """Return the hosts of the Slurm step that this process is a task of.

    Raises:
        ConfigError: there is no step of ``count`` nodes with one task on each.
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NODEID", "SLURM_STEP_NODELIST")
    nodes = given.get("SLURM_STEP_NUM_NODES", "")
    if not nodes.isdecimal() or any(not given.get(name) for name in names):
        found = "this process is no task of a Slurm step"
    elif int(nodes) != count or given.get("SLURM_STEP_NUM_TASKS") != nodes:
        found = f"a step of {nodes} nodes and {given.get('SLURM_STEP_NUM_TASKS')} tasks"
    else:
        job, step = given["SLURM_JOB_ID"], given["SLURM_STEP_ID"]
        number = int(job) * 31 + int(step) if f"{job}{step}".isdecimal() else 0
        return Hosts(
            count=count,
            index=int(given["SLURM_NODEID"]),
            address=first_host(given["SLURM_STEP_NODELIST"]),
            port=_FIRST_PORT + number % _PORTS,
            name="-".join((job, step, given.get("SLURM_RESTART_COUNT", "0"))),
        )
    raise ConfigError(
        Problem(
            "execution.nodes",
            "there are not that many hosts here",
            found=found,
            allowed=f"{count} hosts, one task on each",
            do=f"{_BY_SRUN.format(n=count)}; {_BY_HAND}",
        )
    )


def first_host(listed: str) -> str:
    """Return the first name of a list of hosts as Slurm shortens it.

    >>> first_host("rack[03-04,7]n[1-2],login")
    'rack03n1'
    """
    first = re.split(r",(?![^\[]*\])", listed, maxsplit=1)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def local_ranks(execution: ExecutionSpec) -> int:
    """Return the number of processes of a training on each of its hosts."""
    return execution.ranks // execution.nodes
