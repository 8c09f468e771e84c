"""Compare Gaussian processes with covariances, likelihoods and posteriors written out run by run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeps.search.surrogates import ProcessFamily
from sweeps.search.surrogates.gaussian_process import (
    Kernel,
    ProcessModel,
    _Posterior,
    correlation_of,
    features_of,
    misfit_of,
    squares_of,
)
from sweeps.search.surrogates.inducing import condition, spread_rows
from sweeps.search.surrogates.rung_process import (
    RungFamily,
    RungModel,
    _OneRung,
    _Rows,
    rung_columns,
)
from sweeps.search.surrogates.rung_process import _Posterior as _RungPosterior

Floats = NDArray[np.float64]


def test_squared_distances_are_those_of_each_pair() -> None:
    left, right = np.array([[1.0, 2.0], [0.0, 3.0]]), np.array([[4.0, 6.0], [0.0, 3.0], [1.0, 1.0]])
    assert squares_of(left, right).tolist() == [[25.0, 2.0, 1.0], [25.0, 0.0, 5.0]]
    same = np.array([[0.1, 0.7, 0.2]]) / 3.0
    assert squares_of(same, same).min() >= 0.0


def test_features_are_powers_of_what_is_not_below_zero() -> None:
    assert features_of(np.array([[4.0, -1.0]]), 0.5).tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("rbf", math.exp(-2.0)),
        ("matern32", (1 + 2 * math.sqrt(3)) * math.exp(-2 * math.sqrt(3))),
        ("matern52", (1 + 2 * math.sqrt(5) + 20 / 3) * math.exp(-2 * math.sqrt(5))),
    ],
)
def test_correlations_at_distance_two_and_their_slopes(kernel: Kernel, expected: float) -> None:
    value, slope = correlation_of(kernel, np.array([0.0, 4.0]))
    assert value.tolist() == pytest.approx([1.0, expected])
    step = 1e-5
    after, before = (correlation_of(kernel, np.array([4.0 + s]))[0][0] for s in (step, -step))
    assert slope[1] == pytest.approx((after - before) / (2 * step), rel=1e-6)


def test_a_misfit_and_its_slope_are_those_by_hand() -> None:
    covariance, values = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0])
    # The inverse is [[2, -1], [-1, 2]] / 3, the weights are [0, 1], the determinant is 3.
    found = misfit_of(covariance, values)
    assert found is not None
    assert found[0] == pytest.approx(1.0 + 0.5 * math.log(3.0))
    np.testing.assert_allclose(found[1], [[-2 / 3, 1 / 3], [1 / 3, 1 / 3]])
    assert misfit_of(np.array([[1.0, 2.0], [2.0, 1.0]]), values) is None


FEATURES = np.array([[0.2, 0.8, 0.1], [0.5, 0.5, 0.4], [0.9, 0.1, 0.3], [0.3, 0.3, 0.9]])
VALUES = np.array([1.0, -0.5, 0.7, 2.0])


def test_the_settings_of_a_process_have_their_priors() -> None:
    posterior = _Posterior(ProcessFamily(), FEATURES, VALUES, np.zeros(4))
    four, small = math.log(4.0), math.log(0.02)
    assert posterior.prior.tolist() == pytest.approx([four, four, four, 0.0, small])
    assert posterior.widths.tolist() == [1.0, 1.0, 1.0, 1.0, 1.5]
    assert posterior.mean == pytest.approx(0.8)
    np.testing.assert_allclose(posterior.values, VALUES - 0.8)


def test_a_posterior_is_the_likelihood_and_the_distance_from_the_priors() -> None:
    known = np.array([0.1, 0.2, 0.3, 0.4])
    posterior = _Posterior(ProcessFamily(kernel="rbf"), FEATURES, VALUES, known)
    lengths, signal, noise = np.array([0.5, 2.0, 1.0]), 1.7, 0.05
    settings = np.r_[np.log(lengths), math.log(signal), math.log(noise)]
    expected = np.empty((4, 4))
    for i, j in np.ndindex(4, 4):
        gap = sum(((FEATURES[i] - FEATURES[j]) / lengths) ** 2)
        expected[i, j] = signal * math.exp(-0.5 * gap) + (i == j) * (noise + known[i] + 1e-8)
    covariance, correlation, _ = posterior.covariance(settings)
    np.testing.assert_allclose(covariance, expected, rtol=1e-12)
    np.testing.assert_allclose(np.diag(correlation), 1.0)
    centred = VALUES - 0.8
    likelihood = 0.5 * centred @ np.linalg.solve(expected, centred)
    likelihood += 0.5 * np.linalg.slogdet(expected)[1]
    away = [
        *np.log(lengths / 4.0),
        math.log(signal),
        math.log(noise / 0.02) / 1.5,
    ]
    assert posterior(settings)[0] == pytest.approx(likelihood + 0.5 * sum(np.square(away)))


def test_settings_without_a_covariance_are_the_worst_and_have_no_slope() -> None:
    posterior = _Posterior(ProcessFamily(), FEATURES, VALUES, np.full(4, -10.0))
    value, slope = posterior(posterior.prior)
    assert value == 1e10
    assert slope.tolist() == [0.0] * 5


def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Return a list that collects what the search for settings is called with."""
    import scipy.optimize

    calls: list[tuple[Any, dict[str, Any]]] = []
    real: Callable[..., Any] = scipy.optimize.minimize

    def minimize(function: Any, start: Floats, **given: Any) -> Any:
        calls.append((function, {"start": start, **given}))
        return real(function, start, **given)

    monkeypatch.setattr(scipy.optimize, "minimize", minimize)
    return calls


