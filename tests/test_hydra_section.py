"""Hydra's own section of a config: what would call code, set the environment or write a job's script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Ablate

SECRET = "canary-0f9e8d7c6b"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of somebody else's in the working folder, and a secret in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY_TOKEN", SECRET)
    (tmp_path / "stranger.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "conf/experiment").mkdir(parents=True)
    return tmp_path / "conf"


def write(folder: Path, text: str) -> None:
    (folder / "experiment/x.yaml").write_text(f"# @package _global_\n{text}\n")


CODE = {
    "callback": "hydra: {callbacks: {x: {_target_: stranger.f}}}",
    "callback that writes": "hydra: {callbacks: {x: {_target_: shutil.copyfile, "
    "src: stranger.py, dst: ran}}}",
    "environment": "hydra: {job: {env_set: {LD_PRELOAD: x.so}}}",
    "handler": 'hydra: {job_logging: {version: 1, root: {handlers: [x]}, handlers: {x: {"()": stranger.f}}}}',
    "handler of a file": "hydra: {job_logging: {version: 1, root: {handlers: [x]}, handlers: "
    "{x: {class: logging.FileHandler, filename: ran}}}}",
    "handler elsewhere": "hydra: {hydra_logging: {version: 1, root: {handlers: [x]}, "
    'handlers: "${labels.h}"}}\n'
    "labels: {h: {x: {class: stranger.F}}}",
    "stream": "hydra: {job_logging: {version: 1, root: {handlers: [x]}, handlers: "
    "{x: {class: logging.StreamHandler, stream: ext://stranger.f}}}}",
    "launcher": "hydra: {launcher: {_target_: stranger.F}}",
    "sweeper": "hydra: {sweeper: {_target_: stranger.F}}",
    "preload": "hydra: {launcher: {preload: [stranger]}}",
    "environment of a job": "prepare: {slurm: {partition: cpu, env_command: touch ran}}",
}


@pytest.mark.parametrize("text", CODE.values(), ids=CODE)
@pytest.mark.parametrize(
    "words", [["plan"], ["run", "-m", "search=none", "seed=0,1"]], ids=" ".join
)
def test_a_config_file_has_hydra_call_nothing(
    folder: Path, ablate: Ablate, text: str, words: list[str]
) -> None:
    write(folder, text)
    answer = ablate(*words, "--config-dir", str(folder), "experiment=x")
    assert answer.code == 2, answer.out
    assert "Traceback" not in answer.err
    assert any(
        said in answer.err
        for said in (
            "names code",
            "variables of the environment",
            "no config names code",
            "no plugin that is installed",
            "a job would",
        )
    )
    assert sorted(path.name for path in folder.parent.iterdir()) == ["conf", "stranger.py"]


def test_a_file_in_the_place_of_a_launcher_brings_no_lines(folder: Path, ablate: Ablate) -> None:
    (folder / "hydra/launcher").mkdir(parents=True)
    lines = "defaults: [submitit_slurm, _self_]\nsetup: [touch ran]\n"
    for name in ("slots", "mine"):
        (folder / f"hydra/launcher/{name}.yaml").write_text(lines)
    refused = ablate("plan", "--config-dir", str(folder))
    assert refused.code == 2, refused.out
    assert "hydra.launcher.setup: a config file brings what the script" in refused.err
    for words in (["hydra/launcher=mine"], ["hydra/launcher=slurm", "hydra.launcher.setup=[echo]"]):
        assert ablate("plan", "--config-dir", str(folder), *words).code == 0


@pytest.mark.parametrize("key", ["partition", "comment", "exclude"])
def test_a_launchers_value_is_one_line(folder: Path, ablate: Ablate, key: str) -> None:
    write(folder, 'labels: {x: "gpu\\ntouch ran"}')
    words = ["experiment=x", "hydra/launcher=slurm", f"hydra.launcher.{key}=${{labels.x}}"]
    answer = ablate("plan", "--config-dir", str(folder), *words)
    assert answer.code == 2, answer.out
    assert f"hydra.launcher.{key}: not a text of one line" in answer.err


@pytest.mark.parametrize(
    "text",
    [
        'hydra: {run: {dir: "of-${oc.env:CANARY_TOKEN}"}}',
        'hydra: {sweep: {dir: "of-${oc.env:CANARY_TOKEN}"}}',
        'hydra: {output_subdir: "${oc.env:CANARY_TOKEN}"}',
        'study: "${${oc.env:CANARY_TOKEN}}"',
        'study: "${oc.env:${oc.env:CANARY_TOKEN}}"',
        'labels: {x: "${oc.decode:${oc.env:CANARY_TOKEN}}"}',
        'training: {batch_size: "${oc.env:CANARY_TOKEN}"}',
        'defaults: [{override /model: "${oc.env:CANARY_TOKEN}"}]',
    ],
)
@pytest.mark.parametrize("words", [["plan"], ["plan", "--cfg", "job", "--resolve"]], ids=" ".join)
def test_a_secret_is_in_no_message_and_no_folder(
    folder: Path, ablate: Ablate, text: str, words: list[str]
) -> None:
    write(folder, text)
    answer = ablate(*words, "--config-dir", str(folder), "experiment=x")
    assert SECRET not in answer.out + answer.err
    assert answer.code == 2
    assert not [path for path in folder.parent.rglob("*") if SECRET in str(path)]


def test_what_a_user_asks_of_hydra_is_done(folder: Path, ablate: Ablate) -> None:
    words = ["hydra.launcher.slots=2", "hydra/job_logging=stdout", "hydra.run.dir=here"]
    assert ablate("plan", *words).code == 0
    assert ablate("plan", "prepare.slurm.partition=cpu", "prepare.slurm.env_command=true").code == 0
