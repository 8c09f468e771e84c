"""Check what of a file follows our configs when it is written back, and what stays as it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from sweeps.nanotron_files import NanotronFile, load_yaml, parse
from sweeps.nanotron_files.import_published import Imported, import_file
from sweeps.nanotron_files.model_sections import ExistingInit, LlamaModel, Qwen2Model, RandomInit
from sweeps.nanotron_files.sections import AdamW, HubDataset, TokenFolders
from sweeps.nanotron_files.write_back import Specs, _spelled_out, text_back, write_back

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion" / "published"


def imported(name: str = "two_stages") -> Imported:
    return import_file(GOLDEN / f"{name}.yaml", "f")


def back(
    read: Imported, group: str = "", sidecar: Mapping[str, Any] | None = None, **changed: object
) -> NanotronFile:
    """Return the file written back after some values of one group of our configs were changed."""
    configs = dict(read.configs)
    if group:
        configs[f"{group}/f"] = {**configs[f"{group}/f"], **changed}
    return write_back(Specs.of_plain(configs, "f"), sidecar or read.sidecar)


def folders(file: NanotronFile, stage: int) -> TokenFolders:
    dataset = file.data_stages[stage].data.dataset
    assert isinstance(dataset, TokenFolders)
    return dataset


def with_stage(read: Imported, stage: str, **changed: object) -> dict[str, Any]:
    """Return the stages of the schedule with one of them changed."""
    stages = dict(read.configs["schedule/f"]["stages"])
    stages[stage] = {**stages[stage], **changed}
    return stages


def test_the_settings_of_training_reach_the_file() -> None:
    read = imported()
    file = back(
        read,
        "training",
        weight_decay=0.3,
        clip_norm=0.7,
        accumulate_grad_in_fp32=False,
        adam_beta1=0.8,
        adam_beta2=0.85,
        adam_eps=1e-6,
        batch_size=24,
    )
    optimizer = file.optimizer
    assert optimizer.weight_decay == 0.3
    assert optimizer.clip_grad == 0.7
    assert optimizer.accumulate_grad_in_fp32 is False
    adam = optimizer.optimizer_factory
    assert isinstance(adam, AdamW)
    assert (adam.adam_beta1, adam.adam_beta2, adam.adam_eps) == (0.8, 0.85, 1e-6)
    assert adam.torch_adam_is_fused is True
    assert file.tokens.batch_accumulation_per_replica == 3  # 24 / (4 samples × 2 replicas)
    assert (file.tokens.micro_batch_size, file.tokens.sequence_length) == (4, 64)
    kept = read.file.optimizer
    assert optimizer.weight_decay_exclude_named_params == kept.weight_decay_exclude_named_params


def test_a_shorter_sequence_makes_more_steps() -> None:
    file = back(imported(), "training", sequence_length=32)
    assert file.tokens.sequence_length == 32
    assert file.stage_steps() == (120, 80)
    assert [stage.start_training_step for stage in file.data_stages] == [1, 121]
    assert file.tokens.train_steps == 200


@pytest.mark.parametrize("batch", [8, 16])
def test_a_batch_is_a_multiple_of_micro_batches_times_replicas(batch: int) -> None:
    assert back(imported(), "training", batch_size=batch).batch_size == batch


def test_a_batch_of_another_size_is_refused_with_the_sizes_that_fit() -> None:
    with pytest.raises(ConfigError, match="found: 20; allowed: a multiple of 8"):
        back(imported(), "training", batch_size=20)


def test_the_shape_of_the_model_reaches_the_file_field_by_field() -> None:
    shape: dict[str, Any] = {
        "vocab_size": 600,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "max_position_embeddings": 80,
        "rope_theta": 5000.0,
        "rms_norm_eps": 1e-4,
        "tie_word_embeddings": False,
        "bos_token_id": 3,
        "eos_token_id": 4,
    }
    model = back(imported(), "model", **shape, initializer_range=0.04).model
    assert {key: getattr(model.model_config, key) for key in shape} == shape
    assert model.init_method == RandomInit(std=0.04)


def test_an_initialisation_from_a_checkpoint_is_kept() -> None:
    read = imported()
    document = load_yaml((GOLDEN / "two_stages.yaml").read_text())
    document["model"]["init_method"] = {"path": "s3://bucket/base"}
    file = back(read, "model", {**read.sidecar, "document": document}, initializer_range=0.04)
    assert file.model.init_method == ExistingInit(path="s3://bucket/base")


@pytest.mark.parametrize(
    ("name", "heads", "written"),
    [
        ("no_weights", 4, None),  # null = as many as query heads
        ("no_weights", 2, 2),
        ("two_stages", 4, 4),
        ("two_stages", 2, 2),
    ],
)
def test_key_heads_stay_null_only_where_they_were_and_are_as_many_as_query_heads(
    name: str, heads: int, written: int | None
) -> None:
    shape = back(imported(name), "model", num_key_value_heads=heads).model.model_config
    assert isinstance(shape, LlamaModel | Qwen2Model)
    assert shape.num_key_value_heads == written


@pytest.mark.parametrize(
    ("style", "before", "warmup", "written"),
    [
        ("constant", 5, 0, ("constant", 5)),
        ("constant", 5, 7, ("linear", 7)),
        ("linear", 5, 0, ("linear", 0)),
        ("linear", 5, 7, ("linear", 7)),
    ],
)
def test_a_changed_warm_up_is_linear_unless_it_was_and_is_none(
    style: str, before: int, warmup: int, written: tuple[str, int]
) -> None:
    read = imported()
    document = load_yaml((GOLDEN / "two_stages.yaml").read_text())
    document["optimizer"]["learning_rate_scheduler"] |= {
        "lr_warmup_style": style,
        "lr_warmup_steps": before,
    }
    lr = {
        "kind": "wsd",
        "warmup_steps": warmup,
        "decay_steps": 20,
        "tail_steps": 3,
        "shape": "cosine",
        "min_ratio": 0.25,
    }
    sidecar = {**read.sidecar, "document": document}
    rate = back(read, "schedule", sidecar, lr=lr).optimizer.learning_rate_scheduler
    assert (rate.lr_warmup_style, rate.lr_warmup_steps) == written
    assert (rate.lr_decay_starting_step, rate.lr_decay_steps) == (77, 20)
    assert rate.lr_decay_style == "cosine"
    assert rate.learning_rate == 0.001
    assert rate.min_decay_lr == pytest.approx(0.00025)


def test_a_rate_without_a_decay_keeps_the_files_window_and_has_the_peak_as_its_least() -> None:
    lr = {"kind": "wsd", "warmup_steps": 9, "decay_steps": 0}
    rate = back(imported(), "schedule", lr=lr).optimizer.learning_rate_scheduler
    assert rate.min_decay_lr == 0.001
    assert rate.lr_warmup_steps == 9
    assert (rate.lr_decay_starting_step, rate.lr_decay_steps) == (61, 40)
    assert rate.lr_decay_style == "linear"


def test_another_peak_is_written_and_the_same_leaves_the_scheduler_as_it_was() -> None:
    read = imported("no_weights")
    same = back(read).optimizer.learning_rate_scheduler
    assert same == read.file.optimizer.learning_rate_scheduler
    assert (same.lr_decay_starting_step, same.lr_decay_steps) == (None, None)
    other = back(read, "training", peak_lr=0.004).optimizer.learning_rate_scheduler
    assert other.learning_rate == 0.004
    assert other.min_decay_lr == pytest.approx(0.0004)
    assert (other.lr_decay_starting_step, other.lr_decay_steps) == (10, 190)


def test_weights_of_a_stage_are_written_with_its_folders() -> None:
    read = imported()
    assert folders(back(read), 0) == folders(read.file, 0)
    stages = with_stage(read, "stable", weights={"web": 0.4, "code_python": 0.6})
    swapped = folders(back(read, "schedule", stages=stages), 0)
    assert swapped.dataset_weights == (0.4, 0.6)
    assert swapped.dataset_read_path == ("/scratch/web", "/scratch/raw-code-Python")


def test_local_copies_are_forgotten_where_the_folders_changed() -> None:
    read = imported()
    stages = with_stage(read, "stable", weights={"web": 0.4, "new": 0.1, "code_python": 0.5})
    dataset = folders(back(read, "schedule", stages=stages), 0)
    assert dataset.dataset_folder == (
        "s3://bucket/tokenized/web/web/",
        "new",
        "s3://bucket/tokenized/code-Python/",
    )
    assert dataset.dataset_weights == (0.4, 0.1, 0.5)
    assert dataset.dataset_read_path is None


def test_a_stage_without_weights_reads_the_mixture() -> None:
    read = imported()
    stages = with_stage(read, "stable", weights=None)
    configs = {
        **read.configs,
        "schedule/f": {**read.configs["schedule/f"], "stages": stages},
        "mixture/f": {**read.configs["mixture/f"], "weights": {"web": 0.2, "code_python": 0.8}},
    }
    file = write_back(Specs.of_plain(configs, "f"), read.sidecar)
    assert folders(file, 0).dataset_weights == (0.2, 0.8)
    assert folders(file, 1).dataset_weights == (0.5, 0.30005, 0.2)


@pytest.mark.parametrize(
    ("name", "stage", "weights", "written"),
    [
        ("no_weights", "only", {"f_wiki": 3.0, "books": 3.0}, None),
        ("no_weights", "only", {"f_wiki": 3.0, "books": 1.0}, (3.0, 1.0)),
        ("two_stages", "stable", {"web": 0.5, "code_python": 0.5}, (0.5, 0.5)),
    ],
)
def test_weights_stay_left_out_only_where_they_were_and_are_equal(
    name: str, stage: str, weights: dict[str, float], written: tuple[float, ...] | None
) -> None:
    read = imported(name)
    file = back(read, "schedule", stages=with_stage(read, stage, weights=weights))
    assert folders(file, 0).dataset_weights == written


def test_a_stage_that_the_file_lacks_is_written_like_its_last() -> None:
    read = imported()
    stages = read.configs["schedule/f"]["stages"]
    new = {"tokens": 20 * 1024, "weights": {"web": 0.5, "code_shuffled_python": 0.5}}
    changed = {"stable": stages["stable"], "fresh": new, "decay_stage": stages["decay_stage"]}
    document = load_yaml((GOLDEN / "two_stages.yaml").read_text())
    document["data_stages"][1]["data"]["seed"] = 9
    sidecar = {**read.sidecar, "document": document}
    file = back(read, "schedule", sidecar, stages=changed)
    assert [stage.name for stage in file.data_stages] == ["stable", "fresh", "decay stage"]
    assert [stage.data.seed for stage in file.data_stages] == [6, 9, 9]
    assert [stage.start_training_step for stage in file.data_stages] == [1, 61, 81]
    assert file.tokens.train_steps == 120


def bare(tokenizer: str | None, **changed: Any) -> NanotronFile:
    """Return the file of two stages with this tokenizer, its folders without any but ``changed``."""
    document = load_yaml((GOLDEN / "two_stages.yaml").read_text())
    for stage in document["data_stages"]:
        for key in ("tokenizer_name", "vocab_size", "token_size_in_bytes"):
            del stage["data"]["dataset"][key]
    document["tokenizer"] = {"tokenizer_name_or_path": "a"}
    file = parse(document)
    if tokenizer is None:
        file = replace(file, tokenizer=None)
    stage = file.data_stages[0]
    dataset = replace(folders(file, 0), **changed)
    first = replace(stage, data=replace(stage.data, dataset=dataset))
    return replace(file, data_stages=(first, *file.data_stages[1:]))


def of_vocabulary(file: NanotronFile, size: int) -> NanotronFile:
    shape = file.model.model_config
    assert isinstance(shape, LlamaModel)
    return replace(file, model=replace(file.model, model_config=replace(shape, vocab_size=size)))


@pytest.mark.parametrize(
    ("tokenizer", "own", "vocabulary", "expected"),
    [
        ("a", {}, 512, ("a", 512, 2)),
        ("a", {}, 65536, ("a", 65536, 2)),
        ("a", {}, 65537, ("a", 65537, 4)),
        ("a", {"token_size_in_bytes": 4}, 512, ("a", 512, 4)),
        ("a", {"vocab_size": 500}, 512, ("a", 500, 2)),
        ("a", {"tokenizer_name": "own"}, 512, ("own", 512, None)),
        (None, {}, 512, (None, 512, None)),
        ("a", {}, 1, ("a", 1, 2)),
        ("a", {}, 0, (None, None, None)),
        ("a", {}, -1, (None, None, None)),
    ],
)
def test_folders_get_the_tokenizer_and_vocabulary_that_their_metadata_has_to_equal(
    tokenizer: str | None,
    own: dict[str, Any],
    vocabulary: int,
    expected: tuple[str | None, int | None, int | None],
) -> None:
    dataset = folders(_spelled_out(of_vocabulary(bare(tokenizer, **own), vocabulary)), 0)
    found = (dataset.tokenizer_name, dataset.vocab_size, dataset.token_size_in_bytes)
    assert found == expected


def test_a_stage_of_text_that_is_tokenised_on_the_fly_is_left_alone() -> None:
    file = bare("a")
    stage = file.data_stages[0]
    text = HubDataset(hf_dataset_or_datasets="example/text")
    hub = replace(stage, data=replace(stage.data, dataset=text))
    spelled = _spelled_out(replace(file, data_stages=(hub, file.data_stages[1])))
    assert spelled.data_stages[0] == hub
    assert folders(spelled, 1).vocab_size == 512


def test_the_text_has_its_heading_its_branch_and_the_keys_of_the_file_that_was_read() -> None:
    read = imported()
    specs = Specs.of_plain(read.configs, "f")
    text = text_back(specs, read.sidecar, "made again")
    assert text.startswith("# ")
    assert "made again" in text.partition("\n\n")[0]
    assert "huggingface/nanotron main" in text
    assert set(load_yaml(text)["tokens"]) == set(read.sidecar["document"]["tokens"])