def test_settings_are_searched_from_the_prior_within_six_deviations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = searched(monkeypatch)
    rng = np.random.default_rng(0)
    inputs, values = rng.dirichlet(np.ones(2), 9), rng.normal(size=9)
    ProcessFamily(settings_runs=5, iterations=3).fit_task(inputs, values, np.arange(9.0))
    ((posterior, given),) = calls
    four, small = math.log(4.0), math.log(0.02)
    bounds = [(four - 6, four + 6), (four - 6, four + 6), (-6, 6), (small - 9, small + 9)]
    np.testing.assert_allclose(given["bounds"], bounds)
    np.testing.assert_allclose(given["start"], [four, four, 0.0, small])
    assert given["options"]["maxiter"] == 3
    # Five of nine runs, evenly spread: 0 2 4 6 8.
    assert posterior.known.tolist() == [0.0, 4.0, 16.0, 36.0, 64.0]
    np.testing.assert_allclose(posterior.features, inputs[::2] ** 0.35)
    np.testing.assert_allclose(posterior.values + posterior.mean, values[::2])


def test_a_process_conditioned_on_one_run_is_that_by_hand() -> None:
    model = ProcessModel(
        kernel="rbf",
        power=0.5,
        rows=np.array([[1.0, 0.0]]),
        scale=np.array([0.5, 2.0]),
        signal=2.0,
        noise=0.25,
        lower=np.array([[2.0]]),
        weights=np.array([3.0]),
        mean=-1.0,
        left_out=np.zeros(1),
    )
    # Features 2 and .5, scaled 1 and 1: a squared distance of 1 from the run.
    inputs = np.array([[4.0, 0.25], [4.0, 0.0]])
    across = np.array([2.0 * math.exp(-0.5), 2.0])
    np.testing.assert_allclose(model.predict(inputs), -1.0 + 3.0 * across)
    doubt = np.sqrt(2.0 - (across / 2.0) ** 2)
    np.testing.assert_allclose(model.doubt(inputs), doubt)
    np.testing.assert_allclose(model.spread(inputs), np.sqrt(doubt**2 + 0.25))


def test_a_process_that_knows_a_point_doubts_it_by_a_millionth() -> None:
    sure = ProcessModel(
        kernel="rbf",
        power=1.0,
        rows=np.array([[1.0]]),
        scale=np.ones(1),
        signal=1.0,
        noise=0.0,
        lower=np.array([[1.0]]),
        weights=np.ones(1),
        mean=0.0,
        left_out=np.zeros(1),
    )
    assert sure.doubt(np.ones((1, 1)))[0] == pytest.approx(1e-6)


