"""Check the proxies of a study, the choice among them, and the transfer of a ranking, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from sweeps.verdict.proxies import ProxyConfig, choose_proxy, mixture_of, proxy_of, transfers
from sweeps.verdict.transfer import Transfer, transfer

CHEAP, MIDDLE, DEAR = (
    ProxyConfig(cost=cost, name=name, model="{}")
    for cost, name in ((1.0, "z"), (2.0, "m"), (3.0, "a"))
)


@pytest.mark.parametrize(
    ("config", "cost", "name"),
    [
        (
            {
                "model": {"num_hidden_layers": 3, "hidden_size": 4},
                "schedule": {"total_tokens": 1000},
            },
            48000.0,
            "width 4, depth 3, 1e+03 tokens",
        ),
        ({"schedule": {"total_samples": 7}}, 7.0, "width 1, depth 1, 7 tokens"),
        (
            {"schedule": {"stages": {"a": {"tokens": 5}, "b": {"share": 0.5}, "c": {"tokens": 6}}}},
            11.0,
            "width 1, depth 1, 11 tokens",
        ),
        (
            {"schedule": {"total_tokens": 3, "total_samples": 9, "stages": {"a": {"tokens": 5}}}},
            3.0,
            "width 1, depth 1, 3 tokens",
        ),
        ({}, 0.0, "width 1, depth 1, 0 tokens"),
    ],
)
def test_a_proxy_is_a_model_at_a_number_of_tokens(
    config: Mapping[str, Any], cost: float, name: str
) -> None:
    found = proxy_of(config)
    assert (found.cost, found.name) == (cost, name)
    assert isinstance(found.cost, float)


def test_the_model_of_a_proxy_is_told_whatever_the_order_of_its_keys() -> None:
    first = proxy_of({"model": {"hidden_size": 2, "act": "relu"}})
    second = proxy_of({"model": {"act": "relu", "hidden_size": 2}})
    assert first == second
    assert first.model == '{"act":"relu","hidden_size":2}'


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, "[null,[]]"),
        ({"mixture": {"weights": {"b": 0.25, "a": 0.75}}}, '[{"a":0.75,"b":0.25},[]]'),
        (
            {"schedule": {"total_tokens": 8, "stages": {"x": {"share": 0.25, "tokens": 7}}}},
            "[null,[[null,0.25]]]",
        ),
        (
            {
                "mixture": {"weights": {"a": 1.0}},
                "schedule": {
                    "total_tokens": 8,
                    "stages": {"x": {"tokens": 2}, "y": {"weights": {"b": 1.0}, "tokens": 6}},
                },
            },
            '[{"a":1.0},[[null,0.25],[{"b":1.0},0.75]]]',
        ),
        (
            {"schedule": {"stages": {"x": {"tokens": 2}, "y": {"tokens": 6}}}},
            "[null,[[null,0.25],[null,0.75]]]",
        ),
        ({"schedule": {"stages": {"x": {}}}}, "[null,[[null,0.0]]]"),
    ],
)
def test_a_mixture_is_its_weights_and_the_shares_of_its_stages(
    config: Mapping[str, Any], key: str
) -> None:
    assert mixture_of(config) == key


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ([], None),
        ([(CHEAP, "a"), (CHEAP, "b")], None),
        ([(CHEAP, "a"), (CHEAP, "b"), (DEAR, "a"), (DEAR, "c")], None),
        ([(DEAR, "a"), (DEAR, "b"), (CHEAP, "a"), (CHEAP, "b")], DEAR),
        (
            [
                (CHEAP, "a"),
                (CHEAP, "b"),
                (MIDDLE, "b"),
                (MIDDLE, "a"),
                (MIDDLE, "c"),
                (DEAR, "c"),
                (DEAR, "x"),
            ],
            MIDDLE,
        ),
    ],
)
def test_the_costliest_proxy_that_shares_two_mixtures_decides(
    runs: list[tuple[ProxyConfig, str]], chosen: ProxyConfig | None
) -> None:
    assert choose_proxy([proxy for proxy, _ in runs], [mixture for _, mixture in runs]) == chosen


def test_each_other_proxy_that_shares_two_mixtures_is_compared_with_the_one_that_decides() -> None:
    means = {
        DEAR: {"a": 1.0, "b": 2.0, "c": 3.0},
        MIDDLE: {"a": 5.0, "c": 4.0},
        CHEAP: {"a": 1.0, "b": 2.0, "x": 0.0},
        ProxyConfig(cost=2.5, name="one", model="{}"): {"a": 1.0, "y": 2.0},
    }
    found = transfers(means, DEAR)
    assert [(one.small, one.large, one.mixtures) for one in found] == [("z", "a", 2), ("m", "a", 2)]
    assert [one.decision_accuracy for one in found] == [1.0, 0.0]
    assert transfers({DEAR: means[DEAR]}, DEAR) == ()


def test_equal_scores_on_one_side_make_no_pair() -> None:
    """Of six pairs one ties at the small size and one at the large one; one of the rest is turned."""
    small = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 3.0}
    large = {"d": 9.0, "c": 5.0, "b": 5.0, "a": 7.0, "e": 0.0}
    found = transfer(small, large, small="s", large="l")
    # Ranks 1.5, 1.5, 3, 4 against 3, 1.5, 1.5, 4.
    assert found == Transfer(
        small="s",
        large="l",
        mixtures=4,
        pairs=4,
        rank_correlation=0.5,
        rank_interval=None,
        decision_accuracy=0.75,
        decision_interval=None,
    )


@pytest.mark.parametrize(
    ("count", "rank"), [(0, None), (1, None), (2, None), (3, 0.5), (4, pytest.approx(0.8))]
)
def test_a_rank_correlation_needs_three_mixtures(count: int, rank: float | None) -> None:
    small = {str(k): float(k) for k in range(count)}
    large = {str(k): value for k, value in enumerate((0.0, 2.0, 1.0, 3.0)[:count])}
    found = transfer(small, large, small="s", large="l")
    assert (found.mixtures, found.rank_correlation) == (count, rank)
    if count < 2:
        assert (found.pairs, found.decision_accuracy) == (0, None)


def test_constant_scores_have_no_rank_and_no_interval() -> None:
    flat = dict.fromkeys("abcdef", 1.0)
    rising = {name: float(k) for k, name in enumerate("abcdef")}
    found = transfer(flat, rising, small="s", large="l")
    assert (found.pairs, found.rank_correlation, found.decision_accuracy) == (0, None, None)
    assert (found.rank_interval, found.decision_interval) == (None, None)


def test_an_interval_leaves_a_fortieth_of_the_resampled_mixtures_on_each_side() -> None:
    """Resample six mixtures in another way, one after another, and compare the quantiles."""
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.0, 0.0, 2.0, 4.0, 3.0, 5.0])
    names = "abcdef"
    found = transfer(
        dict(zip(names, x.tolist(), strict=True)),
        dict(zip(names, y.tolist(), strict=True)),
        small="s",
        large="l",
    )
    rng, shares = np.random.default_rng(3), []
    for _ in range(4000):
        rows = rng.integers(0, 6, 6)
        pairs = [
            (x[i] - x[j]) * (y[i] - y[j]) for k, i in enumerate(rows) for j in rows[:k] if i != j
        ]
        if pairs:
            shares.append(np.mean(np.array(pairs) > 0.0))
    low, high = np.quantile(shares, [0.025, 0.975])
    assert found.decision_interval is not None
    assert found.rank_interval is not None
    assert found.decision_interval[0] == pytest.approx(low, abs=0.02)
    assert found.decision_interval[1] == pytest.approx(high, abs=0.02)
    assert found.rank_interval[0] < found.decision_interval[0]
    assert found.rank_interval[1] == 1.0


def test_draws_of_an_interval_are_the_same_each_time_and_as_many_as_asked_for() -> None:
    small = {str(k): float(k) for k in range(6)}
    large = {str(k): float((k * 5) % 7) for k in range(6)}
    first, second = (transfer(small, large, small="s", large="l") for _ in range(2))
    assert first == second
    few = transfer(small, large, small="s", large="l", draws=1)
    assert few.decision_interval is not None
    assert few.decision_interval[0] == few.decision_interval[1]
