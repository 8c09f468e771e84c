"""Names and values from configs are never executed: scripts and commands quote or refuse them."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations.data.executors import SlurmSpec
from ablations.errors import UserError
from ablations.mixture.specs import LearningRateSpec
from ablations.record.identity import folder_problem
from ablations.sbatch import job_word
from ablations.terminal import override_word, runs_dir_words
from sweeps.promotion.launch import StageLaunch, scripts
from sweeps.promotion.promote import promote
from sweeps.promotion.specs import ClusterSpec, FullSpec
from tests.conftest import Ablate
from tests.sweeps.promotion.conftest import FULL, MadeStudy, composed

HOSTILE = (
    "$(touch ran)",
    "`touch ran`",
    "a; touch ran",
    "a\ntouch ran",
    "a && touch ran",
    "'; touch ran; '",
    '"; touch ran; "',
    "a | touch ran",
    "../ran",
    "-rf",
    "a b",
    "x" * 101,
    "",
    ".",
)
NAMES = ("a", "demo_full", "SmolLM2-1.7B", "_x", "x" * 100, "0.5")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_letters_digits_dots_and_dashes(name: str) -> None:
    assert folder_problem("study", name) is not None
    with pytest.raises(UserError, match=r"promotion\.full\.name: not a folder's name"):
        FullSpec(name=name, total_tokens=1e9, lr=LearningRateSpec(), tokenizer="t")
    with pytest.raises(UserError, match="not a folder's name"):
        scripts(name, [StageLaunch(file="1.yaml", checkpoints="c", last_step=1)], ClusterSpec())


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_names_are_accepted(name: str) -> None:
    assert folder_problem("study", name) is None


@pytest.mark.parametrize("name", HOSTILE[:8])
def test_a_hostile_study_is_refused_before_anything_is_read(study: MadeStudy, name: str) -> None:
    values = composed(*FULL, config="promote")
    values.pop("compare")
    with pytest.raises(UserError, match="not a folder's name"):
        promote({**values, "study": name})
    assert not Path("promotions").exists()


def test_a_promotions_whole_name_must_fit(study: MadeStudy) -> None:
    values = composed(*FULL, config="promote")
    values.pop("compare")
    values["promotion"]["full"]["name"] = "n" * 95
    with pytest.raises(UserError, match="promotion: not a folder's name"):
        promote(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("partition", value)
            for value in ("gpu\n#SBATCH --wrap=touch", "a b", "", "$(x)", "-x", ",")
        ),
        *(("time", value) for value in ("72:00:00\n#SBATCH --uid=0", "soon", "", "1:2:3", "$(x)")),
        *(("checkpoints", value) for value in ("", "a\nb", "a\x00b")),
        ("nanotron", "a\nb"),
        ("folders", "{source.__class__}"),
        ("folders", "{0}"),
        ("folders", "{study}/{source}"),
        ("folders", "{"),
        *((name, 0) for name in ("nodes", "gpus_per_node", "cpus_per_task", "tp", "pp")),
        ("micro_batch_size", 0),
        ("checkpoint_interval_steps", -1),
    ],
)
def test_values_of_the_cluster_are_checked(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"promotion\.full\.cluster\.{field}: "):
        replace(ClusterSpec(), **{field: value})


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"partition": "cpu\n#SBATCH --wrap=x"}, "slurm.partition"),
        ({"time": "1:00:00\n"}, "slurm.time"),
        ({"sbatch_args": {"account": "us\n#SBATCH --uid=0"}}, "slurm.sbatch_args.account"),
        ({"sbatch_args": {"a b": "x"}}, "slurm.sbatch_args.a b"),
    ],
)
def test_the_jobs_of_prepare_check_their_lines_too(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError, match=re.escape(where)):
        SlurmSpec(**{"partition": "cpu", **changes})
    assert job_word("$(touch ran)\nx") == "__touch_ran__x"


@pytest.mark.parametrize("time", ["30", "30:00", "72:00:00", "3-12", "3-12:30", "10-00:00:00"])
def test_slurms_own_forms_of_a_time_are_accepted(time: str) -> None:
    assert replace(ClusterSpec(), time=time, partition="gpu,a100-80.x").time == time


@pytest.mark.parametrize(
    "path",
    ["$(touch ran)", "`touch ran`", "a b'c\"d", "x|e;touch ran", "s&m\\n", "$HOME/x", "a: b # c"],
)
def test_hostile_paths_stay_words_in_the_scripts(tmp_path: Path, path: str) -> None:
    for name in ("launch", "nanotron", "bin"):
        (tmp_path / name).mkdir()
    checkpoints = f"{path}/full/1_main"
    stage = StageLaunch(file="1_main.yaml", checkpoints=checkpoints, last_step=10)
    cluster = ClusterSpec(checkpoints=path, nanotron=path)
    for name, text in scripts("full", [stage], cluster).items():
        (tmp_path / "launch" / name).write_text(text)
        subprocess.run(["bash", "-n", str(tmp_path / "launch" / name)], check=True)
    (tmp_path / "nanotron" / "1_main.yaml").write_text(
        "checkpoints:\n  resume_checkpoint_path: null\n  load_lr_scheduler: false\n"
    )
    for name, script in (("torchrun", 'printf "%s\\n" "$@"'), ("sbatch", "echo 7")):
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    folder = tmp_path / checkpoints
    folder.mkdir(parents=True)
    (folder / "latest.txt").write_text("5")

    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            ["bash", *arguments],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    words = run("launch/stage.sh", "1")
    assert words[-3] == f"{path}/run_train.py"
    resumed = yaml.safe_load((tmp_path / words[-1]).read_text())
    assert resumed["checkpoints"]["resume_checkpoint_path"] == checkpoints
    assert run("launch/submit.sh") == ["stage 1: job 7"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [*HOSTILE[:8], "a'b", "null", "1e3", "a,b", "ünï"])
def test_a_printed_override_is_one_word_that_means_its_value(tmp_path: Path, value: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    done = subprocess.run(
        ["bash", "-c", f"printf '%s' {override_word('study', value)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
    if "\n" not in value:  # Hydra's grammar has no line breaks
        parsed = OverridesParser.create().parse_override(done.stdout)
        assert parsed.value() == value


def test_a_runs_folder_is_one_word_too() -> None:
    assert runs_dir_words(Path("runs")) == ""
    assert shlex.split(runs_dir_words(Path("$(touch ran)"))) == ["runs_dir='$(touch ran)'"]


def test_the_next_commands_of_a_promotion_are_quoted(study: MadeStudy, ablate: Ablate) -> None:
    answer = ablate("promote", *FULL, "promotion.out='$(touch ran)'")
    assert answer.code == 0, answer.err
    lines = [line.strip() for line in answer.out.splitlines() if "ablate run" in line]
    assert len(lines) == 2
    for line in lines:
        command = line.removeprefix("next: ").split("  #")[0]
        assert command.startswith("ablate run --config-dir '$(touch ran)/")
        subprocess.run(["bash", "-c", f"ablate() {{ :; }}; {command}"], check=True)
    assert not Path("ran").exists()
