"""Compare ridge regressions, mixing laws and settings of trees with numbers worked out by hand."""

from __future__ import annotations

import math
from copy import copy

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeps.search.surrogates import LawFamily, LinearFamily, TreesFamily, family, ridge_sqrt
from sweeps.search.surrogates.linear import _left_out, _LinearModel, _precision
from sweeps.search.surrogates.mixing_laws import LawModel, _bounded, _Fits, _law, _rows

Floats = NDArray[np.float64]

LOG_LINEAR = LawFamily(name="log-linear", features="weights")
POWER = LawFamily(name="power-law", features="logs", offsets=(0.01, 0.05))
MIXED = LawFamily(name="mixed-law", features="both", offsets=(0.01, 0.05))


def test_a_known_error_counts_beside_a_tenth_of_the_variance() -> None:
    # 1 / .1 and 1 / 1, divided by their mean of 5.5.
    found = _precision(np.array([0.0, math.sqrt(0.9)]))
    np.testing.assert_allclose(found, [10.0 / 5.5, 1.0 / 5.5])


def test_left_out_errors_are_those_of_the_hat_matrix_and_never_divided_by_nothing() -> None:
    # A shrinkage of 9 / 10; leverages .9 · .36 + .5, and .9 · .64 + .5, which is above one.
    left, target = np.array([[0.6], [0.8]]), np.array([2.0, -1.0])
    fitted = 0.9 * (0.6 * 2.0 - 0.8) * left[:, 0]
    found = _left_out(left, np.array([3.0]), target, 1.0)
    assert found[0] == pytest.approx((fitted[0] - 2.0) / (1.0 - 0.824))
    assert found[1] == pytest.approx((fitted[1] + 1.0) / 1e-3)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_linear_fit_is_a_ridge_with_the_penalty_of_least_left_out_errors(noisy: bool) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(14, 2)) * [1.0, 3.0] + [5.0, -20.0]
    values = inputs @ [0.3, 0.1] + rng.normal(0.0, 0.3, 14)
    noise = np.linspace(0.1, 1.5, 14) if noisy else None
    model = LinearFamily("x", lambda rows: rows).fit_task(inputs, values, noise)
    weight = np.ones(14) if noise is None else 1.0 / (noise**2 + 0.1)
    weight /= weight.mean()
    scale = math.sqrt((inputs[:, 0].var() + inputs[:, 1].var()) / 2.0)
    rows = (inputs - inputs.mean(axis=0)) / scale
    mean = float((weight * values).sum() / weight.sum())
    unseen = (np.array([[4.0, -17.0], [7.0, -30.0]]) - inputs.mean(axis=0)) / scale
    tried = []
    for penalty in (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4):
        inverse = np.linalg.inv(rows.T @ (weight[:, None] * rows) + penalty * np.eye(2))
        slopes = inverse @ rows.T @ (weight * (values - mean))
        hat = np.einsum("ij,jk,ik->i", rows, inverse, rows) * weight + 1.0 / 14
        errors = np.sqrt(weight) * (mean + rows @ slopes - values) / (1.0 - hat)
        tried.append((float(np.mean(errors**2)), penalty, inverse, slopes, errors))
    square, _, inverse, slopes, errors = min(tried, key=lambda one: one[0])
    assert model.scale == pytest.approx(scale)
    asked = np.array([[4.0, -17.0], [7.0, -30.0]])
    np.testing.assert_allclose(model.predict(asked), mean + unseen @ slopes)
    doubt = np.einsum("ij,jk,ik->i", unseen, inverse, unseen)
    np.testing.assert_allclose(model.spread(asked), np.sqrt(square * (1.0 + doubt)))
    np.testing.assert_allclose(model.left_out, errors / np.sqrt(weight))


def test_roots_are_taken_of_what_is_not_below_zero() -> None:
    assert ridge_sqrt().features(np.array([[4.0, -1.0, 0.25]])).tolist() == [[2.0, 0.0, 0.5]]


def test_a_linear_model_is_evaluated_by_hand() -> None:
    model = _LinearModel(
        features=lambda rows: rows,
        centre=np.array([1.0, 2.0]),
        scale=2.0,
        coefficients=np.array([10.0, 3.0, -1.0]),
        covariance=np.array([[2.0, 0.5], [0.5, 1.0]]),
        error=0.5,
        left_out=np.zeros(1),
    )
    asked = np.array([[3.0, 6.0]])  # scaled 1 and 2
    assert model.predict(asked)[0] == pytest.approx(10.0 + 3.0 - 2.0)
    assert model.spread(asked)[0] == pytest.approx(0.5 * math.sqrt(1.0 + 2.0 + 2.0 + 4.0))


