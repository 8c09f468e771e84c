"""Check the parts of a plan: cost, disk, warm starts, stores that cannot be used, caps and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations import plan as module
from ablations.data import expected
from ablations.errors import ConfigError, Problem
from ablations.mixture.repeats import PUBLISHED, RepeatLaw
from ablations.plan import checkpoint_bytes, make_plan
from ablations.price import PriceSpec, cost_of
from tests.oracles.stores import write_store
from tests.test_plan import EVEN, FULL, SOURCES, STATED, composed


def some(**values: Any) -> Any:
    return SimpleNamespace(**values)


PRICE = PriceSpec(mfu=0.5, usd_per_device_hour=3.0, overhead=0.0)


@pytest.mark.parametrize(
    ("device", "gpus", "on_gpus"),
    [
        ("cuda", [], True),
        ("auto", ["0"], True),
        ("auto", [], False),
        ("cpu", ["0"], False),
    ],
)
def test_the_cost_is_that_of_the_device_that_will_train(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: list[str], on_gpus: bool
) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: gpus)
    cost = module._cost(some(device=device, dp=2, tp=3, pp=5), 60e9 * 7200.0, PRICE)
    if on_gpus:
        assert cost == cost_of(60e9 * 7200.0, PRICE, 30)
        assert cost.devices == 30
    else:
        assert (cost.device, cost.devices, cost.usd) == ("2 CPU cores", 1, None)
        assert cost.device_hours == pytest.approx(2.0)


def test_a_plan_tells_the_seconds_of_either_device(workspace: Path) -> None:
    plan = make_plan(composed("execution.device=cpu"))
    assert plan.seconds == {
        "2 CPU cores": pytest.approx(plan.flops / 60e9),
        "H100 at 40% MFU": pytest.approx(plan.flops / 395.6e12),
    }
    assert plan.cost.device_hours == pytest.approx(plan.flops / 60e9 / 3600)
    assert plan.vision is None
    assert plan.parameters == composed().model.parameters
    assert plan.disk_bytes == 2 * 16 * plan.parameters
    on_gpu = make_plan(composed("execution.device=cuda"), price=PRICE)
    assert on_gpu.cost == cost_of(plan.flops, PRICE, 1)


@pytest.mark.parametrize(
    ("dtype", "vision", "size"),
    [
        ("float32", None, 1600.0),
        ("bfloat16", None, 1800.0),
        ("float32", 5, 1680.0),
        ("bfloat16", 5, 1890.0),
    ],
)
def test_a_checkpoint_holds_weights_moments_and_an_export(
    dtype: str, vision: int | None, size: float
) -> None:
    config = some(training=some(dtype=dtype), model=some(parameters=100))
    assert checkpoint_bytes(config, some(parameters=vision) if vision else None) == size


@pytest.mark.parametrize(
    ("checkpoint", "stated", "state", "first"),
    [
        (None, None, 9, 0),
        (None, 4, 9, 4),
        ("there", 4, 9, 4),
        ("there", 0, 9, 0),
        ("there", None, 9, 9),
        ("there", None, None, 0),
    ],
)
def test_a_warm_start_begins_at_the_stated_step_or_the_checkpoint_s_own(
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: str | None,
    stated: int | None,
    state: int | None,
    first: int,
) -> None:
    monkeypatch.setattr(module, "read_state", lambda path: some(step=state) if state else None)
    start = some(checkpoint=checkpoint, first_step=stated)
    assert module._first_step(some(warm_start=start)) == first


@pytest.mark.parametrize(
    ("full", "sliced"), [(None, False), (999, False), (1000, False), (1001, True)]
)
def test_epochs_are_simulated_of_a_larger_budget_alone(
    monkeypatch: pytest.MonkeyPatch, full: int | None, sliced: bool
) -> None:
    asked: list[tuple[Any, ...]] = []

    def slices(*given: Any) -> dict[str, int]:
        asked.append(given)
        return {"a": 1}

    monkeypatch.setattr(module, "simulated_slices", slices)
    stores: Any = {"a": some(num_windows=lambda length: 10 * length)}
    config = some(schedule=some(full_tokens=full), source={"a": some(tokens_available=None)})
    schedule = some(total_tokens=1000, sequence_length=8)
    found = module._slices(config, schedule, stores)
    assert found == ({"a": 1} if sliced else None)
    assert asked == ([(schedule, {"a": 80}, {"a": 0.0}, full)] if sliced else [])


@pytest.mark.parametrize(("stated", "tokens"), [(None, 0.0), (0, 0.0), (30, 30.0)])
def test_a_source_that_states_no_tokens_has_none(stated: int | None, tokens: float) -> None:
    found = module._stated_tokens(some(source={"a": some(tokens_available=stated)}), "a")
    assert found == tokens
    assert isinstance(found, float)


def test_every_problem_of_a_plan_is_raised(workspace: Path) -> None:
    plan = make_plan(composed())
    plan.require()
    wrong = replace(plan, problems=(Problem("a", "wrong"), Problem("b", "worse")))
    with pytest.raises(ConfigError, match=r"a: wrong\nb: worse"):
        wrong.require()


def test_the_tokens_of_each_stage_are_divided_by_weight(workspace: Path) -> None:
    plan = make_plan(
        composed(
            "~schedule.stages.main",
            "+schedule.stages={stable:{share:rest},decay:{share:0.25}}",
        )
    )
    for row in plan.rows:
        steps = {"stable": 6, "decay": 2}[row.stage]
        assert row.tokens == pytest.approx(row.weight * steps * 256)
    assert sum(row.tokens for row in plan.rows) == pytest.approx(2048)


# ------------------------------------------------------------------------------------------ stores


@pytest.mark.parametrize(
    ("size", "of_rows", "wrong"), [(64, False, 0), (63, False, 1), (63, True, 0), (65, False, 0)]
)
def test_a_model_needs_the_vocabulary_of_its_stores_unless_it_grows(
    tmp_path: Path, size: int, of_rows: bool, wrong: int
) -> None:
    write_store(tmp_path / "web", vocab_size=64, tokens=500, seed=0)
    write_store(tmp_path / "torn", vocab_size=64, tokens=500, seed=0)
    (tmp_path / "torn/heldout.jsonl").unlink()
    config = some(
        store_folder=lambda name: tmp_path / name,
        method=some(of_rows=of_rows),
        model=some(vocab_size=size),
    )
    stores, problems = module._open_stores(config, some(sources=("none", "torn", "web")))
    assert list(stores) == ["web"]
    assert problems[0].where == str(tmp_path / "torn/heldout.jsonl")
    assert len(problems) == 1 + wrong
    if wrong:
        assert problems[1].where == "model.vocab_size"
        assert (problems[1].found, problems[1].allowed) == (63, ">= 64")


def test_what_is_not_prepared_is_expected_from_the_mirror_and_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, ...]] = []

    def expects(source: Any, names: Any, *more: Any, **named: Any) -> Mapping[str, Any]:
        asked.append((tuple(names), *more[1:], named))
        return {name: some(tokens=1e9) for name in names}

    monkeypatch.setattr(expected, "expected_stores", expects)
    config = composed("data_dir=nowhere")
    plan = make_plan(config, mirror=tmp_path)
    assert plan.available_tokens == dict.fromkeys(plan.schedule.sources, 1e9)
    assert list(plan.to_prepare) == list(plan.schedule.sources)
    assert asked == [
        (
            tuple(plan.schedule.sources),
            Path("nowhere"),
            {"mirror": tmp_path, "vocab_size": config.model.vocab_size},
        )
    ]
    assert module._to_prepare(config, [], None) == {}
    assert len(asked) == 1


# -------------------------------------------------------------------------------------------- caps


@pytest.mark.parametrize("own", [True, False])
def test_caps_and_worth_follow_the_law_of_the_study_or_the_published_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    calls: list[dict[str, Any]] = []
    laws: list[RepeatLaw] = []

    def caps(schedule: Any, tokens: Mapping[str, float], **named: Any) -> list[Problem]:
        calls.append({**named, "tokens": dict(tokens)})
        return [Problem(f"cap {len(calls)}", "broken")]

    def worth(law: RepeatLaw, schedule: Any, tokens: Mapping[str, float]) -> dict[str, float]:
        laws.append(law)
        return dict.fromkeys(tokens, 7.0)

    monkeypatch.setattr(module, "broken_caps", caps)
    monkeypatch.setattr(module, "effective_tokens", worth)
    law = RepeatLaw(constant=4.0, low=3.0, high=5.0, study="s") if own else None
    config = composed(*EVEN, *STATED, *FULL, "+mixture.epoch_cap_exempt.synthetic_facts=published")
    mixture = replace(config.mixture, repeats=law)
    plan = make_plan(replace(config, mixture=mixture))
    assert laws == [law or PUBLISHED]
    assert plan.effective_tokens == dict.fromkeys(SOURCES, 7.0)
    assert [problem.where for problem in plan.problems] == ["cap 1", "cap 2"]
    shared = {
        "epoch_cap": mixture.most_epochs,
        "exempt": {"synthetic_facts": "published"},
        "law": law,
    }
    # The slices of simulated epochs are 96 windows of 32 tokens.
    assert calls == [
        {**shared, "tokens": dict.fromkeys(SOURCES, 96 * 32)},
        {**shared, "tokens": dict.fromkeys(SOURCES, 30_000.0), "full_tokens": 180_000},
    ]


def test_a_run_of_no_larger_budget_has_its_own_caps_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def caps(*_: Any, **named: Any) -> list[Problem]:
        calls.append(named)
        return []

    monkeypatch.setattr(module, "broken_caps", caps)
    make_plan(composed(*EVEN, *STATED))
    assert len(calls) == 1
    assert "full_tokens" not in calls[0]