def test_of_two_powers_the_likelier_is_kept() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.dirichlet(np.ones(3), 16)
    values = np.sqrt(inputs[:, 0]) * 3.0 + rng.normal(0.0, 0.02, 16)
    values = (values - values.mean()) / values.std()
    both = ProcessFamily(powers=(2.0, 0.4)).fit_task(inputs, values, None)
    turned = ProcessFamily(powers=(0.4, 2.0)).fit_task(inputs, values, None)
    assert (both.power, turned.power) == (0.4, 0.4)


def test_rows_are_chosen_from_the_middle_outwards() -> None:
    rows = np.array([[0.0, 50.0], [1.0, 50.0], [2.0, 50.0], [10.0, 50.0], [-1.0, 50.0]])
    # Their mean is 2.4: first 2, then 10, then -1, then of 0 and 1, as far from both, the first.
    assert [spread_rows(rows, count).tolist() for count in (1, 2, 3, 4, 5, 9)] == [
        [2],
        [2, 3],
        [2, 3, 4],
        [0, 2, 3, 4],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]


def test_one_inducing_point_is_conditioned_by_hand() -> None:
    # Covariances 2 and 1 with a point of variance 4: white 1 and .5, own variances 1 + .5 and 1.75 + 1.
    values = np.array([1.5, 2.75])
    found = condition(
        np.array([[4.0]]), np.array([[2.0], [1.0]]), 2.0, np.array([0.5, 1.0]), values
    )
    precision = 1.0 + 1.0 / 1.5 + 0.25 / 2.75
    assert found.lower.tolist() == [[2.0]]
    assert found.seen[0, 0] == pytest.approx(math.sqrt(precision))
    coefficient = (1.0 + 0.5) / precision
    assert found.weights[0] == pytest.approx(coefficient / 2.0)
    fitted = np.array([coefficient, 0.5 * coefficient])
    leverage = np.array([1.0 / 1.5, 0.25 / 2.75]) / precision
    np.testing.assert_allclose(found.left_out, (fitted - values) / (1.0 - leverage))
    # At a covariance of 3 the white value is 1.5; at 1 it is .5.
    removed = np.array([2.25, 0.25]) * (1.0 - 1.0 / precision)
    np.testing.assert_allclose(found.explained(np.array([[3.0], [1.0]])), removed)


TOP, NEAR, FAR = (0.0, 0.0), (0.0, 2.0), (1.0, 0.0)


