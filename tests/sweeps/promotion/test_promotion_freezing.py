"""Check frozen schedules and weights digit by digit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.mixture.specs import LearningRateSpec
from sweeps.promotion.full_schedule import _rounded, _with, freeze
from sweeps.promotion.specs import FullSpec, FullStage


def full(stages: Mapping[str, FullStage] | None = None) -> FullSpec:
    lr = LearningRateSpec(warmup_steps=7)
    return FullSpec(name="f", total_tokens=5e9, lr=lr, tokenizer="t", stages=stages)


def proxy(mixture: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, Any]:
    return {"mixture": dict(mixture), "schedule": {"total_tokens": 1e6, "stages": dict(stages)}}


def test_rounding_adds_what_is_left_to_the_largest_weight() -> None:
    third = _rounded({"a": 1.0 / 3.0, "b": 1.0 / 3.0, "none": 0.0, "c": 1.0 / 3.0})
    assert third == {"a": 0.333333334, "b": 0.333333333, "c": 0.333333333}
    uneven = {"small": 0.1234567894, "large": 0.7530864216, "other": 0.123456789}
    assert _rounded(uneven) == {"small": 0.123456789, "large": 0.753086422, "other": 0.123456789}
    most = {"large": 0.6666666666, "a": 0.1666666667, "b": 0.1666666667}
    assert _rounded(most) == {"large": 0.666666666, "a": 0.166666667, "b": 0.166666667}
    assert math.fsum(third.values()) == 1.0


def test_a_stage_without_additions_has_a_copy_of_the_mixture() -> None:
    found = {"web": 0.6, "math": 0.4}
    same = _with(found, {}, "a")
    assert same == found
    assert same is not found


def test_additions_reserve_their_share_of_the_stage() -> None:
    assert _with({"web": 0.75, "math": 0.25}, {"math": 0.2, "own": 0.2}, "a") == {
        "web": 0.45,
        "math": 0.35,
        "own": 0.2,
    }
    assert _with({"web": 1.0}, {"math": 0.3, "own": 0.7}, "a") == {"math": 0.3, "own": 0.7}


@pytest.mark.parametrize("share", [1.0 + 2e-9, 1.5])
def test_additions_beyond_the_stage_are_refused(share: float) -> None:
    where = r"promotion\.full\.stages\.late\.add: more than the whole stage; found: "
    with pytest.raises(ConfigError, match=where):
        _with({"web": 1.0}, {"own": share}, "late")


def test_the_stages_of_the_full_run_replace_a_single_one_only() -> None:
    asked = {"x": FullStage(share=0.25), "y": FullStage(share=0.75, add={"own": 0.5})}
    weights = {"weights": {"web": 0.5, "math": 0.5}}
    one = proxy(weights, {"main": {"share": 1.0}})
    replaced = freeze(one, full(asked))
    assert replaced == {
        "total_tokens": 5e9,
        "stages": {
            "x": {"share": 0.25, "weights": {"web": 0.5, "math": 0.5}},
            "y": {"share": 0.75, "weights": {"web": 0.25, "math": 0.25, "own": 0.5}},
        },
        "lr": replaced["lr"],
        "full_tokens": None,
    }
    assert replaced["lr"]["warmup_steps"] == 7
    kept = freeze(one, full())
    assert kept["stages"] == {"main": {"share": 1.0, "weights": {"web": 0.5, "math": 0.5}}}
    two = proxy(weights, {"p": {"share": 0.25, "weights": {"web": 1.0}}, "q": {"share": "rest"}})
    for spec in (full(asked), full()):
        assert freeze(two, spec)["stages"] == {
            "p": {"share": 0.25, "weights": {"web": 1.0}},
            "q": {"share": 0.75, "weights": {"web": 0.5, "math": 0.5}},
        }


def test_weights_of_a_stage_are_normalised_as_those_of_the_mixture() -> None:
    mixture = {"weights": {"web": 3.0, "math": 1.0}, "normalize": True}
    stages = {
        "p": {"share": 0.5, "weights": None},
        "q": {"share": 0.5, "weights": {"web": 2.0, "code": 2.0}},
    }
    found = freeze(proxy(mixture, stages), full())["stages"]
    assert found["p"]["weights"] == {"web": 0.75, "math": 0.25}
    assert found["q"]["weights"] == {"web": 0.5, "code": 0.5}


def test_sources_that_are_only_scored_stay_in_the_first_stage_with_no_weight() -> None:
    mixture = {"weights": {"web": 0.5, "math": 0.5, "scored": 0.0, "unscored": 0.0, "late": 0.0}}
    stages = {
        "p": {"share": 0.5, "weights": None},
        "q": {"share": 0.5, "weights": {"web": 0.5, "late": 0.5, "staged": 0.0}},
    }
    metrics = ("heldout_[ls]*/bpb", "arc/acc", "heldout_web/bpb")
    found = freeze(proxy(mixture, stages), full(), metrics)["stages"]
    assert found["p"]["weights"] == {"web": 0.5, "math": 0.5, "scored": 0.0, "staged": 0.0}
    assert found["q"]["weights"] == {"web": 0.5, "late": 0.5}
    without = freeze(proxy(mixture, stages), full())["stages"]
    assert without["p"]["weights"] == {"web": 0.5, "math": 0.5}