def test_rows_of_a_law_are_weights_logarithms_or_both() -> None:
    inputs = np.array([[0.19, -0.5], [0.0, 1.0]])
    assert _rows(LOG_LINEAR, 0.0, inputs) is inputs
    logs = np.log(np.array([[0.2 / 1.01, 0.01 / 1.01], [0.01 / 1.01, 1.0]]))
    np.testing.assert_allclose(_rows(POWER, 0.01, inputs), np.c_[logs, [1.0, 1.0]])
    np.testing.assert_allclose(_rows(MIXED, 0.01, inputs), np.c_[logs, inputs])


def test_a_law_is_a_floor_and_a_sum_of_exponentials_with_their_slopes() -> None:
    rows = np.array([[[1.0, 2.0], [0.5, 0.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    parameters = np.array([[0.5, 0.2, 0.1, -1.0, 0.3], [-2.0, 0.3, 0.0, 0.4, 1.0]])
    sign = np.array([1.0, -1.0])
    values, slopes = _law(rows, sign, parameters)
    expected = [
        [own[0] + turn * (math.exp(row @ own[1:3]) + math.exp(row @ own[3:])) for row in some]
        for some, turn, own in zip(rows, sign, parameters, strict=True)
    ]
    np.testing.assert_allclose(values, expected)
    for column in range(5):
        step = 1e-6 * np.eye(5)[column]
        ahead, behind = (
            _law(rows, sign, parameters + step)[0],
            _law(rows, sign, parameters - step)[0],
        )
        np.testing.assert_allclose(slopes[:, :, column], (ahead - behind) / 2e-6, atol=1e-7)
    far = np.array([[0.0, 100.0, 0.0, -100.0, 0.0]])
    assert _law(rows[:1], sign[:1], far)[0][0, 0] == pytest.approx(math.exp(8.0) + math.exp(-20.0))


def law_model(covariance: float, sign: float = 1.0) -> LawModel:
    return LawModel(
        family=LOG_LINEAR,
        offset=0.0,
        sign=sign,
        parameters=np.array([1.0, math.log(4.0), math.log(9.0)]),
        covariance=covariance * np.eye(3),
        error=2.0,
        left_out=np.zeros(1),
        seen=(-20.0, 20.0),
    )


def test_a_law_model_is_evaluated_by_hand() -> None:
    asked = np.array([[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(law_model(0.0).predict(asked), [7.0, 5.0])
    np.testing.assert_allclose(law_model(0.0, -1.0).predict(asked), [-5.0, -3.0])
    # Slopes 1, 3, 3 and 1, 4, 0: their squares sum to 19 and 17.
    np.testing.assert_allclose(law_model(0.5).spread(asked), 2.0 * np.sqrt([1.0 + 9.5, 1.0 + 8.5]))
    np.testing.assert_allclose(law_model(1.4).spread(asked), 2.0 * np.sqrt([26.0, 24.8]))


def test_values_beyond_half_the_span_approach_the_whole_of_it() -> None:
    values = np.array([-3.0, 0.0, 1.0, 6.0, 7.0, 9.0])  # a span of 2 … 4
    expected = [
        1.0 - math.tanh(4.0),
        1.0 - math.tanh(1.0),
        1.0,
        5.0 + math.tanh(1.0),
        5.0 + math.tanh(2.0),
        5.0 + math.tanh(4.0),
    ]
    np.testing.assert_allclose(_bounded(values, 2.0, 4.0), expected)
    assert _bounded(values, 3.0, 3.0).tolist() == [3.0] * 6


WEIGHTS = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
VALUES = np.array([1.0, 0.2, -0.9, 0.4, -1.5])


def fits(
    made: LawFamily = LOG_LINEAR,
    inputs: Floats = WEIGHTS,
    values: Floats = VALUES,
    starts: tuple[tuple[int, float, float], ...] = ((0, 0.01, 1.0), (0, 0.01, -1.0)),
) -> _Fits:
    weight = np.linspace(0.8, 1.2, len(values))[None]
    return _Fits(made, starts, inputs, values[None], weight)


def test_fits_start_at_a_floor_beyond_the_best_run_and_a_line_through_logarithms() -> None:
    corners, values = np.eye(2), np.array([0.0, math.e - 1.0])
    found = fits(inputs=corners, values=values)
    # With a ridge of .3² an exponent is its logarithm / 1.09.
    floor, ceiling = -1.0, math.e
    np.testing.assert_allclose(found.parameters[0], [floor, 0.0, 1.0 / 1.09], atol=1e-12)
    np.testing.assert_allclose(found.parameters[1], [ceiling, 1.0 / 1.09, 0.0], atol=1e-12)
    assert found.damping.tolist() == [0.01, 0.01]


def test_two_terms_start_at_halves_that_a_fixed_tilt_tells_apart() -> None:
    two = LawFamily(name="x", features="weights", terms=2)
    found = fits(two, np.eye(2), np.array([0.0, math.e - 1.0]))
    tilt = 0.5 * np.array([0.12573022, -0.13210486, 0.64042265, 0.10490012])
    line = np.array([0.0, 1.0 / 1.09] * 2) - math.log(2.0)
    np.testing.assert_allclose(found.parameters[0], np.r_[-1.0, line + tilt], atol=1e-7)


def test_exponents_are_pulled_to_their_mean_and_powers_to_zero() -> None:
    weights = 0.0025 * np.array([[0.505, -0.495], [-0.495, 0.505]])
    assert fits().pull[0].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(fits().pull[1:, 1:], weights)
    np.testing.assert_allclose(fits(POWER).pull, 0.0025 * np.diag([0.0, 1.0, 1.0, 1e-4]))
    mixed = np.zeros((5, 5))
    mixed[1:3, 1:3], mixed[3:, 3:] = 0.0025 * np.eye(2), weights
    np.testing.assert_allclose(fits(MIXED).pull, mixed)
    two = np.zeros((5, 5))
    two[1:3, 1:3] = two[3:, 3:] = weights
    doubled = LawFamily(name="x", features="weights", terms=2)
    np.testing.assert_allclose(fits(doubled).pull, two)


@pytest.mark.parametrize("made", [LOG_LINEAR, POWER, MIXED])
def test_a_cost_is_soft_in_its_misfits_and_its_slope_is_the_gradient(made: LawFamily) -> None:
    found = fits(made)
    some = np.arange(2)
    at = found.parameters + np.random.default_rng(3).normal(0.0, 0.3, found.parameters.shape)
    found.parameters = at
    fitted = _law(found.rows, found.sign, at)[0]
    expected = [
        sum(math.sqrt(1.0 + (w * (f - v)) ** 2) - 1.0 for w, f, v in zip(*row, strict=True))
        + 0.5 * own @ found.pull @ own
        for row, own in zip(zip(found.weight, fitted, found.values, strict=True), at, strict=True)
    ]
    np.testing.assert_allclose(found._cost(some, at), expected)
    slope = found._normal(some)[1]
    for column in range(at.shape[1]):
        step = 1e-6 * np.eye(at.shape[1])[column]
        numeric = (found._cost(some, at + step) - found._cost(some, at - step)) / 2e-6
        np.testing.assert_allclose(slope[:, column], numeric, atol=1e-6)


def test_without_a_misfit_the_normal_matrix_is_the_curvature_of_the_cost() -> None:
    found = fits()
    some = np.arange(2)
    found.values = _law(found.rows, found.sign, found.parameters)[0]
    normal = found._normal(some)[0]
    step = 1e-5
    for column in range(3):
        ahead, behind = copy(found), copy(found)
        ahead.parameters = found.parameters + step * np.eye(3)[column]
        behind.parameters = found.parameters - step * np.eye(3)[column]
        numeric = (ahead._normal(some)[1] - behind._normal(some)[1]) / (2 * step)
        np.testing.assert_allclose(normal[:, column], numeric, atol=1e-5)


def test_a_step_is_damped_by_its_diagonal_and_damps_the_next_less() -> None:
    found = fits()
    kept = found.parameters[1].copy()
    normal, slope = (part[0] for part in found._normal(np.arange(2)))
    damped = normal + 0.01 * np.diag(np.diag(normal))
    expected = found.parameters[0] - np.linalg.solve(damped, slope)
    found.run(1)
    np.testing.assert_allclose(found.parameters[0], expected)
    np.testing.assert_allclose(found.cost, found._cost(np.arange(2), found.parameters))
    np.testing.assert_allclose(found.damping, [0.002, 0.04])
    np.testing.assert_array_equal(found.parameters[1], kept)  # its step led uphill
    found.damping[:] = 2e-9
    found.run(1)
    assert found.damping[0] == pytest.approx(1e-9)


@pytest.mark.parametrize(("before", "after"), [(0.01, 2.56), (2e7, 3.2e8), (3e7, 1.2e8)])
def test_a_refused_step_damps_the_next_more_until_a_fit_stops(before: float, after: float) -> None:
    found = fits()
    kept = found.parameters.copy()
    found.damping[:], found.cost[:] = before, -1.0
    found.run(4)
    np.testing.assert_allclose(found.damping, after)
    np.testing.assert_array_equal(found.parameters, kept)


@pytest.mark.parametrize(("gain", "stops"), [(0.7e-7, True), (1.5e-7, False)])
def test_a_fit_stops_where_a_step_gains_less_than_a_ten_millionth(gain: float, stops: bool) -> None:
    found = fits(starts=((0, 0.0, 1.0),))
    cost = float(copy(found).only(np.array([0])).run(1).cost[0])
    found.cost[:] = cost + gain * (1.0 + cost)
    found.run(2)
    assert (float(found.damping[0]) == pytest.approx(0.002)) is stops


def test_a_law_that_fits_each_run_has_twenty_times_its_misfits_left_out() -> None:
    free = LawFamily(name="x", features="weights", penalty=1e-4)
    inputs, values = np.eye(3), np.array([1.0, 0.0, -1.0])
    made = _Fits(free, [(0, 0.0, 1.0)], inputs, values[None], np.ones((1, 3)))
    made.parameters[0] += [0.0, 0.1, -0.2, 0.3]
    (model,) = made.models()
    misfit = model._law(inputs)[0] - values
    np.testing.assert_allclose(model.left_out, 20.0 * misfit)
    assert model.error == pytest.approx(20.0 * float(np.sqrt(np.mean(misfit**2))))
    assert model.seen == (-1.0, 1.0)
    assert (model.offset, model.sign) == (0.0, 1.0)


def test_left_out_errors_of_a_law_follow_from_its_leverages() -> None:
    made = fits()
    models = made.models()
    for index, model in enumerate(models):
        values, slopes = (found[index] for found in _law(made.rows, made.sign, made.parameters))
        weight = made.weight[index]
        inverse = np.linalg.inv(made._normal(np.arange(2))[0][index])
        leverage = np.array(
            [w * w * row @ inverse @ row for w, row in zip(weight, slopes, strict=True)]
        )
        expected = (values - VALUES) / np.maximum(1.0 - leverage, 0.05)
        np.testing.assert_allclose(model.left_out, expected)
        assert model.error == pytest.approx(float(np.sqrt(np.mean((weight * expected) ** 2))))


@pytest.mark.parametrize("made", [LOG_LINEAR, POWER])
def test_metrics_with_known_errors_are_fitted_together_as_alone(made: LawFamily) -> None:
    rng = np.random.default_rng(5)
    inputs = rng.dirichlet(np.ones(3), 14)
    values = np.stack([np.exp(-2.0 * inputs[:, 0]), -np.exp(-3.0 * inputs[:, 1])], axis=1)
    values = (values - values.mean(axis=0)) / values.std(axis=0) + rng.normal(0.0, 0.2, (14, 2))
    noise = np.stack([np.linspace(0.0, 2.0, 14), np.linspace(0.3, 0.1, 14)], axis=1)
    together = made.fit_tasks(inputs, values, noise)
    for column, model in enumerate(together):
        alone = made.fit_task(inputs, values[:, column], noise[:, column])
        assert (model.sign, model.offset) == (alone.sign, alone.offset)
        np.testing.assert_allclose(model.predict(inputs), alone.predict(inputs), atol=1e-6)
        np.testing.assert_allclose(model.left_out, alone.left_out, atol=1e-5)
        assert model.error == pytest.approx(alone.error, rel=1e-5)
    assert {model.sign for model in together} == {1.0, -1.0}


def test_the_laws_have_their_features_terms_and_offsets() -> None:
    assert family("log-linear") == LOG_LINEAR
    assert family("mixing-law") == LawFamily(name="mixing-law", features="weights", terms=2)
    assert family("power-law") == POWER
    assert family("mixed-law") == MIXED
    assert (LOG_LINEAR.terms, LOG_LINEAR.offsets, LOG_LINEAR.signs) == (1, (0.0,), (1.0, -1.0))


@pytest.mark.parametrize(
    ("runs", "least"), [(6, 2), (12, 2), (18, 3), (24, 4), (29, 4), (30, 5), (60, 5)]
)
def test_leaves_of_few_runs_hold_fewer_and_trees_are_the_same_each_time(
    runs: int, least: int
) -> None:
    rng = np.random.default_rng(0)
    inputs, values = rng.dirichlet(np.ones(3), runs), rng.normal(size=runs)
    made = TreesFamily(trees=2, rate=0.2, leaves=4)._boost(inputs, values, np.ones(runs))
    given = made.params
    assert given["min_data_in_leaf"] == least
    assert (given["learning_rate"], given["num_leaves"]) == (0.2, 4)
    assert (given["deterministic"], given["force_row_wise"]) == (True, True)
    assert given["min_data_in_bin"] == 1
    assert made.num_trees() == 2


def test_fits_side_by_side_take_the_steps_of_each_alone() -> None:
    starts = ((0, 0.01, 1.0), (0, 0.01, -1.0))
    together = fits(starts=starts).run(4)
    for index, start in enumerate(starts):
        alone = fits(starts=(start,)).run(4)
        np.testing.assert_allclose(together.parameters[index], alone.parameters[0])
        assert together.damping[index] == pytest.approx(alone.damping[0])
