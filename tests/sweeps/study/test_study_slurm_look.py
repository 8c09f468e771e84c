"""A study on Slurm looks at the queue once before it submits, and names what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import SHORT_SOURCES, TINY, Ablate

STUDY = (
    "run",
    "-m",
    *TINY,
    *SHORT_SOURCES,
    "search=mixture",
    "search.strategy.design_trials=1",
    "mixture.epoch_cap=100",
    "study=far",
    "hydra/launcher=slurm",
)

SINFO = "#!/bin/sh\nprintf 'cpu\\ngpu\\n'\n"
TAKES = "#!/bin/sh\ncp \"$2\" asked.sh\necho 'sbatch: Job 1 to start' >&2\n"
REFUSES = """#!/bin/sh
echo 'sbatch: error: Batch job submission failed: Invalid account or account/partition combination' >&2
exit 1
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of ``PATH``, empty; the process is in a fresh folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def add(folder: Path, **scripts: str) -> None:
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def test_without_a_cluster_a_study_fails_once_and_ls_finds_it(
    commands: Path, tmp_path: Path, ablate: Ablate
) -> None:
    answer = ablate(*STUDY)
    assert answer.code == 2
    assert answer.err.count("\n  - ") == 1
    assert "sinfo is not installed" in answer.err
    assert "hydra/launcher=slots" in answer.err
    assert not list((tmp_path / "runs/far").glob("*/manifest.json"))
    for words in (("ls", "study=far"), ("ls",)):
        listed = ablate(*words)
        assert (listed.code, listed.out.split(":")[0]) == (0, "far")


@pytest.mark.parametrize(
    ("scripts", "more", "said"),
    [
        (
            {
                "sinfo": "#!/bin/sh\necho 'slurm_load_partitions: Unable to contact controller' >&2\nexit 1\n"
            },
            (),
            "Unable to contact controller",
        ),
        (
            {"sinfo": SINFO, "sbatch": TAKES},
            ("+hydra.launcher.partition=gpus",),
            "hydra.launcher.partition: not a partition of this cluster; found: gpus; allowed: cpu, gpu",
        ),
        ({"sinfo": SINFO, "sbatch": REFUSES}, (), "Invalid account or account/partition"),
    ],
    ids=["no controller", "no such partition", "refused"],
)
def test_what_the_queue_refuses_is_said_once(
    commands: Path, ablate: Ablate, scripts: dict[str, str], more: tuple[str, ...], said: str
) -> None:
    add(commands, srun="#!/bin/sh\n", **scripts)
    more = tuple(word.lstrip("+") for word in more)
    answer = ablate(*STUDY, *more)
    assert answer.code == 2
    assert answer.err.count("\n  - ") == 1
    assert said in answer.err


def test_the_test_submission_has_the_launchers_options(commands: Path, tmp_path: Path) -> None:
    from sweeps.launchers.slurm_look import require_slurm

    cp = shutil.which("cp", path="/bin:/usr/bin")
    assert cp is not None
    add(commands, sinfo=SINFO, srun="#!/bin/sh\n", sbatch=TAKES.replace("cp ", f"{cp} "))
    require_slurm(
        {
            "submitit_folder": "ignored",
            "partition": "gpu",
            "timeout_min": 90,
            "gpus_per_node": 2,
            "max_num_timeout": 100,
            "additional_parameters": {"nice": 7},
        }
    )
    script = (tmp_path / "asked.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=2", "--nice=7"):
        assert f"#SBATCH {line}" in script
