"""Read, check and write a file for nanotron's branches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from sweeps.nanotron_files import check, load_yaml, parse, read, text_of
from sweeps.nanotron_files.model_sections import Qwen2Model
from tests.oracles.nanotron_meaning import meaning

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion" / "published"
SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "nanotron_configs"
OURS = sorted(GOLDEN.glob("*.yaml"))
PUBLISHED = sorted(SHARED.glob("*.yaml"))

Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    """Return two stages of a small Llama."""
    return load_yaml((GOLDEN / "two_stages.yaml").read_text())


def stage(document: Document, number: int) -> Document:
    found: Document = document["data_stages"][number]
    return found


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_file_written_again_means_the_same(path: Path) -> None:
    file = read(path)
    again = parse(load_yaml(text_of(file, "written again")))
    assert again == file
    assert meaning(again) == meaning(file)


@pytest.mark.shared
@pytest.mark.skipif(not PUBLISHED, reason="no ../shared/data/nanotron_configs")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_published_file_loads_and_is_written_again(path: Path) -> None:
    file = read(path)
    assert parse(load_yaml(text_of(file))) == file


def test_steps_and_batch_are_read_off_the_file(document: Document) -> None:
    file = parse(document)
    assert file.stage_steps() == (60, 40)
    assert file.tokens_per_step == 4 * 2 * 2 * 64


def test_the_kind_of_model_is_told_apart(document: Document) -> None:
    config = document["model"]["model_config"]
    del config["is_llama_config"]
    config["is_qwen2_config"] = True
    assert isinstance(parse(document).model.model_config, Qwen2Model)


def _set(path: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path.split(".")
        target: Any = document
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target[key]
        target[last] = value

    return change


def _drop(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path.split(".")
        target: Any = document
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target[key]
        del target[last]

    return change


FOLDERS = "data_stages.0.data.dataset"


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (_set("tokens.train_step", 3), "tokens.train_step", "no such key"),
        (_set("model.model_config.hiden_size", 3), "hiden_size", "did you mean 'hidden_size'"),
        (_drop("parallelism.dp"), "parallelism.dp", "missing"),
        (_set("optimizer.weight_decay", "1e-2"), "optimizer.weight_decay", "valid number"),
        (_set("tokens.train_steps", True), "tokens.train_steps", "valid integer"),
        (_set("tokens.train_steps", 60), "tokens.train_steps", "after the last step"),
        (_set("data_stages.0.start_training_step", 2), "data_stages", "no stage starts at step 1"),
        (_set("data_stages.1.start_training_step", 1), "data_stages", "must rise"),
        (_set("data_stages.1.name", "stable"), "data_stages", "unique names"),
        (_set("data_stages", []), "data_stages", "no stage"),
        (_set("data_stages.1.sequence_length", 128), "sequence_length", "cannot change"),
        (_set(f"{FOLDERS}.dataset_weights", [1.0]), "dataset_weights", "one weight per folder"),
        (_set(f"{FOLDERS}.dataset_weights", [-1.0, 2.0]), "dataset_weights", "negative"),
        (_set(f"{FOLDERS}.dataset_read_path", ["a"]), "dataset_read_path", "one path per folder"),
        (_set(f"{FOLDERS}.dataset_folder", {"a": 0.5, "b": 0.5}), "dataset_folder", "mapping form"),
        (_set(f"{FOLDERS}.vocab_size", 7), "vocab_size", "not the model's"),
        (_set(f"{FOLDERS}.tokenizer_name", "gpt2"), "tokenizer_name", "not the run's"),
        (_set("parallelism.tp", 3), "num_attention_heads", "not divisible"),
        (_set("model.model_config.num_key_value_heads", 3), "num_key_value_heads", "divide"),
        (_set("parallelism.tp", 4), "num_key_value_heads", "fewer than tp"),
        (
            _set("profiler", {"profiler_export_path": "p", "skip_first": 1000}),
            "profiler",
            "more steps than are trained",
        ),
    ],
)
def test_what_main_refuses_is_told(
    document: Document, change: Callable[[Document], None], where: str, said: str
) -> None:
    change(document)
    problems = check(document)
    assert [p for p in problems if where in p.where and said in str(p)], problems
    with pytest.raises(ConfigError):
        parse(document)


def test_all_problems_are_told_at_once(document: Document) -> None:
    broken = copy.deepcopy(document)
    del broken["parallelism"]["dp"]
    broken["tokens"]["train_step"] = 3
    assert len(check(broken)) == 2


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="occurs twice"):
        load_yaml("a: 1\na: 2\n")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", ""])
def test_anything_but_a_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        load_yaml(text)


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.yaml")
