"""Training on rows with pictures: bits, kills, shares, starts, checkpoints, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.errors import CheckpointError, ConfigError
from ablations.files import read_json_lines
from ablations.mixture.audit import audit_rows
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import Stage
from ablations.training.checkpoints import checkpoint_steps, is_whole, read_state
from ablations.training.method import MethodSpec
from ablations.training.specs import ExecutionSpec
from ablations.training.train_job import TrainJob, TrainOutcome
from ablations.training.trainers import trainer_of
from ablations.training.vlm.text_part import is_vlm, write_text_part
from tests.oracles.chats import write_base_model
from tests.oracles.killing import killed_after
from tests.oracles.vision_models import write_vlm
from tests.oracles.vision_rows import TINY_EYE, make_vision_job, prepare_three_kinds

STAGES = (
    Stage(name="text", steps=4, mixture=Mixture({"short": 0.5, "prose": 0.5})),
    Stage(name="all", steps=4, mixture=Mixture({"squares": 0.75, "prose": 0.25})),
)
"""The vision part has no gradient before step 5."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_three_kinds(tmp_path_factory.mktemp("vlm_data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path], base: Path
) -> dict[str, TrainJob]:
    """Finished runs with a checkpoint in their middle; never to be changed."""
    root = tmp_path_factory.mktemp("finished")
    plain: dict[str, Any] = {"checkpoint_steps": (4, 8)}
    jobs = {
        "mixed": make_vision_job(root / "mixed", stores, base, **plain),
        "late": make_vision_job(root / "late", stores, base, stages=STAGES, **plain),
        "parts": make_vision_job(
            root / "parts", stores, base, execution=_on_cpu(micro_batch_size=2), **plain
        ),
    }
    for job in jobs.values():
        assert trained(job).status == "done"
    return jobs


def _on_cpu(**values: Any) -> ExecutionSpec:
    return ExecutionSpec(device="cpu", threads=1, **values)


def trained(job: TrainJob, watch: Any = None) -> TrainOutcome:
    return trainer_of(job.method).train(job, watch)


def weights_of(job: TrainJob, step: int = 8) -> bytes:
    return (job.checkpoints_dir / str(step) / "model.safetensors").read_bytes()


def rows_of(job: TrainJob) -> dict[int, dict[str, Any]]:
    return {row["step"]: row for row in read_json_lines(job.directory / "metrics.jsonl")}


def copied(job: TrainJob, folder: Path, *, steps: int | None = None, **change: Any) -> TrainJob:
    """Return the job in another folder, with its first ``steps`` steps as a killed run leaves them."""
    if steps is None:
        folder.mkdir()
    else:
        shutil.copytree(job.directory, folder)
        for step in checkpoint_steps(folder / "checkpoints"):
            if step > steps:
                shutil.rmtree(folder / f"checkpoints/{step}")
    return replace(job, directory=folder, **change)


# -------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("name", ["mixed", "late", "parts"])
def test_the_same_run_twice_gives_the_same_bits(
    finished: dict[str, TrainJob], tmp_path: Path, name: str
) -> None:
    again = copied(finished[name], tmp_path / "again")
    assert trained(again).status == "done"
    assert weights_of(again) == weights_of(finished[name])


