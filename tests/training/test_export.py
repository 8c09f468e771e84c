from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock

from ablations.errors import CheckpointError, HeldError
from ablations.evaluation.scoring_process import ScoringJob, _exports, score_here
from ablations.evaluation.specs import EvaluationSpec
from ablations.record.run_record import RunRecord
from ablations.training.export import (
    export_checkpoint,
    read_weights,
    remove_export,
    tidy_exports,
)
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.train_job import TrainJob
from tests.oracles.jobs import TINY, losses_of, make_job, steps_of


@pytest.fixture(scope="module", params=["tied", "not tied"])
def trained(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    stores: dict[str, Path],
) -> TrainJob:
    model = replace(TINY, tie_word_embeddings=request.param == "tied", rope_theta=500.0)
    job = make_job(
        tmp_path_factory.mktemp("trained"), stores, steps=6, model=model, checkpoint_steps=(5,)
    )
    assert NanotronTrainer().train(job).status == "done"
    return job


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_an_exported_model_has_the_loss_that_training_went_on_with(
    trained: TrainJob, tmp_path: Path
) -> None:
    model = load(export_checkpoint(trained.checkpoints_dir / "5", tmp_path / "5", None))
    tokens = torch.from_numpy(list(steps_of(trained))[5])
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
    assert float(loss) == pytest.approx(losses_of(trained)[5], rel=1e-6)


def test_an_exported_config_describes_the_model(trained: TrainJob, tmp_path: Path) -> None:
    folder = export_checkpoint(trained.checkpoints_dir / "6", tmp_path / "6", None)
    config = load(folder).config
    assert config.rope_parameters["rope_theta"] == 500.0
    assert config.max_position_embeddings == 64
    assert config.tie_word_embeddings is trained.model.tie_word_embeddings
    stored = json.loads((folder / "config.json").read_text())
    assert ("lm_head.weight" in _tensor_names(folder)) is not stored["tie_word_embeddings"]


def test_every_weight_of_the_checkpoint_is_exported_once(trained: TrainJob, tmp_path: Path) -> None:
    folder = export_checkpoint(trained.checkpoints_dir / "6", tmp_path / "6", None)
    assert sum(p.numel() for p in load(folder).parameters()) == trained.model.parameters
    weights = read_weights(trained.checkpoints_dir / "6")
    assert sum(tensor.numel() for tensor in weights.values()) == trained.model.parameters


def test_tokenizer_files_are_copied_and_its_config_is_not(
    trained: TrainJob, tmp_path: Path
) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    # Scoring recognises by spec.json that this platform trained the model.
    for name in ("tokenizer.json", "tokenizer_config.json", "spec.json", "config.json"):
        (tokenizer / name).write_text('{"from": "tokenizer"}')
    folder = export_checkpoint(trained.checkpoints_dir / "6", tmp_path / "6", tokenizer)
    assert (folder / "tokenizer.json").exists()
    assert (folder / "spec.json").exists()
    assert "from" not in json.loads((folder / "config.json").read_text())


def test_an_export_that_is_there_is_left_alone(trained: TrainJob, tmp_path: Path) -> None:
    folder = export_checkpoint(trained.checkpoints_dir / "5", tmp_path / "x", None)
    before = (folder / "model.safetensors").read_bytes()
    assert export_checkpoint(trained.checkpoints_dir / "6", tmp_path / "x", None) == folder
    assert (folder / "model.safetensors").read_bytes() == before


def test_an_export_that_failed_leaves_nothing_under_its_name(
    trained: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            export_checkpoint(trained.checkpoints_dir / "6", tmp_path / "6", None)
    assert not (tmp_path / "6").exists()
    assert export_checkpoint(trained.checkpoints_dir / "6", tmp_path / "6", None).is_dir()


def test_a_checkpoint_without_a_tensor_is_refused_by_its_name(
    trained: TrainJob, tmp_path: Path
) -> None:
    copy = tmp_path / "5"
    shutil.copytree(trained.checkpoints_dir / "5", copy)
    shutil.rmtree(copy / "model" / "layers" / "1")
    (copy / "checksums.json").unlink()  # as an older version wrote it
    with pytest.raises(CheckpointError, match=r"layers\.1\.attn\.qkv_proj"):
        export_checkpoint(copy, tmp_path / "export", None)


def _tensor_names(folder: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as stream:
        return set(stream.keys())


# --------------------------------------------------------------------------------- damaged files


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_a_damaged_export_is_made_again_from_its_checkpoint(
    trained: TrainJob, tmp_path: Path
) -> None:
    checkpoint = trained.checkpoints_dir / "6"
    folder = export_checkpoint(checkpoint, tmp_path / "6", None)
    before = (folder / "model.safetensors").read_bytes()
    flip(folder / "model.safetensors")
    assert export_checkpoint(checkpoint, tmp_path / "6", None) == folder
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6"]


def test_a_damaged_checkpoint_is_not_exported(trained: TrainJob, tmp_path: Path) -> None:
    copy = tmp_path / "5"
    shutil.copytree(trained.checkpoints_dir / "5", copy)
    flip(next((copy / "model").rglob("*.safetensors")))
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        export_checkpoint(copy, tmp_path / "export", None)
    assert not (tmp_path / "export").exists()


def test_what_killed_writers_left_beside_the_exports_is_removed(tmp_path: Path) -> None:
    for name in ("4", ".4.tmp", ".4.gone", ".8.old"):
        (tmp_path / name).mkdir()
    tidy_exports(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "8"]
    remove_export(tmp_path / "4")
    remove_export(tmp_path / "4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8"]


def scoring_of(job: TrainJob, **changes: Any) -> ScoringJob:
    values: dict[str, Any] = {
        "directory": job.directory,
        "steps": (5, 6),
        "last_step": 6,
        "tokens_per_step": 128,
        "evaluation": EvaluationSpec(),
        "tokenizer": job.directory,
        "data_dir": job.directory,
        "stores": {},
        "keep": "all",
    }
    return ScoringJob(**(values | changes))


@pytest.mark.parametrize("step", [5, 6])
def test_a_damaged_checkpoint_costs_its_own_scores_and_the_last_one_the_run(
    trained: TrainJob, tmp_path: Path, step: int
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory / "checkpoints", run / "checkpoints")
    flip(next((run / "checkpoints" / str(step) / "model").rglob("*.safetensors")))
    job = replace(scoring_of(trained), directory=run)
    if step == 6:
        with pytest.raises(CheckpointError, match="damaged checkpoint"):
            _exports(job, RunRecord(run))
        return
    exports, lost = _exports(job, RunRecord(run))
    assert list(exports) == [6]
    assert "damaged checkpoint" in lost[5]


def test_steps_that_another_process_scored_meanwhile_are_not_scored_again(
    trained: TrainJob, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory / "checkpoints", run / "checkpoints")
    RunRecord(run).add_scores({"step": 5, "score": 1.0})
    exports, lost = _exports(replace(scoring_of(trained), directory=run), RunRecord(run))
    assert (list(exports), lost) == ([6], {})


def test_two_processes_do_not_score_a_run_at_once(
    trained: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablations.record.lease._LOCK_SECONDS", 0.05)
    job = replace(scoring_of(trained), directory=tmp_path)
    with (
        FileLock(tmp_path / "scoring.lock"),
        pytest.raises(HeldError, match="another process is scoring"),
    ):
        score_here(job, lambda _: None)
