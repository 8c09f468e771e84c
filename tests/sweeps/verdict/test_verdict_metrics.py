"""Check the metrics that a verdict reads from the rows of its runs: values, paths, gains of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.record.run_record import RunRecord
from sweeps.verdict.loading import LoadedRun
from sweeps.verdict.run_metrics import over_checkpoints, picture_gains, task_data

Metrics = Mapping[str, Mapping[str, Any]]
RULE = {"one": {"metrics": "arc/*"}}


def loaded(*rows: Metrics, config: Mapping[str, Any] | None = None) -> LoadedRun:
    """Return a run whose rows have these metrics, at 10, 20, … tokens."""
    return LoadedRun(
        record=RunRecord(Path("no-such-folder/run")),
        name="run",
        trial="run",
        seed=0,
        config=config or {},
        result={},
        score=0.0,
        direction="maximize",
        rows=tuple(
            {"step": k, "tokens": 10 * (k + 1), "metrics": row} for k, row in enumerate(rows)
        ),
        spec={},
    )


def acc(value: float | None, **more: Any) -> dict[str, Any]:
    return {"value": value, "higher_is_better": True, **more}


def values_of(path: tuple[Any, Any]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in path[1]]


def test_metrics_of_the_score_come_with_the_first_of_each_other_task() -> None:
    row = {
        "wiki": {"bpb": acc(1.0), "acc": acc(2.0)},
        "arc": {"acc": acc(3.0, chance=0.25), "margin": acc(4.0)},
        "sciq": {"margin": acc(5.0), "acc": acc(6.0)},
    }
    found = task_data([loaded(row)], RULE)
    assert [task.key for task in found] == ["wiki/bpb", "arc/acc", "arc/margin", "sciq/margin"]
    assert [task.chance for task in found] == [None, 0.25, None, None]
    assert [task.values.tolist() for task in found] == [[1.0], [3.0], [4.0], [5.0]]
    assert all(task.items is None and task.groups is None for task in found)


def test_facts_of_a_metric_are_those_of_the_first_run_that_has_it_at_its_end() -> None:
    first = loaded({"arc": {"acc": acc(9.0)}}, {"wiki": {"bpb": {"value": 1.0}}})
    second = loaded({"arc": {"acc": {"value": 2.0, "higher_is_better": False, "chance": 0.5}}})
    third = loaded({"arc": {"acc": acc(3.0, chance=0.75)}})
    wiki, arc = task_data([loaded(), first, second, third], RULE)
    assert (wiki.key, wiki.higher_is_better, wiki.chance) == ("wiki/bpb", True, None)
    assert (arc.key, arc.higher_is_better, arc.chance) == ("arc/acc", False, 0.5)
    assert values_of((0, arc.values)) == [None, None, 2.0, 3.0]
    assert [values_of(path) for path in arc.trajectories] == [[], [9.0, None], [2.0], [3.0]]
    assert [path[0].tolist() for path in arc.trajectories] == [[], [10.0, 20.0], [10.0], [10.0]]
    assert [values_of(path) for path in wiki.trajectories] == [[], [None, 1.0], [None], [None]]


@pytest.mark.parametrize(
    ("rule", "keys"),
    [
        (("arc/margin",), ["wiki/bpb", "arc/margin"]),
        (("arc/margin", "arc/none"), ["wiki/bpb", "arc/margin"]),
        (("arc/margin", "wiki/acc"), ["wiki/acc", "arc/margin"]),
        (("none/*",), ["wiki/bpb", "arc/acc"]),
        ((), ["wiki/bpb", "arc/acc"]),
        (("*/acc", "arc/*"), ["wiki/acc", "arc/acc", "arc/margin"]),
    ],
)
def test_the_first_metric_of_a_task_comes_where_none_of_it_is_in_the_score(
    rule: Sequence[str], keys: list[str]
) -> None:
    row = {
        "wiki": {"bpb": acc(1.0), "acc": acc(2.0)},
        "arc": {"acc": acc(3.0), "margin": acc(4.0)},
    }
    found = task_data([loaded(row)], {pattern: {"metrics": pattern} for pattern in rule})
    assert [task.key for task in found] == keys


def test_a_single_metric_is_followed_through_runs_of_several_rows() -> None:
    runs = [loaded(*({"arc": {"acc": acc(v)}} for v in own)) for own in ([1, 2, 3], [4], [5, 6])]
    (task,) = task_data(runs, RULE)
    assert [path[1].tolist() for path in task.trajectories] == [[1, 2, 3], [4], [5, 6]]
    assert task.values.tolist() == [3, 4, 6]


def test_a_task_that_was_not_scored_at_a_checkpoint_is_missing_there() -> None:
    rows: list[Any] = [{"arc": None}, {"arc": {"acc": None}}, {"arc": {"acc": acc(1.0)}}]
    (task,) = task_data([loaded(*rows)], RULE)
    assert values_of(task.trajectories[0]) == [None, None, 1.0]


def test_runs_without_any_metric_have_no_facts_of_tasks() -> None:
    assert not task_data([loaded(), loaded()], {})


def test_zero_is_a_value_and_null_is_none() -> None:
    rows: list[Metrics] = [{"arc": {"acc": acc(0.0)}}, {"arc": {"acc": acc(None)}}]
    last: Metrics = {"arc": {"acc": acc(0.5), "gone": {}}}
    found = task_data([loaded(*rows, last)], RULE)
    assert [values_of(task.trajectories[0]) for task in found] == [[0.0, None, 0.5], [None] * 3]


def test_runs_without_rows_have_no_gains() -> None:
    assert picture_gains([loaded(), loaded()]) == ()


def gains(gain: float | None, shuffled: float | None, **more: Any) -> dict[str, Any]:
    return {"bpb": acc(1.0), "gain": acc(gain, **more), "shuffled_gain": acc(shuffled, **more)}


def test_gains_come_task_by_task_with_their_noise_and_their_draws() -> None:
    first = loaded(
        {"look": gains(9.0, 9.0, stderr=9.0, n=9)},
        {
            "look": gains(0.5, 0.25, stderr=0.1, groups=7, n=70),
            "text": {"bpb": acc(1.0)},
            "read": {"shuffled_gain": acc(0.75, n=5)},
        },
    )
    second = loaded({"look": gains(0.0, None, stderr=0.0, groups=0, n=30)})
    found = picture_gains([first, second, loaded()])
    keys = ["look/gain", "look/shuffled_gain", "read/gain", "read/shuffled_gain"]
    assert [one.data.key for one in found] == keys
    assert [values_of((0, one.data.values)) for one in found] == [
        [0.5, 0.0, None],
        [0.25, None, None],
        [None, None, None],
        [0.75, None, None],
    ]
    assert [values_of((0, one.errors)) for one in found] == [
        [0.1, 0.0, None],
        [0.1, 0.0, None],
        [None, None, None],
        [None, None, None],
    ]
    assert values_of((0, found[0].draws)) == [7.0, 30.0, None]
    assert values_of((0, found[3].draws)) == [5.0, None, None]
    assert all(one.data.higher_is_better for one in found)
    assert [values_of(path) for path in found[0].data.trajectories] == [[9.0, 0.5], [0.0], []]


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        ({}, []),
        ({"evaluation": None, "source": None}, []),
        ({"evaluation": {"tasks": None}}, []),
        ({"evaluation": {"tasks": {"look": {"form": "picture"}}}}, ["look"]),
        ({"evaluation": {"tasks": {"look": {"form": "choice"}, "read": None}}}, []),
        ({"evaluation": {"tasks": {"gone": {"form": "picture"}}}}, []),
        ({"source": {"digits": {"rows": {"kind": "pictures"}}}}, ["heldout_digits"]),
        ({"source": {"digits": {"rows": {"kind": "chat"}}}}, []),
        ({"source": {"digits": {"rows": None}, "web": "path", "gone": {}}}, []),
        (
            {
                "evaluation": {"tasks": {"read": {"form": "picture"}}},
                "source": {"digits": {"rows": {"kind": "pictures"}}},
            },
            ["heldout_digits", "read"],
        ),
    ],
)
def test_tasks_about_pictures_are_declared_where_they_were_scored(
    config: Mapping[str, Any], tasks: Sequence[str]
) -> None:
    names = ("heldout_digits", "look", "read")
    run = loaded({name: {"bpb": acc(1.0)} for name in names}, config=config)
    found = picture_gains([run])
    assert [one.data.task for one in found] == [name for name in tasks for _ in range(2)]
    assert all(np.isnan(one.data.values).all() for one in found)


def test_a_value_over_checkpoints_is_missing_where_it_is_none() -> None:
    run = loaded({"a": {"m": acc(1.0)}}, {}, {"a": {"m": acc(0.0)}})
    tokens, values = over_checkpoints(
        run, lambda row: row["metrics"].get("a", {}).get("m", {}).get("value")
    )
    assert tokens.tolist() == [10.0, 20.0, 30.0]
    assert values_of((0, values)) == [1.0, None, 0.0]
