"""Configs for TRL and alignment-handbook: read by TRL's own parser, with the values of the study."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations import compose
from ablations.config.schema import dump
from ablations.data.catalogue import FilesOrigin
from ablations.mixture.schedule import LearningRate
from sweeps.promotion.post_stages import PostStage, recommended
from sweeps.promotion.specs import ClusterSpec
from sweeps.promotion.trl_files import (
    _scheduler,
    handbook_config,
    post_script,
    trl_config,
    write_stage_files,
)
from sweeps.verdict.verdict_record import read_verdict
from tests.oracles.chats import prepare_two_kinds, write_base_model

ROOT = Path(__file__).parents[3]
CLUSTER = ClusterSpec(nodes=1, gpus_per_node=8, micro_batch_size=2)
SHIPPED = ("demo_sft", "demo_dpo", "smoltalk_mixture", "smol_smoltalk", "ultrafeedback_rounds")
OF_THE_HANDBOOK = ("dataset_mixture", "chat_template", "torch_dtype")
"""Keys that its scripts add to those of TRL (src/alignment/configs.py at 925acdf; TRL 0.19)."""


def stage(experiment: str, *changes: str) -> PostStage:
    """A stage as a promotion freezes it from a study of a shipped experiment."""
    config = compose(f"experiment={experiment}", *changes)
    return PostStage(
        name=config.method.kind,
        study=experiment,
        candidate=None,  # type: ignore[arg-type]  # not a part of the files
        sentence="",
        config=config,
        values=dump(config),
    )


def parsed(kind: str, path: Path, *more: str) -> tuple[Any, ...]:
    """Return what TRL's own script makes of a config; unknown keys are refused."""
    from trl.scripts import dpo, sft

    parser = {"sft": sft, "dpo": dpo}[kind].make_parser()
    made: tuple[Any, ...] = parser.parse_args_and_config(
        ["--config", str(path), "--use_cpu", "true", "--bf16", "false", *more],
        fail_with_unknown_args=True,
    )
    return made


@pytest.mark.parametrize("experiment", SHIPPED)
def test_trl_reads_each_config_with_the_values_of_the_study(
    experiment: str, tmp_path: Path
) -> None:
    one = stage(experiment)
    config = one.config
    path = tmp_path / "1.yaml"
    path.write_text(trl_config(one, "promoted", "checkpoints/promoted/export", CLUSTER))
    kind = config.method.kind
    _, training, model, data = parsed(kind, path)
    assert model.model_name_or_path == "checkpoints/promoted/export"
    assert training.learning_rate == config.training.peak_lr
    assert training.max_length == config.training.sequence_length
    assert training.max_steps == config.build_schedule().total_steps
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    assert batch * CLUSTER.gpus == config.training.batch_size
    weights = {name: w for name, w in config.mixture.weights.items() if w > 0}
    assert [one.fraction for one in data.datasets] == pytest.approx(
        list(weights.values()), abs=2e-3
    )
    assert sum(one.fraction for one in data.datasets) == pytest.approx(1, abs=1e-5)
    if kind == "sft":
        assert training.assistant_only_loss == (config.method.loss == "answers")
        assert training.eos_token is None  # the tokenizer's folder brings it
        assert training.chat_template_path == "trl/tokenizer"
        assert not training.packing
    else:
        assert (training.beta, training.loss_type) == (config.method.beta, ["sigmoid"])


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("experiment", SHIPPED)
def test_the_handbook_s_form_names_nothing_that_its_parser_does_not_know(
    experiment: str, tmp_path: Path
) -> None:
    one = stage(experiment)
    values = yaml.safe_load(handbook_config(one, "promoted", "model", CLUSTER))
    own = {key: values.pop(key) for key in OF_THE_HANDBOOK}
    path = tmp_path / "1.yaml"
    path.write_text(yaml.safe_dump(values))
    assert parsed(one.config.method.kind, path)[1].max_steps > 0
    datasets = own["dataset_mixture"]["datasets"]
    assert len({tuple(sorted(data["columns"])) for data in datasets}) == 1
    assert all(set(data) == {"id", "config", "split", "columns", "weight"} for data in datasets)
    assert all(0 < data["weight"] <= 1 for data in datasets)
    # It reads int(rows * weight) of each source in each epoch: together the mixture's shares.
    rows = {}
    for data, (name, spec) in zip(datasets, _used(one), strict=True):
        assert spec.rows is not None
        rows[name] = data["weight"] * float(spec.rows.available or 0)
    shares = {name: count / sum(rows.values()) for name, count in rows.items()}
    asked = {name: w for name, w in one.config.mixture.weights.items() if w > 0}
    assert shares == pytest.approx(asked, abs=5e-3)


