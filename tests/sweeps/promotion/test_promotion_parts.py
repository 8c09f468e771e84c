"""Freezing, cost, arms, stages and weak spots: the parts that need no study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.config.schema import load, validate
from ablations.errors import ConfigError
from ablations.mixture.specs import LearningRateSpec, ScheduleSpec
from ablations.record.run_record import RunRecord
from ablations.training.specs import ModelSpec
from sweeps.programs.annealing import CONTROL, ArmsSpec, arm_mixtures, require_fork
from sweeps.programs.stage_report import (
    WeakSpot,
    WeakSpots,
    movements,
    movers,
    paired_error,
    report,
)
from sweeps.programs.stagewise import StagesSpec, StageWinner, _overrides, _require_stages
from sweeps.promotion.full_run_cost import estimate, stage_hours
from sweeps.promotion.full_schedule import freeze
from sweeps.promotion.specs import FullSpec, FullStage, PriceSpec
from tests.sweeps.promotion.conftest import composed

FULL = FullSpec(
    name="full", total_tokens=1e12, lr=LearningRateSpec(warmup_steps=10), tokenizer="example"
)


def proxy(stages: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    mixture = {"weights": dict(weights)}
    return {"mixture": mixture, "schedule": {"total_tokens": 1e6, "stages": dict(stages)}}


def test_a_searched_mixture_fills_the_stages_of_the_full_run() -> None:
    stages = {"a": FullStage(share=0.75), "b": FullStage(share=0.25, add={"math": 0.2})}
    full = FullSpec(
        name="f", total_tokens=1e12, lr=LearningRateSpec(), tokenizer="t", stages=stages
    )
    frozen = freeze(proxy({"main": {"share": 1.0}}, {"web": 0.6, "math": 0.4}), full)
    assert frozen["stages"]["a"] == {"share": 0.75, "weights": {"web": 0.6, "math": 0.4}}
    assert frozen["stages"]["b"]["weights"] == pytest.approx({"web": 0.48, "math": 0.52})
    assert frozen["total_tokens"] == 1e12


def test_a_study_with_stages_keeps_its_own() -> None:
    stages = {
        "one": {"share": 0.8, "weights": {"web": 1.0}},
        "two": {"share": 0.2, "weights": None},
    }
    full = FullSpec(
        name="f",
        total_tokens=2e12,
        lr=LearningRateSpec(),
        tokenizer="t",
        stages={"x": FullStage(share=1.0)},
    )
    frozen = freeze(proxy(stages, {"web": 0.5, "math": 0.5}), full)
    assert {name: stage["share"] for name, stage in frozen["stages"].items()} == {
        "one": 0.8,
        "two": pytest.approx(0.2),
    }
    assert frozen["stages"]["one"]["weights"] == {"web": 1.0}
    assert frozen["stages"]["two"]["weights"] == {"web": 0.5, "math": 0.5}


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).filter(lambda v: sum(v) > 0.1))
def test_a_frozen_mixture_is_the_searched_one_and_sums_to_one(values: list[float]) -> None:
    total = sum(values)
    weights = {f"s{i}": value / total for i, value in enumerate(values)}
    frozen = freeze(proxy({"main": {"share": 1.0}}, weights), FULL)
    found = frozen["stages"]["main"]["weights"]
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
    assert all(found.get(name, 0.0) == pytest.approx(w, abs=1e-8) for name, w in weights.items())


@pytest.mark.parametrize(
    "stages",
    [{"a": FullStage(share=0.5)}, {"a": FullStage(share=1.0, add={"math": 1.5})}],
    ids=["shares do not sum to one", "more than the stage"],
)
def test_stages_that_cannot_be_are_refused(stages: dict[str, FullStage]) -> None:
    with pytest.raises(ConfigError):
        FullSpec(name="f", total_tokens=1e9, lr=LearningRateSpec(), tokenizer="t", stages=stages)


def test_the_cost_of_the_1b7_is_the_published_one() -> None:
    config = load(composed("experiment=smollm2_1b7"))
    schedule = config.build_schedule()
    found = estimate(
        config.model, tokens=11e12, sequence_length=2048, price=PriceSpec(), devices=256
    )
    assert found.usd == pytest.approx(250_000, rel=0.05)  # "about 250,000 dollars of compute"
    hours = stage_hours(found, schedule)
    assert sum(hours.values()) == pytest.approx(found.device_hours)
    assert found.wall_days == pytest.approx(found.device_hours / 256 / 24)


def test_the_cost_grows_with_the_tokens() -> None:
    model = ModelSpec(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    price = PriceSpec()
    one, two = (
        estimate(model, tokens=tokens, sequence_length=8, price=price, devices=1)
        for tokens in (1e6, 2e6)
    )
    assert two.flops == pytest.approx(2 * one.flops)


# ---------------------------------------------------------------------------------- annealing arms


def test_an_arm_is_sixty_percent_the_source_under_test() -> None:
    spec = ArmsSpec(module="m", arms={"math": {"math": 1.0}, "both": {"math": 0.5, "code": 0.5}})
    found = arm_mixtures({"web": 0.9, "code": 0.1}, spec)
    assert list(found) == [CONTROL, "math", "both"]
    assert dict(found[CONTROL]) == pytest.approx({"web": 0.9, "code": 0.1, "math": 0.0})
    assert dict(found["math"]) == pytest.approx({"web": 0.36, "code": 0.04, "math": 0.6})
    assert dict(found["both"]) == pytest.approx({"web": 0.36, "code": 0.34, "math": 0.3})


@pytest.mark.parametrize(
    "changed",
    [{"share": 0.0}, {"share": 1.1}, {"arms": {}}, {"arms": {CONTROL: {"math": 1.0}}}],
    ids=["no share", "more than all", "no arm", "an arm called control"],
)
def test_arms_that_cannot_be_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ArmsSpec(**{"arms": {"math": {"math": 1.0}}, **changed})


@pytest.mark.parametrize(
    "stages",
    [
        {"one": {"tokens": 1.0}},
        {"one": {"tokens": 1.0}, "two": {"tokens": 1.0}},
        {
            "one": {"tokens": 1.0, "weights": {"a": 1.0}},
            "two": {"tokens": 1.0, "weights": {"a": 1.0}},
        },
    ],
    ids=["one stage", "no weights before", "weights after"],
)
def test_arms_need_a_fork(stages: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fork a checkpoint"):
        require_fork(validate(ScheduleSpec, {"stages": stages}))


# ---------------------------------------------------------------------------------- stage by stage


def test_stage_k_fixes_the_stages_before_and_starts_from_their_checkpoint() -> None:
    run = load(composed("experiment=demo_stages"))
    spec = StagesSpec(module="m", trials={"second": 4})
    stages = list(run.schedule.stages)
    assert stages == ["first", "second", "decay"]
    winners = [
        StageWinner(
            stage="first",
            study="s-1-first",
            trial="trial-0002",
            name="",
            outcome="winner",
            weights={"wiki": 0.7, "chat": 0.3},
            run="s-1-first/trial-0002-0",
            checkpoint="/runs/checkpoints/200",
        )
    ]
    found = _overrides(run, spec, stages, winners, 2)
    assert "schedule.stages.first.weights={wiki: 0.7, chat: 0.3}" in found
    assert "~schedule.stages.decay" in found
    assert "warm_start.checkpoint=/runs/checkpoints/200" in found
    assert "schedule.lr.decay_steps=0" in found  # only the last stage decays
    assert "search.budget.trials=4" in found
    last = _overrides(run, spec, stages, [*winners, *winners], 3)
    assert not [o for o in last if o.startswith(("~", "schedule.lr"))]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.stages.first.weights={wiki: 1.0}", "cannot be searched"),
        ("schedule.lr.decay_steps=null", "must be in steps"),
    ],
)
def test_what_cannot_be_searched_stage_by_stage_is_refused(override: str, message: str) -> None:
    run = load(composed("experiment=demo_stages", override))
    with pytest.raises(ConfigError, match=message):
        _require_stages(run, StagesSpec(module="m"))


def test_an_unknown_stage_in_the_trials_is_refused() -> None:
    run = load(composed("experiment=demo_stages"))
    with pytest.raises(ConfigError, match="no such stage"):
        _require_stages(run, StagesSpec(module="m", trials={"fourth": 3}))


# -------------------------------------------------------------------------------------- weak spots


def row(value: float, stderr: float = 0.01, higher: bool = False) -> dict[str, Any]:
    return {"value": value, "stderr": stderr, "higher_is_better": higher}


def test_a_metric_moved_when_it_left_the_noise_of_its_items() -> None:
    before = {
        "a/bpb": row(3.0),
        "b/bpb": row(3.0),
        "c/bpb": row(3.0),
        "d/acc": row(0.3, higher=True),
    }
    after = {
        "a/bpb": row(2.9),
        "b/bpb": row(3.02),
        "c/bpb": row(3.1),
        "d/acc": row(0.4, higher=True),
        "e/bpb": row(1.0),
    }
    assert movements(before, after) == {
        "a/bpb": "gained",
        "b/bpb": "stalled",
        "c/bpb": "fell",
        "d/acc": "gained",
        "e/bpb": "new",
    }


def test_the_same_items_in_pairs_detect_smaller_changes(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    level = np.linspace(1.0, 5.0, 40)
    records = []
    for name, shift in (("before", 0.0), ("after", -0.1)):
        record = RunRecord(tmp_path / name)
        details = record.path / "details" / "8"
        details.mkdir(parents=True)
        values = level + shift + 0.01 * np.cos(np.arange(40) + shift)
        ids = [f"item-{place}" for place in range(40)]
        pq.write_table(pa.table({"item_id": ids, "bpb": values}), details / "a.parquet")
        record.add_scores({"step": 8, "metrics": {"a": {"bpb": row(float(values.mean()), 0.18)}}})
        records.append(record)
    first, second = records
    error = paired_error(first, second, "a/bpb")
    assert error is not None
    assert error < 0.01
    before, after = ({"a/bpb": r.scores()[-1]["metrics"]["a"]["bpb"]} for r in records)
    assert movements(before, after) == {"a/bpb": "stalled"}
    assert movements(before, after, {"a/bpb": error}) == {"a/bpb": "gained"}
    assert paired_error(first, second, "a/acc") is None
    assert paired_error(first, second, "b/bpb") is None


def test_the_surrogate_names_the_source_that_helps() -> None:
    trials = []
    for step in range(8):
        wiki = 0.1 + 0.1 * step
        weights = {"wiki": wiki, "math": 1.0 - wiki}
        trials.append(
            (weights, {"math/bpb": 3.0 - (1.0 - wiki), "wiki/acc": wiki, "gap/bpb": None})
        )
    found = movers(trials, {"math/bpb": False, "wiki/acc": True, "gap/bpb": False})
    assert found["math/bpb"][0][0] == "math"
    assert found["math/bpb"][0][1] > 0.0
    assert found["wiki/acc"][0][0] == "wiki"
    assert "gap/bpb" not in found


def test_too_few_trials_give_no_movers() -> None:
    assert movers([({"wiki": 1.0}, {"a/bpb": 1.0})] * 4, {"a/bpb": False}) == {}


def test_the_report_puts_what_fell_first() -> None:
    def spot(metric: str, movement: Any, target: float | None = None) -> WeakSpot:
        return WeakSpot(
            metric=metric,
            before=3.0,
            after=2.5,
            higher_is_better=False,
            movement=movement,
            target=target,
            reached=None if target is None else target >= 2.5,
            movers=(("math", 0.02), ("chat", -0.01)),
        )

    spots = (spot("a/bpb", "gained"), spot("b/bpb", "fell", 2.0), spot("c/bpb", "stalled", 2.6))
    text = report(WeakSpots(stage="one", spots=spots, trials=8))
    assert text.index("b/bpb") < text.index("c/bpb") < text.index("a/bpb")
    assert "**not reached**" in text
    assert "math (+0.0200)" in text
    assert "chat" not in text
