"""Emitted chains equal their golden files and contain the recipe's numbers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from ablations.config.schema import conf_dir
from sweeps.nanotron_files import check, handover_problems, load_yaml, oddities, read, text_of
from sweeps.nanotron_files.model_sections import LlamaModel
from sweeps.nanotron_files.recorded_schema import Branch, recorded
from sweeps.nanotron_files.semantics import folders_of
from sweeps.promotion.full_run import chain_files, chain_run
from sweeps.promotion.promote import promote
from tests.sweeps.promotion.conftest import FULL, MadeStudy, composed

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion"
CHAIN = sorted((GOLDEN / "chain_smollm2_1b7").glob("*.yaml"))
SCRIPTS = sorted((GOLDEN / "launch").iterdir())


@cache
def regenerate() -> Any:
    """Return the script that makes the golden files."""
    spec = importlib.util.spec_from_file_location("regenerate", GOLDEN / "regenerate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def made() -> dict[str, str]:
    """Return the files that the code makes now."""
    files: dict[str, str] = regenerate().files()
    return files


GOLDEN_FILES = sorted(
    str(path.relative_to(GOLDEN))
    for path in GOLDEN.rglob("*")
    if path.is_file() and path.name != "regenerate.py" and "published" not in path.parts
)


def test_every_golden_file_is_still_made() -> None:
    assert sorted(made()) == [name for name in GOLDEN_FILES if "__pycache__" not in name]


@pytest.mark.parametrize("name", [name for name in GOLDEN_FILES if "__pycache__" not in name])
def test_what_is_emitted_equals_its_golden_file(name: str) -> None:
    assert made()[name] == (GOLDEN / name).read_text()


def test_the_chain_of_the_1b7_has_the_recipes_steps() -> None:
    files = [read(path) for path in CHAIN]
    last = files[-1]
    assert [round(steps / 1e6, 3) for steps in last.stage_steps()] == [2.861, 0.954, 0.954, 0.477]
    assert last.tokens_per_step == 2_097_152
    rate = last.optimizer.learning_rate_scheduler
    assert rate.lr_decay_steps is not None
    assert rate.lr_decay_steps / last.tokens.train_steps == pytest.approx(0.1, abs=1e-6)
    assert rate.lr_decay_starting_step == last.tokens.train_steps - rate.lr_decay_steps
    assert (rate.learning_rate, rate.lr_warmup_steps, rate.min_decay_lr) == (5e-4, 2000, 0.0)


def test_file_k_lists_k_stages_and_starts_where_the_file_before_ends() -> None:
    files = [read(path) for path in CHAIN]
    assert [len(file.data_stages) for file in files] == [1, 2, 3, 4]
    assert handover_problems(files) == []
    assert files[0].checkpoints.resume_checkpoint_path is None
    for before, after in pairwise(files):
        assert after.checkpoints.load_lr_scheduler
        assert after.checkpoints.load_optimizer
        assert after.data_stages[-1].start_training_step == before.tokens.train_steps + 1


@pytest.mark.parametrize("path", CHAIN, ids=lambda path: path.stem)
def test_every_emitted_file_loads_and_weights_sum_to_one(path: Path) -> None:
    assert check(load_yaml(path.read_text())) == []
    file = read(path)
    for stage in file.data_stages:
        assert sum(folders_of(stage).values()) == pytest.approx(1.0, abs=1e-9)
    # A file of a chain trains its last stage alone; nothing else about it is odd.
    assert {oddity.kind for oddity in oddities(file)} <= {"last_stage_only", "decay_end"}


def test_the_context_extension_is_a_new_run() -> None:
    file = read(GOLDEN / "context_8k.yaml")
    config = file.model.model_config
    assert isinstance(config, LlamaModel)
    assert (config.rope_theta, config.max_position_embeddings) == (130_000.0, 8192)
    assert file.tokens.sequence_length == 8192
    assert file.tokens_per_step == 2_097_152
    assert file.tokens.train_steps == round(75e9 / 2_097_152)
    assert file.checkpoints.load_lr_scheduler is False
    assert file.checkpoints.load_optimizer is True
    step = int(str(file.checkpoints.resume_checkpoint_path).rsplit("/", 1)[1])
    fourth = read(CHAIN[-1])
    assert step % fourth.checkpoints.checkpoint_interval == 0  # it is saved
    left = (fourth.tokens.train_steps - step) * fourth.tokens_per_step
    assert 75e9 <= left < 75e9 + 2000 * fourth.tokens_per_step


@pytest.mark.parametrize(
    ("dtype", "kernel"), [("float32", "sdpa"), ("bfloat16", "flash_attention_2")]
)
@pytest.mark.parametrize("branch", ["main", "smollm3"])
def test_the_demos_chain_asks_for_a_kernel_that_its_dtype_has(
    dtype: str, kernel: str, branch: Branch
) -> None:
    config, spec = regenerate().full(
        "demo_full", f"training.dtype={dtype}", f"promotion.nanotron={branch}"
    )
    assert spec.nanotron == branch
    run = chain_run(config, spec.full, "demo", spec.nanotron)
    for file in chain_files(run).values():
        assert file.model.dtype == dtype
        assert isinstance(file.model.model_config, LlamaModel)
        assert file.model.model_config._attn_implementation == kernel
        assert "attention_dtype" not in {oddity.kind for oddity in oddities(file)}
        text = text_of(file, branch=branch)
        assert text.startswith(f"# Checked against huggingface/nanotron {branch}, commit ")
        assert check(load_yaml(text), branch) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)


def test_a_stage_that_was_killed_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    for name in ("launch", "nanotron", "bin"):
        (tmp_path / name).mkdir()
    shutil.copy(GOLDEN / "launch" / "stage.sh", tmp_path / "launch")
    for path in CHAIN:
        shutil.copy(path, tmp_path / "nanotron")
    torchrun = tmp_path / "bin" / "torchrun"
    torchrun.write_text('#!/usr/bin/env bash\necho "${@: -1}"\n')
    torchrun.chmod(0o755)

    def train(stage: int) -> str:
        done = subprocess.run(
            ["bash", "launch/stage.sh", str(stage)],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert train(2).endswith("nanotron/2_stable_math.yaml")  # nothing of stage 2 is there yet
    folder = tmp_path / "checkpoints" / "smollm2_1b7" / "2_stable_math"
    folder.mkdir(parents=True)
    (folder / "latest.txt").write_text("3000000")
    resumed = read(tmp_path / train(2))
    assert resumed.checkpoints.resume_checkpoint_path == "checkpoints/smollm2_1b7/2_stable_math"
    assert resumed.data_stages == read(CHAIN[1]).data_stages
    (folder / "latest.txt").write_text("3814697")
    assert "nothing to do" in train(2)


@pytest.mark.parametrize("branch", ["main", "smollm3"])
def test_a_promotion_names_the_commit_and_resolves_nothing_of_others(
    branch: Branch, study: MadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRANGE_TOKEN", "secret-of-mine")
    asked = f"promotion.nanotron={branch}"
    values = composed(*FULL, asked, config="promote")
    values.pop("compare")
    values["source"]["synthetic_facts"]["note"] = "${oc.env:STRANGE_TOKEN}"
    promoted = promote(values)
    (path,) = (promoted.folder / "nanotron").glob("*.yaml")
    assert f"# Checked against huggingface/{recorded(branch)}." in path.read_text()
    assert check(load_yaml(path.read_text()), branch) == []
    GlobalHydra.instance().clear()
    searched = f"hydra.searchpath=[file://{promoted.folder / 'conf'}]"
    with initialize_config_dir(str(conf_dir())):
        found = compose("run", overrides=[searched, "experiment=promoted"])
    plain = OmegaConf.to_container(found, resolve=True)
    assert isinstance(plain, dict)
    assert plain["source"]["synthetic_facts"]["note"] == "${oc.env:STRANGE_TOKEN}"
