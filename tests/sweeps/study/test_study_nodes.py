"""A study whose launcher gives its runs another number of hosts than they use is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.launchers.nodes import node_problems
from tests.conftest import SHORT_SOURCES, TINY, Ablate

SLURM = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"}
SLOTS = {"_target_": "hydra_plugins.slots_launcher.launcher.SlotsLauncher"}


@pytest.mark.parametrize(
    ("execution", "launcher", "where"),
    [
        ({"nodes": 1}, {**SLURM, "nodes": 2}, ["hydra.launcher.nodes"]),
        ({"nodes": 2}, {**SLURM, "nodes": 1}, ["hydra.launcher.nodes"]),
        ({"nodes": 2}, SLURM, ["hydra.launcher.nodes"]),
        ({"nodes": 2}, {**SLURM, "nodes": 2, "tasks_per_node": 8}, ["hydra.launcher.tasks_per_node"]),
        ({"nodes": 2}, SLOTS, ["execution.nodes"]),
        ({"nodes": 1, "rendezvous": "a:1"}, SLOTS, ["execution.rendezvous"]),
        ({"nodes": 2}, {**SLURM, "nodes": 2}, []),
        ({"nodes": 1}, {**SLURM, "nodes": 1}, []),
        ({}, SLOTS, []),
    ],
)  # fmt: skip
def test_launcher_and_hosts_have_to_agree(
    execution: dict[str, Any], launcher: dict[str, Any], where: list[str]
) -> None:
    found = node_problems({"execution": execution}, launcher)
    assert [problem.where for problem in found] == where


def test_another_application_is_left_alone() -> None:
    assert not list(node_problems({"peak_lr": 1}, {**SLURM, "nodes": 2}))


STUDY = ("run", "-m", *TINY, *SHORT_SOURCES, "study=far", "execution.dp=4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ("hydra/launcher=slurm_node", "hydra.launcher.nodes=2"),
            "hydra.launcher.nodes: not the number of hosts that a run uses; found: 2; allowed: 1",
            id="nodes that no run uses",
        ),
        pytest.param(
            ("execution.nodes=2",),
            "execution.nodes: this launcher gives a run one host; found: 2",
            id="slots",
        ),
        pytest.param(
            ("hydra/launcher=slurm_node", "execution.nodes=1,2"),
            "execution.nodes=2: hydra.launcher.nodes: not the number of hosts",
            id="swept",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_launcher_that_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ablate: Ablate,
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ablate(*STUDY, "search=none", *words)
    assert answer.code == 2
    assert said in answer.err
    assert "hydra/launcher=slurm_nodes" in answer.err
    assert not list(tmp_path.glob("runs/far/*/manifest.json"))


def test_the_launcher_of_several_nodes_takes_as_many_as_a_run_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        "sinfo": "#!/bin/sh\nprintf 'cpu\\n'\n",
        "sbatch": '#!/bin/sh\ncp "$2" asked.sh\necho no >&2\nexit 1\n',
    }.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    answer = ablate(*STUDY, "search=none", "hydra/launcher=slurm_nodes", "execution.nodes=2")
    assert "the cluster refuses a job" in answer.err
    asked = (tmp_path / "asked.sh").read_text()
    assert "#SBATCH --nodes=2" in asked
    assert "#SBATCH --ntasks-per-node=1" in asked
