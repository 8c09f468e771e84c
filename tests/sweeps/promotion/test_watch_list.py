"""The watch list of a full run follows from the promotion's record."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.promotion.decision_card import watch_list


def record(*, effects: dict[str, str], epochs: float | None) -> dict[str, Any]:
    return {
        "verdict": {
            "tasks": [{"task": task, "effect": effect} for task, effect in effects.items()]
        },
        "sources": {"code": {"epochs": epochs}},
        "epoch_cap": 4.0,
        "stages": [
            {"name": "stable", "first_step": 1},
            {"name": "decay", "first_step": 1201},
        ],
        "gates": [],
        "learning_rate": {"total_steps": 1500, "decay_steps": 300, "tail_steps": 100},
    }


def test_the_tasks_that_got_worse_are_named_and_no_others() -> None:
    effects = {"wiki": "pays", "coding": "gains", "arc": "not shown", "piqa": "unknown"}
    (item,) = [i for i in watch_list(record(effects=effects, epochs=0.5)) if "in the proxies" in i]
    assert item == "the tasks that got worse in the proxies: wiki"


def test_without_a_worse_task_none_is_named() -> None:
    items = watch_list(record(effects={"coding": "gains"}, epochs=None))
    assert not [item for item in items if "in the proxies" in item]


@pytest.mark.parametrize(("epochs", "named"), [(3.2, False), (3.3, True), (None, False)])
def test_sources_near_their_cap_are_named(epochs: float | None, named: bool) -> None:
    items = watch_list(record(effects={}, epochs=epochs))
    assert any("most repeated sources: code (3.3 epochs)" in item for item in items) == named


def test_the_checkpoint_before_each_later_stage_is_named() -> None:
    items = watch_list(record(effects={}, epochs=None))
    assert any(
        item.startswith("before stage decay: the checkpoint of step 1,200") for item in items
    )
    assert not any(item.startswith("before stage stable") for item in items)


def test_the_rate_falls_before_its_tail() -> None:
    items = watch_list(record(effects={}, epochs=None))
    assert any("starts to fall after step 1,100" in item for item in items)
