"""Check the slopes that a study measured against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ablations.record.run_record import RunRecord
from sweeps.promotion import slopes
from sweeps.promotion.slopes import (
    _between,
    _mixture,
    _pooled_error,
    _Proxy,
    checkpoint_slope,
    other_scales,
    slope_of,
    tokens_of,
)
from tests.conftest import TINY
from tests.sweeps.promotion.conftest import composed

SCHEDULE = {"total_tokens": 1000, "stages": {"a": {"share": 0.6}, "b": {"share": 0.4}}}


# ------------------------------------------------------------------------------------------ the fit


def fitted(
    small: Sequence[Sequence[float]],
    large: Sequence[Sequence[float]],
    error: Sequence[Sequence[float]],
) -> tuple[float, float] | None:
    return slope_of(np.array(small), np.array(large), np.array(error))


def test_a_slope_of_one_metric_is_the_ratio_of_its_differences() -> None:
    """The noise of both sides: 0.01 · √(1 + 3²) / 0.1."""
    found = fitted([[0.1]], [[0.3]], [[0.01]])
    assert found == pytest.approx((3.0, 0.01 * math.sqrt(10.0) / 0.1))
    assert fitted([[0.1]], [[0.3]], [[0.0]]) == pytest.approx((3.0, 0.0))
    assert fitted([[0.1]], [[-0.3]], [[0.0]]) == pytest.approx((-3.0, 0.0))


def test_a_metric_counts_less_the_noisier_it_is() -> None:
    """Both have size 5; weights 1/0.04 = 25 and 1/(0.04 + 0.2²) = 12.5."""
    found = fitted([[3.0, 4.0]], [[4.0, 3.0]], [[0.0, 1.0]])
    slope = (25.0 * 0.48 + 12.5 * 0.48) / (25.0 * 0.36 + 12.5 * 0.64)
    noise = math.sqrt(12.5**2 * 0.64 * 0.04 * (1.0 + slope**2)) / 17.0
    assert found == pytest.approx((slope, noise))


def test_each_metric_is_scaled_by_its_own_size_over_all_rows() -> None:
    found = fitted([[3.0, 300.0], [4.0, 400.0]], [[4.0, 600.0], [3.0, 800.0]], [[0.0] * 2] * 2)
    # Sizes 5 and √((9 + 16 + 36 + 64)/2)·100: the first metric is steep by 24/25, the second by 2.
    share = 25.0 / 62.5
    assert found == pytest.approx(((0.96 + 2.0 * share) / (1.0 + share), 0.0))


def test_metrics_without_difference_or_with_unknown_noise_are_left_out() -> None:
    small, large = [[3.0, 0.0, 7.0], [3.0, 0.0, 7.0]], [[4.0, 0.0, 9.0], [4.0, 0.0, 9.0]]
    errors = [[0.0, 0.0, 0.0], [0.0, 0.0, math.inf]]
    assert fitted(small, large, errors) == pytest.approx((4.0 / 3.0, 0.0))
    assert fitted([[0.0]], [[2.0]], [[0.1]]) is None
    assert fitted([[0.0]], [[0.0]], [[0.1]]) is None
    assert fitted([[1.0]], [[2.0]], [[math.nan]]) is None


def test_the_noise_of_a_difference_is_pooled_over_both_sides() -> None:
    """Column by column: squares 0.02 + 0.08 and 0 + 2 over two degrees of freedom, times 1/2 + 1/2."""
    tables = [np.array([[1.0, 5.0], [1.2, 5.0]]), np.array([[2.0, 1.0], [2.4, 3.0]])]
    assert _pooled_error(tables) == pytest.approx([math.sqrt(0.05), 1.0])
    lone = [np.array([[1.0, 5.0], [1.2, 7.0]]), np.array([[2.0, 1.0]])]
    assert _pooled_error(lone) == pytest.approx([math.sqrt(0.03), math.sqrt(3.0)])
    three = [np.array([[1.0], [2.0], [3.0]]), np.array([[2.0]])]
    assert _pooled_error(three) == pytest.approx([math.sqrt(2.0 / 2.0 * (1.0 / 3.0 + 1.0))])
    none = [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])]
    assert _pooled_error(none).tolist() == [math.inf, math.inf]


# -------------------------------------------------------------------------------------- checkpoints


def scored(path: Path, rows: Mapping[float, Mapping[str, float | None]]) -> RunRecord:
    """Return a record whose checkpoints have these metrics of the task ``t``."""
    record = RunRecord(path)
    path.mkdir()
    for step, (tokens, metrics) in enumerate(rows.items()):
        values = {name: {"value": value} for name, value in metrics.items()}
        record.add_scores({"step": step, "tokens": tokens, "metrics": {"t": values}})
    return record


def runs_of(folder: Path, tokens: Sequence[float]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return two runs of a pick and one of a baseline; the difference at the end is three times larger.

    At the end: a pick of 1.0 and 1.2 against 2.0; before: 1.5 and 1.5 against 1.8.
    """
    early = {"x": (1.5, 1.5, 1.8)}
    late = {"x": (1.0, 1.2, 2.0)}
    found = []
    for place in range(3):
        rows = {t: {k: v[place] for k, v in early.items()} for t in tokens[:-1]}
        rows[tokens[-1]] = {k: v[place] for k, v in late.items()}
        found.append(scored(folder / f"run-{place}", rows))
    return found[:2], found[2:]