def _used(one: PostStage) -> list[tuple[str, Any]]:
    weights = one.config.mixture.weights
    return [(name, one.config.source[name]) for name in weights if weights[name] > 0]


def test_what_ultrafeedback_is_read_by_is_what_smollm2_read() -> None:
    values = yaml.safe_load(handbook_config(stage("ultrafeedback_rounds"), "p", "m", CLUSTER))
    (data,) = values["dataset_mixture"]["datasets"]
    assert data["id"] == "HuggingFaceH4/ultrafeedback_binarized"
    assert data["split"] == "train_prefs"
    assert data["columns"] == ["chosen", "rejected"]
    assert (values["beta"], values["learning_rate"], values["max_length"]) == (0.5, 1e-6, 1024)


@pytest.mark.parametrize(
    ("outcome", "baseline", "asked", "found"),
    [
        ("winner", "chat10", None, "chat50"),
        ("tie", "chat10", None, "chat10"),
        ("keep-baseline", "chat10", None, "chat10"),
        ("tie", None, None, "chat50"),
        ("tie", "chat10", "chat90", "chat90"),
        ("winner", "chat10", "trial-0002", "chat90"),
    ],
)
def test_a_stage_takes_a_winner_or_what_its_verdict_keeps(
    outcome: Any, baseline: str | None, asked: str | None, found: str
) -> None:
    verdict = read_verdict(ROOT / "tests/analysis/fixtures/post/demo_sft_ratio")
    made = replace(verdict, outcome=outcome, baseline=baseline)
    assert recommended(made, asked).name == found


def rate(**values: Any) -> LearningRate:
    return LearningRate(**{"peak": 1e-3, "warmup_steps": 10, "total_steps": 100, **values})


@pytest.mark.filterwarnings("ignore:Both num_training_steps and num_stable_steps")
@pytest.mark.parametrize(
    ("made", "name"),
    [
        (rate(decay_steps=90, shape="cosine"), "cosine"),
        (rate(decay_steps=90), "linear"),
        (rate(decay_steps=0), "constant_with_warmup"),
        (rate(decay_steps=20), "warmup_stable_decay"),
        (rate(decay_steps=20, shape="1-sqrt"), "warmup_stable_decay"),
        (rate(decay_steps=90, shape="cosine", min_ratio=0.1), "warmup_stable_decay"),
        (rate(decay_steps=20, tail_steps=30), "warmup_stable_decay"),
    ],
)
def test_the_learning_rate_of_transformers_is_that_of_the_study(
    made: LearningRate, name: str
) -> None:
    import torch
    from transformers.optimization import get_scheduler

    values = _scheduler(made)
    assert values["lr_scheduler_type"] == name
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(
        values["lr_scheduler_type"],
        optimiser,
        num_warmup_steps=made.warmup_steps,
        num_training_steps=made.total_steps,
        scheduler_specific_kwargs=values.get("lr_scheduler_kwargs", {}),
    )
    (theirs,) = scheduler.lr_lambdas
    # transformers' step k is the platform's step k - 1, and its warm-up begins at 0.
    difference = max(abs(theirs(k) - made.factor(k - 1)) for k in range(10, made.total_steps))
    assert difference < 0.02


