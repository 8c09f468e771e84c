"""Surrogates recover their own truth, keep the interface, and have calibrated intervals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad

from ablations.errors import ConfigError
from sweeps.search.surrogates import (
    FAMILIES,
    Family,
    ProcessFamily,
    StackFamily,
    Surrogate,
    TreesFamily,
    family,
    leaderboard,
    log_linear,
    power_law,
    scheffe,
)
from sweeps.search.surrogates.gaussian_process import Kernel, _Posterior
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.search.surrogates.mixing_laws import _bounded

Floats = NDArray[np.float64]

SHARED = Path(__file__).parents[3] / "shared" / "data" / "swarms"


def mixtures(n: int, sources: int = 4, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.ones(sources), n)


def exponential(weights: Floats) -> Floats:
    return 2.0 + np.exp(weights @ np.array([0.5, -2.0, 0.3, -0.5]))


def power(weights: Floats) -> Floats:
    return 2.0 + np.exp(np.log(weights + 0.02) @ np.array([-0.05, -0.3, -0.02, -0.1]))


def blend(weights: Floats) -> Floats:
    return weights @ np.array([1.0, 2.0, 3.0, 4.0]) - 4.0 * weights[:, 0] * weights[:, 1]


def small(name: str) -> Family:
    """Return the family with settings that fit in a second."""
    if name == "lightgbm":
        return TreesFamily(trees=60)
    if name in ("stack", "choice"):
        rule = "weigh" if name == "stack" else "choose"
        return StackFamily(name=name, members=(power_law(), scheffe()), rule=rule)  # type: ignore[arg-type]
    return family(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_interface(name: str) -> None:
    inputs, unseen = mixtures(40), mixtures(30, seed=1)
    values = np.stack([exponential(inputs), -10.0 * blend(inputs), np.full(40, 7.0)], axis=1)
    values[3, 0] = np.nan
    model = Surrogate(small(name)).fit(inputs, values)
    predicted = model.predict(unseen)
    low, high = model.predict_interval(unseen, 0.9)
    assert predicted.shape == low.shape == high.shape == model.spread(unseen).shape == (30, 3)
    assert (low <= predicted).all()
    assert (predicted <= high).all()
    np.testing.assert_allclose(predicted[:, 2], 7.0, atol=1e-3)
    assert rank_correlation(predicted[:, 0], exponential(unseen)) > 0.8
    again = Surrogate(small(name)).fit(inputs, values).predict(unseen)
    np.testing.assert_array_equal(again, predicted)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("linear", lambda w: w @ np.array([1.0, 2.0, 3.0, 4.0])),
        ("scheffe", blend),
        ("log-linear", exponential),
        ("mixing-law", lambda w: exponential(w) + np.exp(w @ np.array([-3.0, 0.0, 0.0, 1.0]))),
        ("power-law", power),
        ("mixed-law", power),
        ("gp", exponential),
    ],
)
def test_a_family_recovers_its_own_truth(name: str, truth) -> None:  # type: ignore[no-untyped-def]
    inputs, unseen = mixtures(60), mixtures(200, seed=1)
    noise = 0.02 * truth(inputs).std() * np.random.default_rng(2).normal(size=60)
    model = Surrogate(family(name)).fit(inputs, truth(inputs) + noise)
    error = model.predict(unseen)[:, 0] - truth(unseen)
    assert np.sqrt(np.mean(error**2)) < 0.1 * truth(unseen).std()


def test_a_law_turns_itself_round_for_accuracies() -> None:
    inputs, unseen = mixtures(60), mixtures(100, seed=1)
    model = Surrogate(log_linear()).fit(inputs, 1.0 - 0.2 * exponential(inputs))
    np.testing.assert_allclose(
        model.predict(unseen)[:, 0], 1.0 - 0.2 * exponential(unseen), atol=0.02
    )


@pytest.mark.parametrize("name", ["log-linear", "power-law", "mixing-law"])
def test_metrics_fitted_together_are_those_fitted_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.dirichlet(np.ones(4), 30)
    values = np.stack([exponential(inputs), power(inputs), -power(inputs)], axis=1)
    values += rng.normal(0.0, 0.02, values.shape)
    together = Surrogate(family(name)).fit(inputs, values)
    for column in range(3):
        alone = Surrogate(family(name)).fit(inputs, values[:, column])
        # Two terms may be traded for each other: what is predicted is what counts.
        np.testing.assert_allclose(
            together.predict(inputs)[:, column], alone.predict(inputs)[:, 0], atol=1e-5
        )
    gaps = values.copy()
    gaps[0, 0] = np.nan
    np.testing.assert_allclose(
        Surrogate(family(name)).fit(inputs, gaps).predict(inputs)[:, 1:],
        together.predict(inputs)[:, 1:],
        atol=1e-5,
    )


@pytest.mark.parametrize("kernel", ["matern32", "matern52", "rbf"])
def test_the_gradient_of_the_posterior_is_exact(kernel: Kernel) -> None:
    inputs = mixtures(25)
    values = exponential(inputs)
    settings = ProcessFamily(kernel=kernel)
    posterior = _Posterior(settings, inputs**0.35, values - values.mean(), np.full(25, 0.01))
    at = posterior.prior + np.random.default_rng(1).normal(0.0, 0.3, len(posterior.prior))
    assert check_grad(lambda x: posterior(x)[0], lambda x: posterior(x)[1], at) < 1e-3


@pytest.mark.parametrize("made", [ProcessFamily(), power_law(), log_linear(), scheffe()])
def test_free_leave_one_out_errors_agree_with_refits(made: Family) -> None:
    inputs = mixtures(40)
    values = exponential(inputs) + np.random.default_rng(0).normal(0.0, 0.1, 40)
    values = (values - values.mean()) / values.std()
    free = made.fit_task(inputs, values, None).left_out  # type: ignore[attr-defined]
    refits = [
        made.fit_task(np.delete(inputs, i, 0), np.delete(values, i), None).predict(inputs[[i]])[0]
        - values[i]
        for i in range(0, 40, 4)
    ]
    assert np.corrcoef(free[::4], refits)[0, 1] > 0.95


@pytest.mark.parametrize("name", ["gp", "scheffe", "power-law"])
def test_intervals_have_their_nominal_coverage(name: str) -> None:
    covered = []
    for seed in range(6):
        inputs, unseen = mixtures(50, seed=seed), mixtures(300, seed=100 + seed)
        rng = np.random.default_rng(seed)
        noise = 0.3 * blend(inputs).std()
        model = Surrogate(family(name)).fit(inputs, blend(inputs) + rng.normal(0.0, noise, 50))
        low, high = model.predict_interval(unseen, 0.9)
        new = blend(unseen) + rng.normal(0.0, noise, 300)
        covered.append(np.mean((low[:, 0] <= new) & (new <= high[:, 0])))
    assert 0.84 < np.mean(covered) < 0.96


def test_known_noise_weighs_runs() -> None:
    inputs = mixtures(60)
    noise = np.where(np.arange(60) % 2, 1.0, 0.02)
    values = blend(inputs) + noise * np.random.default_rng(0).normal(size=60)
    unseen = mixtures(200, seed=1)
    weighted = Surrogate(scheffe()).fit(inputs, values, noise).predict(unseen)[:, 0]
    without = Surrogate(scheffe()).fit(inputs, values).predict(unseen)[:, 0]
    truth = blend(unseen)
    assert np.std(weighted - truth) < 0.6 * np.std(without - truth)


def test_the_process_gives_a_run_of_huge_known_error_less_weight() -> None:
    inputs = mixtures(40)
    values = exponential(inputs)
    values = (values - values.mean()) / values.std()
    values[7] += 4.0
    errors = np.full(40, 0.05)
    errors[7] = 4.0
    known = ProcessFamily().fit_task(inputs, values, errors).predict(inputs[[7]])[0]
    unknown = ProcessFamily().fit_task(inputs, values, np.full(40, 0.05)).predict(inputs[[7]])[0]
    truth = values[7] - 4.0
    assert abs(known - truth) < 0.2
    assert abs(known - truth) < 0.5 * abs(unknown - truth)


def test_errors_of_the_process_at_left_out_runs_are_larger_by_what_its_settings_learned() -> None:
    inputs = mixtures(30)
    values = exponential(inputs) + np.random.default_rng(0).normal(0.0, 0.1, 30)
    values = (values - values.mean()) / values.std()
    model = ProcessFamily().fit_task(inputs, values, None)
    # Rasmussen & Williams, eq. 5.12, with the settings kept: mean minus value without the run.
    inverse = np.linalg.inv(model.lower @ model.lower.T)
    kept = -(inverse @ (values - model.mean)) / np.diag(inverse)
    settings = inputs.shape[1] + 2  # one length per source, the signal, the noise
    np.testing.assert_allclose(model.left_out, (1.0 + settings / (2.0 * 30)) * kept, rtol=1e-6)


@pytest.mark.parametrize("name", ["log-linear", "power-law", "mixing-law", "mixed-law"])
def test_a_law_stays_near_the_values_it_was_fitted_to(name: str) -> None:
    # Three sources that hardly any run reads: their exponents are nearly free.
    rng = np.random.default_rng(0)
    inputs = np.c_[rng.dirichlet(np.ones(3), 30), np.zeros((30, 3))]
    inputs[0, 3:] = 0.02
    inputs /= inputs.sum(axis=1, keepdims=True)
    values = np.exp(3.0 * inputs[:, 0]) + rng.normal(0.0, 0.3, 30)
    values[0] += 5.0
    span = np.ptp(values)
    unseen = np.r_[np.eye(6), rng.dirichlet(np.full(6, 0.2), 200)]
    predicted = Surrogate(family(name)).fit(inputs, values).predict(unseen)[:, 0]
    assert values.min() - span <= predicted.min()
    assert predicted.max() <= values.max() + span


def test_bounding_keeps_what_is_near_and_the_order_of_the_rest() -> None:
    values = np.array([-1e4, -3.0, -0.6, -0.5, 0.0, 1.0, 1.5, 1.6, 3.0, 1e4])
    bounded = _bounded(values, 0.0, 1.0)
    np.testing.assert_array_equal(bounded[3:7], values[3:7])
    assert (np.diff(bounded) >= 0.0).all()
    assert (bounded[0], bounded[-1]) == pytest.approx((-1.0, 2.0))


def test_sparse_swarms_of_many_sources_keep_their_intervals() -> None:
    covered = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        inputs = rng.dirichlet(np.full(24, 0.15), 348)
        inputs = np.where(inputs < 0.01, 0.0, inputs)
        inputs /= inputs.sum(axis=1, keepdims=True)
        truth = np.sqrt(inputs) @ rng.normal(size=24)
        values = truth + rng.normal(0.0, 0.3 * truth.std(), 348)
        model = Surrogate(family("ridge-sqrt")).fit(inputs[:48], values[:48])
        low, high = model.predict_interval(inputs[48:], 0.9)
        covered.append(((low[:, 0] <= values[48:]) & (values[48:] <= high[:, 0])).mean())
    assert 0.87 <= np.mean(covered) <= 0.93


def test_a_stack_is_not_worse_than_its_worst_and_a_choice_takes_the_right_law() -> None:
    inputs = mixtures(50)
    values = power(inputs) + np.random.default_rng(0).normal(0.0, 0.01, 50)
    scaled = (values - values.mean()) / values.std()
    members = (log_linear(), power_law())
    choice = StackFamily(name="c", members=members, rule="choose").fit_task(inputs, scaled, None)
    stack = StackFamily(name="s", members=members).fit_task(inputs, scaled, None)
    assert choice.weights.tolist() == [0.0, 1.0]
    assert stack.weights[1] > 0.6
    assert stack.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "rule"), [("stack", "weigh"), ("choice", "choose")])
def test_the_families_of_several_weigh_or_choose_as_they_are_called(name: str, rule: str) -> None:
    made = family(name)
    assert isinstance(made, StackFamily)
    assert (made.name, made.rule) == (name, rule)
    assert "power-law" in {member.name for member in made.members}


def test_the_leaderboard_ranks_the_right_family_first_and_prints() -> None:
    inputs = mixtures(60)
    values = np.stack([power(inputs), 2.0 * power(inputs[:, ::-1])], axis=1)
    values += np.random.default_rng(0).normal(0.0, 0.01, values.shape)
    board = leaderboard([family(n) for n in ("linear", "power-law", "scheffe")], inputs, values)
    assert board.best == "power-law"
    assert board.entries[0].regret <= board.entries[-1].regret
    assert "60 runs, 2 metrics, 5-fold" in str(board)
    assert board.rows()[0]["name"] == "power-law"


class _Wild:
    """Family that predicts the right order, too far by a factor."""

    name = "wild"

    def __init__(self, factor: float = 100.0) -> None:
        self.factor = factor

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> _Wild:
        return self

    def predict(self, inputs: Floats) -> Floats:
        return self.factor * (power(inputs) - power(inputs).mean())

    def spread(self, inputs: Floats) -> Floats:
        return np.ones(len(inputs))


@pytest.mark.parametrize(("times", "dropped"), [(2.6, False), (3.6, True)])
def test_a_family_is_dropped_from_two_standard_deviations_on(times: float, dropped: bool) -> None:
    # Families fit standardised values. A prediction k times too far is wrong by k - 1 of them.
    inputs = mixtures(60)
    wild = _Wild(times / float(power(inputs).std()))
    board = leaderboard([wild, family("linear")], inputs, power(inputs)[:, None])
    assert ("wild" in [entry.name for entry in board.dropped]) == dropped


def test_a_family_that_leaves_the_data_is_dropped_by_name_and_reported_in_time() -> None:
    inputs = mixtures(60)
    values = power(inputs)[:, None]
    progress: list[str] = []
    board = leaderboard([_Wild(), family("linear")], inputs, values, progress=progress.append)
    assert [entry.name for entry in board.entries] == [board.best] == ["linear"]
    assert [entry.name for entry in board.dropped] == ["wild"]
    assert "wild          dropped: its predictions leave the data" in str(board)
    assert [row["name"] for row in board.rows()] == ["linear", "wild"]
    assert [line.partition(":")[0] for line in progress] == ["wild", "linear"]


def test_the_score_has_a_rank_of_its_own_beside_the_mean_over_metrics() -> None:
    inputs = mixtures(60)
    # Two metrics that nearly cancel: each is known well, their sum is not.
    own = np.random.default_rng(0).normal(0.0, 0.02, 60)
    values = np.stack([power(inputs), own - power(inputs)], axis=1)
    entry = leaderboard([family("power-law")], inputs, values, weights=[-1.0, -1.0]).entries[0]
    assert entry.rank_correlation > 0.8
    assert entry.score_rank_correlation < 0.5


def test_few_values_and_bad_inputs_are_refused() -> None:
    inputs = mixtures(10)
    values = np.full((10, 2), np.nan)
    values[:, 0], values[:2, 1] = 1.0, 1.0
    with pytest.raises(ConfigError, match=r"too few runs .* metric columns \[1\]"):
        Surrogate(family("linear")).fit(inputs, values)
    inputs[0, 0] = np.inf
    with pytest.raises(ConfigError, match="not a finite matrix"):
        Surrogate(family("linear")).fit(inputs, values[:, :1])


def test_an_unknown_family_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'scheffe'"):
        family("schefe")


def table(name: str) -> Floats:
    with (SHARED / "regmix" / name).open() as stream:
        rows = list(csv.reader(stream))[1:]
    return np.array([[float(cell) for cell in row[1:]] for row in rows])


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public swarms in ../shared")
def test_the_process_ranks_regmix_from_64_runs() -> None:
    weights, losses = table("train_mixture_1m.csv"), table("train_pile_loss_1m.csv")
    unseen, truth = table("test_mixture_1m.csv"), table("test_pile_loss_60m.csv")
    weights, unseen = (w / w.sum(axis=1, keepdims=True) for w in (weights, unseen))
    rows = np.random.default_rng(0).permutation(512)[:64]
    predicted = Surrogate(ProcessFamily()).fit(weights[rows], losses[rows]).predict(unseen)
    ranks = [rank_correlation(predicted[:, t], truth[:, t]) for t in range(13)]
    assert np.mean(ranks) > 0.976