def rung_runs(*rungs: tuple[float, float]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return weights, rungs, values and noise of runs at these rungs."""
    rng = np.random.default_rng(4)
    weights = rng.dirichlet(np.ones(3), len(rungs))
    at = np.array(rungs)
    values = 3.0 + weights[:, 0] - 2.0 * weights[:, 1] + at @ np.array([4.0, 1.0])
    return weights, at, values, np.linspace(0.02, 0.2, len(rungs))


def test_runs_are_centred_in_their_rungs_and_scaled_by_the_largest() -> None:
    values = np.array([10.0, 1.0, 3.0, 20.0, 5.0])
    rungs = np.array([TOP, NEAR, NEAR, TOP, NEAR])
    noise = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    data = _Rows.of(np.ones((5, 2)), rungs, values, noise)
    scale = math.sqrt(8.0 / 3.0)  # of 1, 3, 5
    assert data.kinds.tolist() == [list(TOP), list(NEAR)]
    assert data.kind.tolist() == [0, 1, 1, 0, 1]
    assert data.top.tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert data.centres.tolist() == [15.0, 3.0]
    assert data.scale == pytest.approx(scale)
    np.testing.assert_allclose(data.values, np.array([-5.0, -2.0, 0.0, 5.0, 2.0]) / scale)
    np.testing.assert_allclose(data.known, noise**2 * 3.0 / 8.0)
    flat = _Rows.of(np.ones((5, 2)), rungs, np.array([1.0, 2.0, 2.0, 3.0, 2.0]), None)
    assert flat.scale == 1.0
    assert flat.known.tolist() == [0.0] * 5
    mixed = np.array([TOP, (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), TOP])
    assert _Rows.of(np.ones((5, 2)), mixed, values, None).top.tolist() == [1.0, 0, 0, 0, 1.0]


@pytest.mark.parametrize(
    ("most", "rows"),
    [(4, [0, 4, 5, 6]), (5, [0, 2, 4, 5, 6]), (3, [0, 4, 5]), (99, [0, 1, 2, 3, 4, 5, 6])],
)
def test_a_part_of_the_runs_is_spread_over_rungs_and_keeps_small_ones(
    most: int, rows: list[int]
) -> None:
    data = _Rows.of(np.ones((7, 1)), np.array([TOP] * 5 + [NEAR] * 2), np.arange(7.0), None)
    assert data.part(most).tolist() == rows


def test_of_rungs_of_the_same_size_the_last_get_what_does_not_divide() -> None:
    rungs = np.repeat(np.arange(24.0), 3)[:, None]
    data = _Rows.of(np.ones((72, 1)), rungs, np.arange(72.0), None)
    assert np.bincount(data.kind[data.part(52)]).tolist() == [2] * 20 + [3] * 4


def test_the_settings_of_a_process_with_rungs_have_their_priors() -> None:
    weights, rungs, values, _ = rung_runs(TOP, TOP, NEAR, NEAR, FAR)
    data = _Rows.of(weights, rungs, values, None)
    posterior = _RungPosterior(RungFamily(columns=2), 0.35, data, np.arange(5))
    four, three, small = math.log(4.0), math.log(3.0), math.log(0.02)
    expected = [four] * 3 + [three] * 2 + [0.0, 0.0] + [small] * 3
    assert posterior.prior.tolist() == pytest.approx(expected)
    assert posterior.widths.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 1.5, 1.5, 1.5]
    parts = [len(part) for part in posterior.split(posterior.prior)]
    assert parts == [3, 2, 1, 1, 3]


def test_settings_with_rungs_and_no_covariance_are_the_worst() -> None:
    weights, rungs, values, _ = rung_runs(TOP, TOP, NEAR)
    data = _Rows.of(weights, rungs, values, None)
    posterior = _RungPosterior(RungFamily(columns=2), 0.35, data, np.arange(3))
    posterior.known = np.full(3, -1e3)
    value, slope = posterior(posterior.prior)
    assert value == 1e10
    assert slope.tolist() == [0.0] * len(posterior.prior)


def covariance_of(model: RungModel, one: Floats, other: Floats) -> float:
    """Return the covariance of two inputs by the formula in the module's text."""
    gap = (one[:3] ** model.power - other[:3] ** model.power) * model.lengths
    apart = (one[3:] - other[3:]) * model.rung_lengths
    distance = math.sqrt(3.0 * float(gap @ gap))
    value = model.signal * (1.0 + distance) * math.exp(-distance) * math.exp(-0.5 * apart @ apart)
    for at in (one, other):
        value *= model.amplitude if (at[3:] == 0.0).all() else 1.0
    return float(value + 25.0 * bool((one[3:] == other[3:]).all()))


RUNGS = (NEAR, TOP, NEAR, FAR, NEAR, TOP, FAR, NEAR, NEAR, TOP, NEAR, FAR)


@pytest.mark.parametrize("rungs", [RUNGS, tuple(r for r in RUNGS if r != TOP)])
def test_a_process_over_rungs_is_conditioned_on_its_runs(
    rungs: tuple[tuple[float, float], ...],
) -> None:
    weights, at, values, noise = rung_runs(*rungs)
    inputs = rung_columns(weights, at)
    model = RungFamily(columns=2).fit_task(inputs, values, noise)
    assert isinstance(model, RungModel)
    data, count = model.data, len(values)
    own = model.noises[data.kind] + np.square(noise / data.scale) + 1e-8
    covariance = np.array([[covariance_of(model, a, b) for b in inputs] for a in inputs])
    covariance += np.diag(own)
    centred = (values - data.centres[data.kind]) / data.scale
    solved = np.linalg.solve(covariance, centred)
    fresh, _, _, _ = rung_runs(TOP, NEAR, FAR, (0.0, 1.0), (9e3, 9e3))
    asked = rung_columns(fresh[::-1], np.array([TOP, NEAR, FAR, (0.0, 1.0), (9e3, 9e3)]))
    # The rung with the fewest steps from the top stands for one that was never run.
    centres = {tuple(kind): centre for kind, centre in zip(data.kinds, data.centres, strict=True)}
    noises = {tuple(kind): one for kind, one in zip(data.kinds, model.noises, strict=True)}
    nearest = centres[TOP] if TOP in rungs else centres[FAR]
    for row, mean, spread in zip(asked, model.predict(asked), model.spread(asked), strict=True):
        across = np.array([covariance_of(model, row, one) for one in inputs])
        centre = centres.get(tuple(row[3:]), nearest)
        assert mean == pytest.approx(centre + data.scale * across @ solved, rel=1e-7)
        left = covariance_of(model, row, row) - across @ np.linalg.solve(covariance, across)
        loud = noises.get(tuple(row[3:]), model.noises.mean())
        assert spread == pytest.approx(data.scale * math.sqrt(left + loud), rel=1e-6)
    settings = 3 + 2 + 1 + 1 + len(data.kinds)
    assert model.flattery == pytest.approx(1.0 + settings / (2.0 * count))
    kept = -solved / np.diag(np.linalg.inv(covariance)) * data.scale
    np.testing.assert_allclose(model.left_out, model.flattery * kept, rtol=1e-6)
    assert model.stretch(0.9) == pytest.approx(1.6448536 * model.flattery)
    assert model.stretch(0.5) == pytest.approx(0.6744898 * model.flattery)


def test_settings_with_rungs_are_searched_on_a_part_within_six_deviations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = searched(monkeypatch)
    weights, at, values, noise = rung_runs(*RUNGS)
    family = RungFamily(columns=2, base=ProcessFamily(iterations=2, settings_runs=7))
    model = family.fit_task(rung_columns(weights, at), values, noise)
    ((posterior, given),) = calls
    prior, widths = posterior.prior, posterior.widths
    np.testing.assert_allclose(
        given["bounds"], [(p - 6.0 * w, p + 6.0 * w) for p, w in zip(prior, widths, strict=True)]
    )
    np.testing.assert_array_equal(given["start"], prior)
    assert given["options"]["maxiter"] == 2
    assert len(posterior.values) == 7
    assert isinstance(model, RungModel)
    assert model.weights.shape == (12,)


def test_a_single_rung_is_told_by_its_columns_together() -> None:
    weights, _, values, _ = rung_runs(*[TOP] * 6)
    one = RungFamily(columns=2).fit_task(rung_columns(weights, np.tile(FAR, (6, 1))), values, None)
    assert isinstance(one, _OneRung)
    two = rung_columns(weights, np.array([NEAR] * 3 + [FAR] * 3))
    assert isinstance(RungFamily(columns=2).fit_task(two, values, None), RungModel)


def test_the_likelier_of_two_powers_is_kept_with_rungs_too() -> None:
    weights, at, values, noise = rung_runs(*RUNGS)
    inputs = rung_columns(weights, at)
    fits = [
        RungFamily(columns=2, base=ProcessFamily(powers=(power,))).fit_task(inputs, values, noise)
        for power in (0.35, 1.0)
    ]
    both = RungFamily(columns=2, base=ProcessFamily(powers=(0.35, 1.0)))
    kept = both.fit_task(inputs, values, noise)
    assert isinstance(kept, RungModel)
    assert kept.objective == min(fit.objective for fit in fits if isinstance(fit, RungModel))
    assert both.name == "gp-rungs"