def test_files_of_rows_are_loaded_by_trl_as_they_are(tmp_path: Path) -> None:
    one = stage("smol_smoltalk")
    origin = FilesOrigin(kind="files", paths=("/rows/a.jsonl",))
    source = {name: replace(spec, origin=origin) for name, spec in one.config.source.items()}
    local = replace(one, config=replace(one.config, source=source))
    text = trl_config(local, "p", "m", CLUSTER)
    (data,) = yaml.safe_load(text)["datasets"]
    assert (data["path"], data["data_files"]) == ("json", ["/rows/a.jsonl"])
    assert "Not a data set of the hub" not in text
    assert "Not a data set of the hub" in handbook_config(local, "p", "m", CLUSTER)


@pytest.mark.slow
def test_trl_s_script_trains_with_a_config_as_it_is_written(tmp_path: Path) -> None:
    prepare_two_kinds(tmp_path / "data")
    base = write_base_model(tmp_path / "base")
    for file in (tmp_path / "data/tokenizers/tiny").glob("*.json"):
        shutil.copy(file, base / file.name)
    one = stage("smol_smoltalk", f"data_dir={tmp_path}/data", "tokenizer.name=tiny_chat")
    origin = FilesOrigin(kind="files", paths=(str(tmp_path / "data/raw/short.jsonl"),))
    source = {name: replace(spec, origin=origin) for name, spec in one.config.source.items()}
    local = replace(one, config=replace(one.config, source=source))
    (tmp_path / "made/launch").mkdir(parents=True)
    write_stage_files(tmp_path / "made", {"name": "p"}, [local], CLUSTER)
    changes = {
        "model_name_or_path": base,
        "chat_template_path": tmp_path / "made/trl/tokenizer",
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "warmup_steps": 0,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "dtype": "float32",
        "use_cpu": "true",
        "bf16": "false",
        "max_length": 64,
    }
    words = [word for key, value in changes.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-W", "ignore", "-m", "trl.scripts.sft"]
    done = subprocess.run(
        [*command, "--config", str(tmp_path / "made/trl/1_sft.yaml"), *words],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads((tmp_path / "out/config.json").read_text())
    tokenizer = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert made["vocab_size"] >= 302
    assert tokenizer["eos_token"] == "<|im_end|>"


def test_rounds_and_shares_of_tokens_are_said_where_a_config_cannot_state_them() -> None:
    text = trl_config(stage("ultrafeedback_rounds", "method.rounds=3"), "p", "m", CLUSTER)
    assert "run this file once for each" in text
    text = trl_config(stage("demo_sft", "method.unit=tokens"), "p", "m", CLUSTER)
    assert "shares of tokens" in text


def test_the_script_runs_the_stages_in_order_in_either_form(tmp_path: Path) -> None:
    stages = [stage("demo_sft"), stage("demo_dpo")]
    (tmp_path / "launch").mkdir()
    write_stage_files(tmp_path, {"name": "demo"}, stages, CLUSTER)
    for form in ("trl", "handbook"):
        first = yaml.safe_load((tmp_path / form / "1_sft.yaml").read_text())
        second = yaml.safe_load((tmp_path / form / "2_dpo.yaml").read_text())
        assert first["model_name_or_path"] == "checkpoints/demo/export"
        assert second["model_name_or_path"] == first["output_dir"] == "checkpoints/demo/sft"
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "accelerate").write_text('#!/bin/sh\necho "$@"\n')
    (bin_dir / "accelerate").chmod(0o755)
    for handbook, script in (("", "--module trl.scripts.sft"), ("/hb", "/hb/scripts/sft.py")):
        done = subprocess.run(
            ["bash", str(tmp_path / "launch/post.sh")],
            env={"PATH": f"{bin_dir}:/usr/bin:/bin", "HANDBOOK": handbook},
            capture_output=True,
            text=True,
            check=True,
        )
        first_line, second_line = done.stdout.splitlines()
        assert "--num_processes 8" in first_line
        assert script in first_line
        assert "1_sft.yaml" in first_line
        assert "2_dpo.yaml" in second_line
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(tmp_path / "launch/post.sh")], check=True)
    assert post_script("a", [("1_sft.yaml", "sft")], CLUSTER).count("\nstage sft") == 1
