"""Options that were removed: a command is told why, and a record that holds them is still read."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.config.removed import removed_option, without_removed, without_removed_overrides
from ablations.config.schema import load
from ablations.execute import execute
from ablations.files import read_json, write_sealed
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.job_overrides import identity
from sweeps.study.trial import TrialSpec
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.test_conf import composed

GRAPH = "execution.cuda_graph: was removed: "
GROUP = "hydra.launcher.together: was removed: "
MANY = ("-m", "search=none", "seed=0,1")
STUDY = (*TINY, *SHORT_SOURCES, "study=old", "hydra.launcher.slots=1")
SWEEP = ("run", "-m", *STUDY, "training.peak_lr=1e-3,2e-3")


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_packing_is_refused_with_its_reason(workspace: Path, ablate: Ablate, plus: str) -> None:
    answer = ablate("plan", "method=sft", f"{plus}method.packing=true")
    assert answer.code == 2, answer.err
    assert "method.packing: is not offered: TRL's packing reorders" in answer.err
    assert "docs/post_training.md" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "execution.cuda_graph=true"), GRAPH),
        (("run", "+execution.cuda_graph=true"), GRAPH),
        (("plan", "++execution.cuda_graph=true"), GRAPH),
        (("run", *MANY, "execution.cuda_graph=true"), GRAPH),
        (("run", *MANY, "+execution.cuda_graph=true"), GRAPH),
        (("run", *MANY, "execution.cuda_graph=true,false"), GRAPH),
        (("run", *MANY, "+execution.cuda_graph=true,false"), GRAPH),
        (("run", "execution=gpu_small"), "execution=gpu_small: was removed: "),
        (("run", *MANY, "execution=gpu_small"), "execution=gpu_small: was removed: "),
        (("run", "hydra.launcher.together=8"), GROUP),
        (("run", "+hydra.launcher.together=8"), GROUP),
        (("run", *MANY, "hydra.launcher.together=8"), GROUP),
        (("run", *MANY, "+hydra.launcher.together=8"), GROUP),
        (("run", *MANY, "++hydra.launcher.together=8"), GROUP),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_asks_for_one_gets_the_reason(
    workspace: Path, ablate: Ablate, words: tuple[str, ...], said: str
) -> None:
    answer = ablate(*words)
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert "docs/gpu.md" in answer.err
    assert answer.err.startswith("error: 1 problem\n")
    assert "Traceback" not in answer.err
    assert not list(workspace.glob("runs/*/trial-*"))


@pytest.mark.parametrize(
    "words",
    [
        ("prepare", "workers=4"),
        ("prepare", "+workers=4"),
        ("plan", "force=true"),
        ("run", "contamination=false"),
        ("prepare", "mirror=folder"),
        ("prepare", "slurm.partition=cpu"),
    ],
    ids=" ".join,
)
def test_an_option_that_has_moved_is_refused_with_its_new_name(
    ablate: Ablate, words: tuple[str, ...]
) -> None:
    answer = ablate(*words)
    key = words[1].lstrip("+").split("=")[0].split(".")[0]
    assert answer.code == 2, answer.err
    assert f"{key}: has moved; write prepare.{key}" in answer.err


def test_moved_options_of_a_recorded_trial_are_read() -> None:
    old = ["contamination=false", "seed=1", "slurm.partition=cpu", "evaluation.mirror=x"]
    assert without_removed_overrides(old) == [
        "prepare.contamination=false",
        "seed=1",
        "prepare.slurm.partition=cpu",
        "evaluation.mirror=x",
    ]


@pytest.mark.parametrize("many", [(), MANY], ids=["one run", "a study"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("execution: {cuda_graph: true}", GRAPH),
        ("hydra: {launcher: {together: 8}}", GROUP),
        ("defaults: [{override /execution: gpu_small}]", "execution=gpu_small: was removed: "),
    ],
)
def test_so_is_a_config_file(
    workspace: Path, ablate: Ablate, many: tuple[str, ...], content: str, said: str
) -> None:
    own = workspace / "own/experiment"
    own.mkdir(parents=True)
    (own / "x.yaml").write_text(f"# @package _global_\n{content}\n")
    answer = ablate("run", "--config-dir", "own", "experiment=x", *many)
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert answer.err.startswith("error: 1 problem\n")


@pytest.mark.parametrize("given", [True, False])
def test_a_recorded_config_is_read_without(given: bool) -> None:
    plain = composed()
    old = {**plain, "execution": {**plain["execution"], "cuda_graph": given}}
    assert load(old) == load(plain)
    assert without_removed(plain) == plain
    assert without_removed({"execution": None}) == {"execution": None}


def test_a_config_in_which_it_is_off_is_planned(workspace: Path, ablate: Ablate) -> None:
    (workspace / "own/execution").mkdir(parents=True)
    (workspace / "own/execution/mine.yaml").write_text("threads: 1\ncuda_graph: false\n")
    answer = ablate("plan", "--config-dir", "own", "execution=mine")
    assert "cuda_graph" not in answer.err


def test_a_recorded_trial_is_the_one_that_is_asked_for_without() -> None:
    said = ("+execution.cuda_graph=true", "execution=gpu_small", "training.peak_lr=1e-3")
    spec = TrialSpec(number=0, phase="grid", overrides=said)
    assert TrialSpec.from_plain(spec.plain()).overrides == (
        "execution=gpu",
        "training.peak_lr=1e-3",
    )
    assert identity(TrialSpec.from_plain(spec.plain()).overrides) == identity(
        ("execution=gpu", "training.peak_lr=1e-3")
    )


def test_what_was_not_removed_is_no_problem() -> None:
    assert removed_option("execution.compile") is None
    assert removed_option("execution=gpu") is None


@pytest.mark.slow
@pytest.mark.parametrize("asks", [False, True], ids=["off", "its experiment asks for it"])
def test_a_study_that_holds_them_is_listed_judged_reported_and_resumed(
    workspace: Path, asks: bool
) -> None:
    command(workspace, *SWEEP, "seed=0")
    study = workspace / "runs/old"
    records = list_runs(workspace / "runs", "old")
    for record, given in zip(records, ("true", "false"), strict=True):
        make_old(record, given)
    for path in (study / "journal.log", *study.glob("*/trial.json")):
        text = path.read_text()
        assert '"study=old"' in text
        # Older versions wrote no checksums, which would name the change.
        text = re.sub(r',\s*"content_sha256":\s*"[0-9a-f]+"', "", text)
        path.write_text(text.replace('"study=old"', '"study=old", "execution.cuda_graph=true"'))
    (pinned,) = (path for path in (study / "conf").iterdir() if path.is_dir())
    for path in pinned.glob("*/run.yaml"):
        path.write_text(path.read_text().replace("  compile: false", "  cuda_graph: false"))
    if asks:
        path = pinned / "0/experiment/synthetic.yaml"
        path.write_text(f"{path.read_text()}hydra: {{launcher: {{together: 2}}}}\n")
    name = digest_of(pinned)
    pinned.rename(pinned.with_name(name))
    (study / "conf/latest").write_text(name)

    # A run that was killed after it had been trained in part.
    killed = records[0]
    before = killed.result()
    assert before is not None
    for name in ("result.json", "scores.jsonl"):
        (killed.path / name).unlink()
    shutil.rmtree(killed.checkpoints_dir / "8")
    config = {k: v for k, v in killed.manifest.config.items() if k != "stores"}
    again = execute(load({**config, "study": "old", "trial": "trial-0000"}))
    assert again.record.path.resolve() == killed.path.resolve()
    assert {**again.result, "cost": None} == {**before, "cost": None}
    assert "resume" in [event["kind"] for event in killed.events()]

    # The same sweep without the option, with one more seed: the trials are those that were asked for.
    command(workspace, *SWEEP, "seed=0,1")
    ended = {record.name: record.status for record in list_runs(workspace / "runs", "old")}
    assert ended == {f"old/trial-{n:04d}-{seed}": "done" for n in (0, 1) for seed in (0, 1)}
    assert command(workspace, "ls", "study=old").count("done") == 4
    assert "Tie: " in command(workspace, "verdict", "study=old")
    assert "report.html" in command(workspace, "report", "study=old")


def digest_of(pinned: Path) -> str:
    """Return the name that a copy of config files has: 12 hex digits over names, lengths and contents."""
    mark = hashlib.sha256()
    files = {path.relative_to(pinned).as_posix(): path for path in pinned.rglob("*.yaml")}
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        mark.update(f"{name}\0{len(content)}\0".encode() + content)
    return mark.hexdigest()[:12]


def make_old(record: RunRecord, given: str) -> None:
    """Put the removed options into a record, where versions before wrote them."""
    path = record.path / "manifest.json"
    manifest = read_json(path)
    manifest["config"]["execution"]["cuda_graph"] = given == "true"
    write_sealed(path, manifest)
    text = record.path / "config.yaml"
    text.write_text(f"{text.read_text()}execution:\n  cuda_graph: {given}\n")
    taken = {"wall_seconds": 0.5, "cpu_seconds": 0.25, "device": "cpu"}
    record.event("trained_together", step=8, runs=2, **taken)


def command(folder: Path, *arguments: str) -> str:
    """Run a command in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ablations.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