@pytest.mark.parametrize(
    ("tokens", "early"),
    [
        ((10.0, 100.0), 10.0),
        ((70.0, 100.0), 70.0),
        ((9.9, 100.0), None),
        ((70.1, 100.0), None),
        ((100.0,), None),
        ((20.0, 30.0, 45.0, 60.0, 100.0), 30.0),
        ((5.0, 45.0, 90.0, 100.0), 45.0),
        ((60.0, 300.0), 60.0),
    ],
)
def test_the_earlier_checkpoint_is_the_nearest_to_a_third(
    tmp_path: Path, tokens: tuple[float, ...], early: float | None
) -> None:
    found = checkpoint_slope(*runs_of(tmp_path, tokens))
    if early is None:
        assert found == ()
        return
    (one,) = found
    assert one.tokens == pytest.approx(tokens[-1] / early)
    assert one.parameters == 1.0
    assert one.where == f"the proxies at {early:.3g} and {tokens[-1]:.3g} tokens"
    # Differences −0.3 and −0.9; noise √(0.02 · (1/2 + 1)) with one degree of freedom.
    assert one.slope == pytest.approx(3.0)
    assert one.error == pytest.approx(math.sqrt(0.03) * math.sqrt(10.0) / 0.3)


def test_only_checkpoints_and_metrics_of_all_runs_count(tmp_path: Path) -> None:
    rows: list[dict[float, dict[str, float | None]]] = [
        {30.0: {"x": 1.0, "y": 9.0}, 40.0: {"x": 7.0}, 100.0: {"x": 2.0, "y": 1.0}},
        {30.0: {"x": 1.0, "y": None}, 100.0: {"x": 2.2, "y": 2.0}, 0.0: {"x": 5.0}},
        {30.0: {"x": 0.5, "y": 5.0}, 100.0: {"x": 1.1, "y": 3.0}},
    ]
    records = [scored(tmp_path / f"run-{place}", one) for place, one in enumerate(rows)]
    (found,) = checkpoint_slope(records[:2], records[2:])
    assert found.slope == pytest.approx(2.0)
    assert found.tokens == pytest.approx(100.0 / 30.0)


def test_runs_without_a_common_metric_have_no_slope(tmp_path: Path) -> None:
    first = scored(tmp_path / "a", {30.0: {"x": 1.0}, 100.0: {"x": 1.0}})
    second = scored(tmp_path / "b", {30.0: {"y": 1.0}, 100.0: {"y": 1.0}})
    assert checkpoint_slope([first, first], [second, second]) == ()
    assert checkpoint_slope([first], [first]) == ()


