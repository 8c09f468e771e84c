"""Compare evidence, weights of families and plans of rungs with numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ablations.errors import ConfigError
from sweeps.search.proposals import Evidence, Limit, model_averaging, prefer
from sweeps.search.proposals.model_averaging import (
    Preferred,
    _badness,
    _doubt,
    _errors,
    _relative,
    _turn,
)
from sweeps.search.proposals.rung_policy import Guard, RungPlan, judge_rung, plan_rungs, spread_rows
from sweeps.search.space import Floats, ParameterSpec, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates import Surrogate
from sweeps.search.surrogates.base import folds

SPACE = SearchSpace.build(SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=("a", "b"))}))
POINTS = [{"m": {"a": weight, "b": 1.0 - weight}} for weight in (0.0, 0.25, 0.5, 1.0)]
VALUES = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 9.0], [0.0, 1.0, 5.0], [6.0, 3.0, 3.0]])
RUNGS = np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 0.0]])
DROPPED = np.array([[0.0], [0.0], [0.5], [0.1]])


def known(values: Floats = VALUES, **given: Any) -> Evidence:
    return Evidence.of(SPACE, POINTS[: len(values)], values, **given)


def test_losses_are_weighed_metrics_and_the_mean_if_none_are_asked_for() -> None:
    assert known().losses[:, 0].tolist() == pytest.approx([2.0, 5.0, 2.0, 4.0])
    assert known(VALUES[:, 0]).losses[:, 0].tolist() == [1.0, 2.0, 0.0, 6.0]
    one = known(objectives=np.array([1.0, 0.0, -2.0]))
    assert one.losses.tolist() == [[-5.0], [-16.0], [-10.0], [0.0]]
    two = known(objectives=np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    assert two.losses.tolist() == [[1.0, 5.0], [2.0, 13.0], [0.0, 6.0], [6.0, 6.0]]
    assert Evidence.of(SPACE, [], np.zeros((0, 0))).losses.shape == (0, 1)


@pytest.mark.parametrize("rows", [3, 5])
def test_values_of_more_or_fewer_runs_than_points_are_refused(rows: int) -> None:
    with pytest.raises(ConfigError, match="values: not one row per point"):
        Evidence.of(SPACE, POINTS, np.zeros((rows, 2)))


@pytest.mark.parametrize("width", [2, 4])
def test_weights_of_more_or_fewer_metrics_are_refused(width: int) -> None:
    with pytest.raises(ConfigError, match="objectives: not one weight per metric"):
        known(objectives=np.ones(width))


def test_rungs_and_dropped_sources_are_columns_at_the_end() -> None:
    both = known(rungs=RUNGS, dropped=DROPPED)
    assert (both.rung_columns, both.columns) == (2, 3)
    assert both.inputs(SPACE).tolist() == [
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [0.25, 0.75, 0.0, 0.0, 1.0],
        [0.5, 0.5, 0.5, 2.0, 1.0],
        [1.0, 0.0, 0.1, 0.0, 0.0],
    ]
    assert both.at_top.tolist() == [True, False, False, True]
    dropped = known(dropped=DROPPED)
    assert (dropped.rung_columns, dropped.columns) == (0, 1)
    assert dropped.inputs(SPACE)[:, 2].tolist() == [0.0, 0.0, 0.5, 0.1]
    ranked = known(rungs=RUNGS)
    assert (ranked.rung_columns, ranked.columns) == (2, 2)
    plain = known()
    assert (plain.rung_columns, plain.columns) == (0, 0)
    assert plain.inputs(SPACE).shape == (4, 2)
    assert plain.at_top.tolist() == [True] * 4


def test_rungs_and_dropped_sources_that_are_all_zero_are_none() -> None:
    nothing = known(rungs=np.zeros((4, 2)), dropped=np.zeros((4, 1)))
    assert nothing.rungs is None
    assert nothing.dropped is None


def test_the_first_runs_keep_their_own_columns() -> None:
    noise = 0.1 * VALUES
    both = known(rungs=RUNGS, dropped=DROPPED, noise=noise)
    first = both.first(3)
    assert first.values.tolist() == VALUES[:3].tolist()
    assert first.coordinates[:, 0].tolist() == [0.0, 0.25, 0.5]
    assert first.rungs is not None
    assert first.rungs.tolist() == RUNGS[:3].tolist()
    assert first.dropped is not None
    assert first.dropped.tolist() == DROPPED[:3].tolist()
    assert first.noise is not None
    assert first.noise.tolist() == noise[:3].tolist()
    second = both.first(2)
    assert second.rungs is not None
    assert second.dropped is None
    assert both.first(1).rungs is None
    bare = known().first(2)
    assert (bare.noise, bare.rungs, bare.dropped) == (None, None, None)
    # Noise of zero is a statement, and stays.
    assert known(noise=np.zeros((4, 3))).first(2).noise is not None


def test_a_metric_is_turned_by_its_objectives_or_else_by_its_limits() -> None:
    objectives = np.array([[1.0, -1.0, 0.0, 0.0, 0.0], [0.5, -2.0, 0.0, 0.0, 0.0]])
    limits = [
        Limit(weights=np.array([-1.0, 1.0, -1.0, 1.0, 0.0]), bound=0.0),
        Limit(weights=np.array([0.0, 0.0, -1.0, 0.5, 0.0]), bound=0.0),
    ]
    wide = np.ones((4, 5))
    assert _turn(known(wide, objectives=objectives, limits=limits)).tolist() == [1, -1, -1, 1, 1]
    assert _turn(known(wide, objectives=objectives)).tolist() == [1, -1, 1, 1, 1]


def test_how_bad_a_value_is_counts_from_the_best_quarter_of_its_metric() -> None:
    values = np.array([[0.0, 50.0], [4.0, 10.0], [8.0, np.nan], [12.0, 30.0], [16.0, 20.0]])
    # The quarters are 4 and 17.5.
    expected = [[0.0, 32.5], [0.0, 0.0], [4.0, np.nan], [8.0, 12.5], [12.0, 2.5]]
    assert _badness(values) == pytest.approx(np.array(expected), nan_ok=True)


def test_doubt_adds_a_tenth_of_how_bad_a_run_is_to_its_noise() -> None:
    values = np.array([[0.0], [4.0], [8.0], [12.0], [44.0]])
    plain = Evidence.of(SPACE, [*POINTS, POINTS[0]], values)
    assert _doubt(values, plain)[:, 0] == pytest.approx([0.0, 0.0, 0.4, 0.8, 4.0])
    noisy = replace(plain, noise=np.full((5, 1), 3.0))
    both = [3.0, 3.0, math.hypot(3.0, 0.4), math.hypot(3.0, 0.8), 5.0]
    assert _doubt(values, noisy)[:, 0] == pytest.approx(both)


def test_an_error_is_in_units_of_the_median_deviation_and_of_bad_runs() -> None:
    values = np.array([[0.0], [4.0], [8.0], [12.0], [18.0]])
    # The median is 8 and the median deviation 4; runs are 0, 0, 4, 8 and 14 worse than the quarter.
    units = [4.0, 4.0, math.hypot(4.0, 4.0), math.hypot(4.0, 8.0), math.hypot(4.0, 14.0)]
    errors = np.array([[1.0], [-40.0], [2.0], [-3.0], [60.0]])
    scaled = [0.25, -5.0, 2.0 / units[2], -3.0 / units[3], 60.0 / units[4]]
    assert 60.0 / units[4] < 5.0
    expected = math.sqrt(sum(one**2 for one in scaled) / 5.0)
    assert _relative(errors, values) == pytest.approx(expected)
    errors[2] = np.nan
    without = math.sqrt(sum(one**2 for at, one in enumerate(scaled) if at != 2) / 4.0)
    assert _relative(errors, values) == pytest.approx(without)


def test_each_metric_has_its_own_unit_and_a_constant_one_has_one() -> None:
    first = np.array([0.0, 4.0, 8.0, 12.0, 18.0])
    values = np.stack([first, 1000.0 * first, np.full(5, 7.0)], axis=1)
    errors = np.zeros((5, 3))
    errors[0] = (2.0, 4000.0, 3.0)
    expected = math.sqrt((0.5**2 + 1.0**2 + 3.0**2) / 15.0)
    assert _relative(errors, values) == pytest.approx(expected)


@dataclass(frozen=True)
class Mean:
    """Family that predicts the mean of the runs that it has seen, weighed by their noise."""

    name: str = "mean"

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> Fixed:
        weights = None if noise is None or not noise.all() else 1.0 / noise**2
        return Fixed(float(np.average(values, weights=weights)))


@dataclass(frozen=True)
class Fixed:
    """Model that predicts one value everywhere."""

    value: float

    def predict(self, inputs: Floats) -> Floats:
        return np.full(len(inputs), self.value)

    def spread(self, inputs: Floats) -> Floats:
        return np.ones(len(inputs))


@pytest.mark.parametrize(("runs", "count"), [(13, 5), (4, 4)])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_family_without_errors_of_its_own_leaves_out_folds(
    runs: int, count: int, noisy: bool
) -> None:
    rng = np.random.default_rng(0)
    inputs, values = rng.random((runs, 2)), rng.normal(size=(runs, 2))
    noise = 0.5 + rng.random((runs, 2)) if noisy else None
    fold = folds(runs, count, 3)
    expected = np.empty_like(values)
    for row in range(runs):
        seen = fold != fold[row]
        weights = np.ones((runs, 2)) if noise is None else 1.0 / noise**2
        mean = (weights[seen] * values[seen]).sum(axis=0) / weights[seen].sum(axis=0)
        expected[row] = mean - values[row]
    fitted = Surrogate(Mean(), seed=3).fit(inputs, values, noise)
    assert _errors(inputs, values, noise, fitted) == pytest.approx(expected)


def test_families_of_less_than_a_fiftieth_of_all_weight_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Four alike, one of a weight of 3 to their 100 each: .7% of all, and one of 16: 3.8%.
    sizes = [100.0, 100.0, 3.0, 100.0, 16.0, 100.0]
    told = iter([size for one in sizes for size in ((one / 100.0) ** (-1 / 30) / 1.5,) * 2])
    monkeypatch.setattr(model_averaging, "_relative", lambda errors, values: next(told))
    families = [Mean(f"f{number}") for number in range(6)]
    rng = np.random.default_rng(0)
    seen = known(rng.normal(size=(4, 1)))
    found = prefer(SPACE, seen, families, 0)
    assert [member.family.name for member in found.members] == ["f0", "f1", "f3", "f4", "f5"]
    assert found.weights == pytest.approx(np.array([100.0, 100.0, 100.0, 16.0, 100.0]) / 416.0)
    assert list(found.errors) == [f"f{number}" for number in range(6)]


@dataclass
class Told:
    """Fitted family that predicts fixed metrics, whatever the inputs."""

    name: str
    means: Sequence[float]

    @property
    def family(self) -> Told:
        return self

    def predict(self, inputs: Floats) -> Floats:
        means: Floats = np.tile(self.means, (len(inputs), 1)) + inputs.sum(axis=1)[:, None]
        return means

    def predict_interval(self, inputs: Floats, level: float) -> tuple[Floats, Floats]:
        return self.predict(inputs) - level, self.predict(inputs) + 2.0 * level


def test_families_are_averaged_with_their_weights_and_turned_back() -> None:
    members: Any = (Told("few", (1.0, 10.0)), Told("most", (3.0, 30.0)))
    both = Preferred(members, np.array([0.25, 0.75]), {}, np.array([1.0, -1.0]), columns=1)
    assert both.name == "most"
    inputs = np.array([[0.25, 0.25], [1.0, 1.0]])
    assert both.predict(inputs) == pytest.approx(np.array([[3.0, -25.5], [4.5, -27.0]]))
    low, high = both.predict_interval(inputs, 0.5)
    assert low == pytest.approx(np.array([[2.5, -26.5], [4.0, -28.0]]))
    assert high == pytest.approx(np.array([[4.0, -25.0], [5.5, -26.5]]))
    usual = both.predict_interval(inputs)
    assert usual[0][:, 0] == pytest.approx([2.1, 3.6])
    assert replace(both, columns=0).predict(inputs[:1])[0, 0] == pytest.approx(3.0)


@dataclass
class Widths(Told):
    """A family that predicts how many columns it is given."""

    def predict(self, inputs: Floats) -> Floats:
        return np.full((len(inputs), len(self.means)), float(inputs.shape[1]))


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_points_of_the_largest_proxy_get_a_column_of_zeros_for_each_rung(columns: int) -> None:
    members: Any = (Widths("only", (0.0,)),)
    one = Preferred(members, np.array([1.0]), {}, np.array([1.0]), columns=columns)
    assert one.predict(np.ones((2, 4))).tolist() == [[4.0 + columns], [4.0 + columns]]


@pytest.mark.parametrize(
    ("units", "price", "sources", "given", "expected"),
    [
        # 0.35 * 12 / 0.7 is 6 pairs to the last digit, and 0.3 * 12 / 0.7 is 5 finalists.
        (12, 0.3, 7, {}, (16, 10, 6, 4, 3)),
        (11.9, 0.3, 7, {}, (30, 18, 0, 4, 6)),
        (12, 0.3, 7, {"finalists": 1}, (23, 14, 6, 1, 4)),
        # Four and a half full runs a source are the most at which a rung pays.
        (18, 0.3, 4, {}, (24, 15, 8, 4, 4)),
        (18.001, 0.3, 4, {}, (0, 0, 0, 0, 1)),
        # Low runs are limited from four full runs a source on: to 20, and to six a source.
        (15.999, 0.2, 4, {}, (39, 24, 6, 4, 7)),
        (8, 0.1, 2, {}, (20, 12, 0, 2, 4)),
        (2, 0.9, 7, {"same_model": False}, (2, 2, 0, 0, 2)),
    ],
)
def test_a_budget_pays_runs_of_each_kind(
    units: float, price: float, sources: int, given: dict[str, Any], expected: tuple[int, ...]
) -> None:
    plan = plan_rungs(units, price, sources, **given)
    found = (plan.low_runs, plan.design, plan.pairs, plan.finalists, plan.batch)
    assert found == expected
    assert bool(plan.off) == (expected[0] == 0)


@pytest.mark.parametrize(("pairs", "guarded"), [(0, False), (5, False), (6, True), (8, True)])
def test_six_pairs_pay_the_guard(pairs: int, guarded: bool) -> None:
    plan = RungPlan(low_runs=9, design=8, pairs=pairs, finalists=1)
    assert plan.guarded is guarded
    assert plan.batch == 1


def test_a_guard_holds_at_its_bound_and_is_sure_at_eight_tenths() -> None:
    at = Guard(pairs=8, correlation=0.7, needed=0.7)
    assert (at.holds, at.doubted) == (True, True)
    below = Guard(pairs=8, correlation=0.69, needed=0.7)
    assert (below.holds, below.doubted) == (False, False)
    sure = Guard(pairs=8, correlation=0.8, needed=0.7)
    assert (sure.holds, sure.doubted) == (True, False)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_interval_of_perfect_ranks_is_that_of_a_correlation_of_999(sign: float) -> None:
    half = 1.6448536 * math.sqrt(1.06 / 7.0)
    middle = sign * math.atanh(0.999)
    found = Guard(pairs=10, correlation=sign).interval
    assert found == pytest.approx((math.tanh(middle - half), math.tanh(middle + half)), abs=1e-7)


def test_the_bound_of_a_guard_narrows_with_its_pairs() -> None:
    scores = np.arange(12.0)
    guard = judge_rung(scores, scores)
    assert guard.needed == pytest.approx(math.tanh(math.atanh(0.6) + 0.6 * math.sqrt(1.06 / 9.0)))
    assert guard.pairs == 12
    assert guard.correlation == pytest.approx(1.0)


ROOTS = np.array([0.0, 0.3, 0.45, 0.8, 1.0])


@pytest.mark.parametrize(
    ("count", "first", "rows"),
    [
        (3, None, [0, 4, 2]),
        (9, None, [0, 4, 2, 3, 1]),
        (3, 3, [3, 0, 2]),
        (1, None, [0]),
        (0, None, [0]),
    ],
)
def test_rows_far_apart_are_taken_by_the_roots_of_their_weights(
    count: int, first: int | None, rows: list[int]
) -> None:
    # From 0 and 1 the farthest root is .45, and the farthest weight .8 ** 2.
    found = spread_rows((ROOTS**2)[:, None], count, first)
    assert found.tolist() == rows


def test_gaps_of_several_weights_are_those_of_squares() -> None:
    # From the first, one root differs by .9 (.81) and two by .7 (.98): by fourth powers .66 and .48.
    weights = np.array([[0.0, 0.0], [0.9, 0.0], [0.7, 0.7]]) ** 2
    assert spread_rows(weights, 2, first=0).tolist() == [0, 2]


def test_a_space_without_weights_has_evidence_too() -> None:
    whole = SearchSpace.build(
        SearchSpaceSpec(parameters={"p": ParameterSpec(kind="float", low=0.0, high=4.0)})
    )
    seen = Evidence.of(whole, [{"p": 1.0}, {"p": 3.0}], np.array([1.0, 2.0]))
    assert seen.inputs(whole).tolist() == [[0.25], [0.75]]
