from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ablations.errors import ConfigError
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted((CONF / "model").glob("*.yaml"))
TRAININGS = sorted((CONF / "training").glob("*.yaml"))

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TRAINING: dict[str, Any] = {"sequence_length": 16, "batch_size": 8, "peak_lr": 1e-3}


def shipped_model(name: str) -> ModelSpec:
    values = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    return TypeAdapter(ModelSpec).validate_python(values)


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_every_shipped_model_is_valid(file: Path) -> None:
    assert shipped_model(file.stem).parameters > 0


@pytest.mark.parametrize("file", TRAININGS, ids=lambda file: file.stem)
def test_every_shipped_training_is_valid(file: Path) -> None:
    spec = TypeAdapter(TrainingSpec).validate_python(yaml.safe_load(file.read_text()))
    assert spec.tokens_per_step == spec.batch_size * spec.sequence_length


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("smollm2_135m", 134_515_008), ("smollm2_360m", 361_821_120), ("smollm2_1b7", 1_711_376_384)],
)
def test_smollm2_has_the_published_parameter_counts(name: str, parameters: int) -> None:
    assert shipped_model(name).parameters == parameters


@pytest.mark.parametrize(
    ("name", "tokens_per_step"),
    [("smollm2_135m", 2**20), ("smollm2_360m", 3 * 2**19), ("smollm2_1b7", 2**21)],
)
def test_smollm2_trains_the_published_tokens_a_step(name: str, tokens_per_step: int) -> None:
    values = yaml.safe_load((CONF / "training" / f"{name}.yaml").read_text())
    assert TypeAdapter(TrainingSpec).validate_python(values).tokens_per_step == tokens_per_step


@pytest.mark.parametrize(
    "file", [file for file in MODELS if file.stem.startswith("proxy_")], ids=lambda file: file.stem
)
def test_a_proxy_is_named_by_its_parameters_without_input_embedding(file: Path) -> None:
    spec = shipped_model(file.stem)
    named = float(file.stem.removeprefix("proxy_").removesuffix("m").replace("m", "."))
    counted = (spec.parameters - spec.vocab_size * spec.hidden_size) / 1e6
    assert counted == pytest.approx(named, rel=0.35 if named < 5 else 0.06)


def test_parameters_of_a_model_are_those_that_torch_counts() -> None:
    from tests.oracles.plain import PlainLlama

    for tied in (True, False):
        spec = ModelSpec(**SHAPE, tie_word_embeddings=tied)
        assert sum(p.numel() for p in PlainLlama(spec, 0, 16).parameters()) == spec.parameters


def test_flops_count_matrices_six_times_and_attention_by_its_length() -> None:
    spec = ModelSpec(**SHAPE)
    matrices = 2 * spec.layer_parameters + 64 * 32
    assert spec.flops_per_token(16) == 6 * matrices + 12 * 2 * 32 * 16


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"hidden_size": 30}, "model.num_attention_heads"),
        ({"num_key_value_heads": 3}, "model.num_key_value_heads"),
        ({"eos_token_id": 64}, "model.eos_token_id"),
        ({"num_hidden_layers": 0}, "model.num_hidden_layers"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_by_field(
    change: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSpec(**{**SHAPE, **change})
    assert [problem.where for problem in caught.value.problems] == [where]


def test_every_problem_of_a_training_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingSpec(sequence_length=0, batch_size=-1, peak_lr=float("nan"), adam_beta1=1.0)
    assert {problem.where.removeprefix("training.") for problem in caught.value.problems} == {
        "sequence_length",
        "batch_size",
        "peak_lr",
        "adam_beta1",
    }


@pytest.mark.parametrize("checkpoints", [0, (0,), (100, -1)])
def test_checkpoints_below_one_are_refused(checkpoints: int | tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"training\.checkpoints"):
        TrainingSpec(**TRAINING, checkpoints=checkpoints)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="unexpected"):
        TypeAdapter(TrainingSpec).validate_python({**TRAINING, "batchsize": 3})


def test_zero_needs_data_parallel_ranks() -> None:
    with pytest.raises(ConfigError, match=r"execution\.zero_stage"):
        ExecutionSpec(zero_stage=1)


@given(count=st.integers(1, 50), total=st.integers(1, 10_000), first=st.integers(0, 9_999))
def test_evenly_spaced_checkpoints_ascend_and_end_with_the_training(
    count: int, total: int, first: int
) -> None:
    first = min(first, total - 1)
    steps = TrainingSpec(**TRAINING, checkpoints=count).checkpoint_steps(total, first)
    assert list(steps) == sorted(set(steps))
    assert steps[-1] == total
    assert all(first < step <= total for step in steps)
    assert len(steps) <= count
    assert len(steps) == count or count > total - first


@given(tokens=st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_checkpoints_at_token_counts_fall_on_the_nearest_step(tokens: list[int]) -> None:
    spec = TrainingSpec(**TRAINING, checkpoints=tuple(tokens))
    steps = spec.checkpoint_steps(2_000)
    assert steps[-1] == 2_000
    for asked in tokens:
        if 1 <= (step := round(asked / spec.tokens_per_step)) <= 2_000:
            assert step in steps
