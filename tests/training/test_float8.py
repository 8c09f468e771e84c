"""Products in float8: their values, a training with them, and the configs that cannot have them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ablations.errors import ConfigError
from ablations.training.batching import training_problems
from ablations.training.float8 import float8_product
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.specs import ExecutionSpec, TrainingSpec
from tests.oracles.jobs import TINY, losses_of, make_job

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao: pip install 'ablations[float8]'"
)
SHAPE = replace(TINY, hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
TRAINING = TrainingSpec(
    sequence_length=16, batch_size=8, peak_lr=1e-2, dtype="bfloat16", float8=True
)
# torchao's own: a string with an odd escape, and a class registered with a method that torch deprecated.
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@needs_torchao
@quiet
def test_a_product_rounds_both_factors_to_float8_scaled_by_their_largest_value() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 16, 32), torch.randn(48, 32)

    def rounded(values: torch.Tensor) -> torch.Tensor:
        scale = torch.finfo(torch.float8_e4m3fn).max / values.abs().max()
        return (values * scale).to(torch.float8_e4m3fn).float() / scale

    product = float8_product(torch.device("cpu"))(x, weight)
    torch.testing.assert_close(product, F.linear(rounded(x), rounded(weight)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(product, F.linear(x, weight), rtol=1e-3)


@needs_torchao
@pytest.mark.slow
def test_a_training_in_float8_follows_that_in_bfloat16_and_repeats_itself(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    def losses(name: str, float8: bool) -> list[float]:
        shared: dict[str, Any] = {"dtype": "bfloat16", "float8": float8, "peak_lr": 2e-3}
        job = make_job(tmp_path / name, stores, model=SHAPE, **shared)
        assert NanotronTrainer().train(job).status == "done"
        return losses_of(job)

    first = losses("first", True)
    assert losses("again", True) == first
    half = losses("bfloat16", False)
    assert half != first
    assert first == pytest.approx(half, rel=2e-2)


def test_without_torchao_a_training_in_float8_is_refused(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    job = make_job(tmp_path, stores, model=SHAPE, dtype="bfloat16", float8=True)
    with pytest.raises(ConfigError, match=r"pip install 'ablations\[float8\]'"):
        NanotronTrainer().train(job)


@pytest.mark.parametrize(
    ("model", "training", "execution", "where"),
    [
        ({}, {}, {}, []),
        ({}, {"dtype": "auto"}, {"dp": 2}, []),
        ({}, {"dtype": "float32"}, {}, ["training.float8"]),
        ({}, {}, {"tp": 2}, ["training.float8"]),
        ({"intermediate_size": 40}, {}, {}, ["model.intermediate_size"]),
        ({"num_attention_heads": 8}, {}, {}, ["model.num_attention_heads"]),
        ({}, {"sequence_length": 24}, {}, ["training.sequence_length"]),
        ({"intermediate_size": 40}, {"float8": False, "dtype": "float32"}, {"tp": 2}, []),
    ],
)
def test_what_cannot_be_multiplied_in_float8_is_named(
    model: dict[str, Any], training: dict[str, Any], execution: dict[str, Any], where: list[str]
) -> None:
    problems = training_problems(
        replace(SHAPE, **model), replace(TRAINING, **training), ExecutionSpec(**execution)
    )
    assert [problem.where for problem in problems] == where