def test_metrics_are_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last digit of a sum does not depend on the order of a set."""
    seen: list[list[float]] = []

    def keep(small: Any, large: Any, error: Any) -> None:
        seen.append(small[-1].tolist())

    monkeypatch.setattr(slopes, "slope_of", keep)
    names = [f"m{place:02d}" for place in range(12)]
    values: dict[str, float | None] = {name: float(place) for place, name in enumerate(names)}
    nothing: dict[str, float | None] = dict.fromkeys(names, 0.0)
    one = scored(tmp_path / "a", {30.0: values, 100.0: values})
    two = scored(tmp_path / "b", {30.0: nothing, 100.0: nothing})
    assert checkpoint_slope([one, one], [two]) == ()
    numbers = {name: float(place) for place, name in enumerate(names)}
    runs = {"m1": [dict.fromkeys(names, 0.0)], "m2": [numbers, numbers]}
    assert _between(_Proxy(10.0, 1.0, runs), _Proxy(20.0, 1.0, runs)) is None
    assert seen == [[float(n) for n in range(12)], [n / 2.0 for n in range(12)]]


# -------------------------------------------------------------------------------------- other sizes

SMALL = _Proxy(100.0, 10.0, {"m1": [{"x": 1.0}, {"x": 1.2}], "m2": [{"x": 2.0}, {"x": 2.2}]})
LARGE = _Proxy(400.0, 20.0, {"m1": [{"x": 1.0}], "m2": [{"x": 4.0}], "m3": [{"x": 9.0}]})


def test_a_slope_between_two_sizes_is_that_of_the_differences_of_mixtures() -> None:
    """Centred: ∓0.5 and ∓1.5. Squares 0.04 over two degrees of freedom and a mean of 4/3 seeds."""
    for found in (_between(SMALL, LARGE), _between(LARGE, SMALL)):
        assert found is not None
        assert found.slope == pytest.approx(3.0)
        assert found.error == pytest.approx(math.sqrt(0.015) * math.sqrt(10.0 / 0.5))
        assert (found.tokens, found.parameters) == (4.0, 2.0)
        assert found.where == ("2 mixtures at 10 parameters and 100 tokens and at 20 and 400")


def test_of_two_sizes_of_equal_cost_the_one_with_fewer_tokens_is_the_smaller() -> None:
    runs = SMALL.runs
    found = _between(_Proxy(400.0, 10.0, runs), _Proxy(100.0, 40.0, runs))
    assert found is not None
    assert (found.tokens, found.parameters) == (4.0, 0.25)


def test_two_sizes_need_two_mixtures_a_metric_and_a_seed_more() -> None:
    once = {"m1": [{"x": 1.0}], "m2": [{"x": 2.0}]}
    assert _between(SMALL, _Proxy(400.0, 20.0, {"m1": SMALL.runs["m1"]})) is None
    other = {name: [{"y": 1.0}] for name in ("m1", "m2")}
    assert _between(SMALL, _Proxy(400.0, 20.0, other)) is None
    assert _between(_Proxy(100.0, 10.0, once), _Proxy(400.0, 20.0, once)) is None
    twice = {**once, "m1": [{"x": 1.0}, {"x": 1.1}]}
    assert _between(_Proxy(100.0, 10.0, twice), _Proxy(400.0, 20.0, once)) is not None
    equal = {name: [{"x": 1.0}, {"x": 1.0}] for name in ("m1", "m2")}
    assert _between(_Proxy(100.0, 10.0, equal), _Proxy(400.0, 20.0, equal)) is None


def test_a_mixture_is_known_by_the_weights_of_its_stages() -> None:
    def key(weights: dict[str, float], *stages: dict[str, float] | None) -> str:
        named = {str(place): {"weights": stage} for place, stage in enumerate(stages)}
        return _mixture({"mixture": {"weights": weights}, "schedule": {"stages": named}})

    both = {"a": 0.25, "b": 0.75}
    assert key(both, None) == '[{"a": 0.25, "b": 0.75}]'
    assert key({"b": 0.75, "c": 0.0, "a": 0.2500000004}, None) == key(both, None)
    assert key({"a": 0.250002, "b": 0.749998}, None) != key(both, None)
    assert key(both, None, {"a": 1.0}) == '[{"a": 0.25, "b": 0.75}, {"a": 1.0}]'
    assert key({"b": 1.0}, both) == key(both, None)


STUDY = tuple(composed(*TINY)[name] for name in ("model", "schedule"))


def ran(
    runs_dir: Path,
    trial: str,
    seed: int,
    tokens: int,
    value: float | None,
    *,
    study: str = "s",
    status: Any = "done",
) -> RunRecord:
    """Write a run of one of two mixtures, named by the last letter of its trial."""
    model, schedule = STUDY
    share = 0.25 if trial.endswith("a") else 0.75
    config = {
        "model": model,
        "schedule": {**schedule, "total_tokens": tokens},
        "mixture": {"weights": {"web": share, "math": 1.0 - share}},
    }
    record = RunRecord.create(runs_dir, study=study, trial=trial, seed=seed, config=config)
    metrics = {"t/x": value, "t/none": None}
    record.write_result({"status": status, "score": 1.0, "metrics": metrics})
    record.set_status(status)
    return record


def sized(runs_dir: Path, number: int, tokens: int, gain: float, study: str = "s") -> RunRecord:
    """Write four runs at one size: the second mixture gains, and seeds differ by 0.02."""
    for place, letter in enumerate("ab"):
        for seed in (0, 1):
            value = 1.0 + gain * place + 0.02 * seed
            last = ran(runs_dir, f"trial-{number:04d}{letter}", seed, tokens, value, study=study)
    return last


def test_each_other_size_of_the_study_has_a_slope_smallest_first(tmp_path: Path) -> None:
    sized(tmp_path, 1, 4000, 0.8)
    own = sized(tmp_path, 2, 2000, 0.4)
    sized(tmp_path, 3, 1000, 0.1)
    ran(tmp_path, "trial-0004a", 0, 8000, 1.0)  # one mixture alone tells nothing
    ran(tmp_path, "trial-0003b", 2, 1000, 99.0, status="failed")
    assert tokens_of(own.manifest.config) == 2000.0
    below, above = other_scales(tmp_path, "s", None, own)
    assert (below.slope, below.tokens) == pytest.approx((4.0, 2.0))
    assert (above.slope, above.tokens) == pytest.approx((2.0, 2.0))
    assert below.parameters == above.parameters == 1.0
    assert "at 1e+03 tokens" not in below.where
    assert "1e+03 tokens and at" in below.where


def test_the_runs_of_a_second_study_join_those_of_the_same_size(tmp_path: Path) -> None:
    own = sized(tmp_path, 1, 2000, 0.4)
    sized(tmp_path, 2, 1000, 0.1)
    sized(tmp_path, 2, 1000, 0.3, study="other")
    sized(tmp_path, 1, 6000, 1.2, study="other")
    second: Any = SimpleNamespace(study="other")
    below, above = other_scales(tmp_path, "s", second, own)
    assert (below.slope, below.tokens) == pytest.approx((2.0, 2.0))
    assert (above.slope, above.tokens) == pytest.approx((3.0, 3.0))


def test_a_study_without_runs_of_the_own_size_has_no_slopes(tmp_path: Path) -> None:
    own = sized(tmp_path, 1, 2000, 0.4)
    sized(tmp_path, 2, 1000, 0.1, study="other")
    second: Any = SimpleNamespace(study="other")
    (tmp_path / "empty").mkdir()
    assert other_scales(tmp_path, "empty", second, own) == ()
    assert other_scales(tmp_path, "s", None, own) == ()
