"""Which host of a training this process is, from Slurm's variables or from the config."""

from __future__ import annotations

from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.training.hosts import Hosts, first_host, hosts_of, local_ranks
from ablations.training.specs import ExecutionSpec

STEP = {
    "SLURM_JOB_ID": "100",
    "SLURM_STEP_ID": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
}
"""Variables of the second task of ``srun --nodes=2 --ntasks-per-node=1``."""


def two(**execution: Any) -> ExecutionSpec:
    return ExecutionSpec(**{"nodes": 2, "dp": 4, **execution})


def test_one_host_needs_nothing() -> None:
    assert hosts_of(ExecutionSpec(), STEP) is None


def test_a_slurm_step_gives_the_hosts() -> None:
    hosts = hosts_of(two(), STEP)
    assert hosts == Hosts(count=2, index=1, address="gpu07", port=23_102, name="100-2-0")
    assert not hosts.is_first
    assert hosts_of(two(), {**STEP, "SLURM_RESTART_COUNT": "3"}).name == "100-2-3"  # type: ignore[union-attr]


def test_two_steps_of_a_job_meet_at_different_ports() -> None:
    ports = {
        hosts_of(two(), {**STEP, "SLURM_STEP_ID": str(step)}).port  # type: ignore[union-attr]
        for step in range(20)
    }
    assert len(ports) == 20


def test_without_slurm_the_config_gives_them() -> None:
    hosts = hosts_of(two(rendezvous="first:29500", node_rank=0), {})
    assert hosts == Hosts(count=2, index=0, address="first", port=29_500, name="first-29500")
    assert hosts.is_first


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({"SLURM_STEP_NUM_NODES": None}, "no task of a Slurm step", id="no step"),
        pytest.param({"SLURM_STEP_NUM_NODES": "1"}, "a step of 1 nodes", id="one node"),
        pytest.param({"SLURM_STEP_NUM_TASKS": "8"}, "2 nodes and 8 tasks", id="a task per GPU"),
        pytest.param({"SLURM_NODEID": None}, "no task of a Slurm step", id="no number"),
    ],
)
def test_another_number_of_hosts_is_refused(changes: dict[str, Any], found: str) -> None:
    given = {key: value for key, value in {**STEP, **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=found) as caught:
        hosts_of(two(), given)
    assert "srun --nodes=2 --ntasks-per-node=1" in str(caught.value)


def test_a_host_that_does_not_know_its_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"execution\.node_rank: not given"):
        hosts_of(two(rendezvous="first:29500"), {})


@pytest.mark.parametrize(
    ("values", "where"),
    [
        pytest.param({"nodes": 3}, "execution.nodes: the ranks cannot be shared", id="three"),
        pytest.param({"nodes": 2, "dp": 1}, "execution.nodes: the ranks cannot", id="one rank"),
        pytest.param(
            {"rendezvous": "first"}, "execution.rendezvous: not the address", id="no port"
        ),
        pytest.param({"rendezvous": "first:70000"}, "execution.rendezvous", id="high port"),
        pytest.param({"rendezvous": ":29500"}, "execution.rendezvous", id="no host"),
        pytest.param({"node_rank": 2}, "execution.node_rank: no number of a host", id="third"),
        pytest.param({"node_rank": -1}, "execution.node_rank", id="negative"),
    ],
)
def test_hosts_that_contradict_the_ranks_are_refused(values: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        two(**values)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "first"),
    [
        ("hn1", "hn1"),
        ("hn[1-2]", "hn1"),
        ("gpu[007-012,020]", "gpu007"),
        ("rack[3,5]n[10-11],login", "rack3n10"),
        ("a,b[1-2]", "a"),
        ("n[1-2]-ib", "n1-ib"),
    ],
)
def test_first_host_of_a_list(listed: str, first: str) -> None:
    assert first_host(listed) == first


def test_ranks_of_one_host() -> None:
    assert local_ranks(two(dp=4, tp=2)) == 4