@pytest.mark.parametrize("name", ["mixed", "late", "parts"])
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_stopped(
    finished: dict[str, TrainJob], tmp_path: Path, name: str
) -> None:
    stopped = copied(finished[name], tmp_path / "stopped", steps=4)
    outcome = trained(stopped)
    assert outcome.status == "done"
    assert weights_of(stopped) == weights_of(finished[name])
    state = read_state(finished[name].checkpoints_dir / "8")
    assert state is not None
    assert (outcome.windows, outcome.supervised) == (state.windows, state.supervised)
    assert [row["loss"] for row in rows_of(stopped).values()] == [
        row["loss"] for row in rows_of(finished[name]).values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stages", [(), STAGES], ids=["mixed", "late"])
def test_a_run_that_is_killed_at_eight_moments_ends_with_the_same_bits(
    stores: dict[str, Path], base: Path, tmp_path: Path, stages: Sequence[Stage]
) -> None:
    values: dict[str, Any] = {"stages": tuple(stages), "recovery_interval_steps": 3}
    whole = make_vision_job(tmp_path / "whole", stores, base, **values)
    assert trained(whole).status == "done"
    kills = 0
    for step in range(8):
        job = make_vision_job(tmp_path / f"killed_{step}", stores, base, **values)
        kills += killed_after(job, step)
        assert trained(job).status == "done"
        assert weights_of(job) == weights_of(whole), step
    assert kills >= 7


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    finished: dict[str, TrainJob], tmp_path: Path
) -> None:
    training = replace(finished["mixed"].training, recovery_interval_steps=1)
    job = copied(finished["mixed"], tmp_path / "killed", training=training)
    kills = [killed_after(job, step) for step in range(1, 8)]
    assert sum(kills) >= 6
    assert trained(job).status == "done"
    assert weights_of(job) == weights_of(finished["mixed"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", "late"])
def test_two_ranks_read_what_one_reads_and_resume_with_the_same_bits(
    finished: dict[str, TrainJob], tmp_path: Path, name: str
) -> None:
    two = _on_cpu(dp=2)
    job = copied(finished[name], tmp_path / "two", execution=two)
    outcome = trained(job)
    assert outcome.status == "done", outcome.reason
    alone = trained(finished[name])
    assert (outcome.windows, outcome.supervised) == (alone.windows, alone.supervised)
    for step, row in rows_of(finished[name]).items():
        assert rows_of(job)[step]["loss"] == pytest.approx(row["loss"], rel=2e-3)
    stopped = copied(job, tmp_path / "stopped", steps=4)
    assert trained(stopped).status == "done"
    assert weights_of(stopped) == weights_of(job)


def test_another_seed_reads_other_rows_in_the_same_shares(
    finished: dict[str, TrainJob], tmp_path: Path
) -> None:
    other = copied(finished["mixed"], tmp_path / "other", seed=2)
    outcome = trained(other)
    assert weights_of(other) != weights_of(finished["mixed"])
    assert outcome.windows == trained(finished["mixed"]).windows


# ------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("unit", ["samples", "tokens"])
@pytest.mark.parametrize("loss", ["all", "answers"])
def test_shares_are_exact_and_audited_in_both_units(
    stores: dict[str, Path], base: Path, tmp_path: Path, unit: Any, loss: Any
) -> None:
    method = MethodSpec(kind="vlm", unit=unit, loss=loss, vision=TINY_EYE)
    asked = {"squares": 0.6, "short": 0.15, "prose": 0.25}
    job = make_vision_job(tmp_path / "run", stores, base, weights=asked, method=method, steps=10)
    outcome = trained(job)
    assert outcome.windows is not None
    assert outcome.supervised is not None
    rows, tokens = np.array(outcome.windows), np.array(outcome.supervised)
    assert rows.sum() == 40
    have = {"squares": 60, "short": 60, "prose": 60}
    found = audit_rows(job.schedule, rows, tokens, have, unit=unit, longest=64)
    assert found.ok
    counted = (rows if unit == "samples" else tokens)[0]
    gaps = np.abs(counted / counted.sum() - [0.6, 0.15, 0.25]) * counted.sum()
    assert gaps.max() <= (1 if unit == "samples" else 64)


@pytest.mark.parametrize("loss", ["all", "answers"])
def test_the_loss_and_its_count_are_those_of_every_row_alone(
    stores: dict[str, Path], base: Path, tmp_path: Path, loss: Any
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    from ablations.training.resume import Start
    from ablations.training.vlm.picture_feed import PictureFeed

    method = MethodSpec(kind="vlm", loss=loss, vision=TINY_EYE)
    job = make_vision_job(tmp_path / "run", stores, base, method=method, steps=4)
    outcome = trained(job)
    model = AutoModelForImageTextToText.from_pretrained(job.directory / "start")
    feed = PictureFeed(job, Start(kind="start", step=0), pad_id=0)
    total, counted, pictures = 0.0, 0, 0
    for sample in range(16):
        one = feed.batch([sample])
        samples, labels = one.pop("samples"), one.pop("labels")
        feed.count(samples.tolist())
        if sample >= 4:
            continue
        with torch.no_grad():
            logits = model(**one).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
        total, counted = total + float(nll), counted + int((labels[0, 1:] != -100).sum())
        pictures += one["pixel_values"].shape[1] if "pixel_values" in one else 0
    assert pictures > 0
    assert rows_of(job)[1]["loss"] == pytest.approx(total / counted, rel=1e-5)
    assert feed.counts(torch.device("cpu"))[1] == outcome.supervised


def test_a_picture_changes_the_logits(finished: dict[str, TrainJob]) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    from ablations.training.resume import Start
    from ablations.training.vlm.picture_feed import PictureFeed

    job = finished["mixed"]
    model = AutoModelForImageTextToText.from_pretrained(job.checkpoints_dir / "8")
    feed = PictureFeed(job, Start(kind="start", step=0), pad_id=0)
    batch = feed.batch(range(8))
    del batch["samples"]
    with torch.no_grad():
        seen = model(**batch).logits
        batch["pixel_values"] = batch["pixel_values"].flip(1)
        other = model(**batch).logits
    assert float((seen - other).abs().max()) > 1e-4


# -------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_a_vision_language_model_with_a_text_part(
    finished: dict[str, TrainJob], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    job = finished["mixed"]
    assert checkpoint_steps(job.checkpoints_dir) == (4, 8)
    folder = job.checkpoints_dir / "8"
    assert is_vlm(folder)
    whole = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(whole).__name__ == "SmolVLMForConditionalGeneration"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert whole.generation_config.eos_token_id == tokenizer.eos_token_id
    part = AutoModelForCausalLM.from_pretrained(write_text_part(folder, tmp_path / "text"))
    assert part.config.vocab_size == len(tokenizer)
    ids = torch.tensor([tokenizer.encode("user: seven cats<end_of_utterance>\nassistant: red")])
    with torch.no_grad():
        assert torch.equal(whole(ids).logits, part(ids).logits)
    assert not (job.checkpoints_dir / ".partial").exists()
    assert sorted(rows_of(job)) == list(range(1, 9))


@pytest.mark.parametrize("name", ["config.json", "state.json", "model.safetensors"])
def test_a_checkpoint_without_one_of_its_files_is_not_whole(
    finished: dict[str, TrainJob], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "8"
    shutil.copytree(finished["mixed"].checkpoints_dir / "8", folder)
    assert is_whole(folder)
    (folder / name).unlink()
    assert not is_whole(folder)


# -------------------------------------------------------------------------------------- start


def test_a_language_model_becomes_the_text_part_as_it_is(
    finished: dict[str, TrainJob], base: Path
) -> None:
    from safetensors.torch import load_file

    before = load_file(base / "model.safetensors")
    after = load_file(finished["mixed"].directory / "start/model.safetensors")
    for name, tensor in before.items():
        ours = after["model.text_model." + name.removeprefix("model.")]
        assert ours[: tensor.shape[0]].equal(tensor), name
    rows = after["model.text_model.embed_tokens.weight"]
    assert rows.shape[0] == before["model.embed_tokens.weight"].shape[0] + 4
    other = load_file(finished["late"].directory / "start/model.safetensors")
    assert after["model.connector.modality_projection.proj.weight"].equal(
        other["model.connector.modality_projection.proj.weight"]
    )


def test_a_vision_language_model_goes_on_as_it_is(
    finished: dict[str, TrainJob], stores: dict[str, Path], tmp_path: Path
) -> None:
    before = finished["mixed"].checkpoints_dir / "8"
    job = make_vision_job(tmp_path / "run", stores, before, steps=4)
    assert trained(job).status == "done"
    assert not (job.directory / "start").exists()
    assert rows_of(job)[1]["loss"] < rows_of(finished["mixed"])[1]["loss"] - 0.5


def test_a_published_model_gets_rows_for_the_tokens_that_it_has_none_for(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    tokenizer = next(iter(stores.values())).parents[1] / "tokenizers/tiny_vision"
    picture = AutoTokenizer.from_pretrained(tokenizer).convert_tokens_to_ids("<image>")
    published = write_vlm(tmp_path / "published", picture=picture)
    job = make_vision_job(tmp_path / "run", stores, published, steps=4)
    assert trained(job).status == "done"
    name = "model.vision_model.embeddings.patch_embedding.weight"
    start = load_file(job.directory / "start/model.safetensors")
    assert start[name].equal(load_file(published / "model.safetensors")[name])
    assert start["model.text_model.embed_tokens.weight"].shape[0] == 304


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"start_model": None}, "begins from a trained model"),
        ({"start_model": "/nowhere/model"}, "no model there"),
        ({"execution": ExecutionSpec(device="cpu", tp=2)}, "divides the batch alone"),
    ],
)
def test_a_job_that_cannot_begin_is_refused(
    stores: dict[str, Path], base: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    job = replace(make_vision_job(tmp_path / "run", stores, base), **change)
    with pytest.raises((ConfigError, CheckpointError), match=problem):
        trained(job)


def test_a_start_that_is_no_llama_is_refused(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    with pytest.raises(CheckpointError, match="cannot become a text part"):
        trained(make_vision_job(tmp_path / "run", stores, other))


def test_a_model_of_another_eye_or_picture_token_is_refused(
    finished: dict[str, TrainJob], stores: dict[str, Path], tmp_path: Path
) -> None:
    before = finished["mixed"].checkpoints_dir / "8"
    wider = MethodSpec(kind="vlm", vision=replace(TINY_EYE, hidden_size=32))
    with pytest.raises(CheckpointError, match=r"method\.vision\.hidden_size"):
        trained(make_vision_job(tmp_path / "run", stores, before, method=wider))
    other = write_vlm(tmp_path / "other", picture=7)
    with pytest.raises(CheckpointError, match="is another token"):
        trained(make_vision_job(tmp_path / "other_run", stores, other))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"sequence_length": 30}, "shorter than the longest row of 'squares' with its pictures"),
        (
            {"method": MethodSpec(kind="vlm", vision=replace(TINY_EYE, image_size=32))},
            "differs from method.vision.image_size",
        ),
    ],
)
def test_rows_that_do_not_fit_the_model_are_refused(
    stores: dict[str, Path], base: Path, tmp_path: Path, values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        trained(make_vision_job(tmp_path / "run", stores, base, **values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"kind": "sft", "vision": TINY_EYE}, "no meaning for method=sft"),
        ({"kind": "vlm", "beta": 0.5}, "no meaning for method=vlm"),
    ],
)
def test_a_method_refuses_what_is_not_its(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        MethodSpec(**values)
