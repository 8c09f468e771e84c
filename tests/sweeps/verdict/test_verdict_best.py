"""Check the candidates that may be best, and the draws behind that, at their borders."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sweeps.verdict import contrasts
from sweeps.verdict.answer import not_ruled_out
from sweeps.verdict.contrasts import Evidence, Selection, best_subset
from sweeps.verdict.draws import DRAWS, scaled_normals, t_scales
from sweeps.verdict.training_noise import OwnVariances, TrainingNoise


def evidence(means: list[float], *, seeds: int = 3, df: float = 10.0, **given: Any) -> Evidence:
    return Evidence(
        names=tuple(f"c{k}" for k in range(len(means))),
        means=np.array(means),
        unit=np.eye(len(means)) / seeds,
        noise=TrainingNoise(variance=1.0, df=df, source="seeds"),
        **given,
    )


def tail_of(t: float, df: float = 10.0) -> float:
    return float(stats.t.sf(t, df))


def test_the_p_of_being_best_is_that_of_dunnett_s_one_sided_test() -> None:
    rng = np.random.default_rng(8)
    groups = rng.standard_normal((4, 5)) + np.array([[0.0], [0.9], [1.9], [1.2]])
    made = replace(
        evidence(groups.mean(axis=1).tolist(), seeds=5, df=16.0),
        noise=TrainingNoise(
            variance=float(groups.var(axis=1, ddof=1).mean()), df=16.0, source="seeds"
        ),
    )
    found = best_subset(made)[1]
    compared = 0
    for k in range(4):
        others = [groups[j] for j in range(4) if j != k]
        dunnett = stats.dunnett(
            *others, control=groups[k], alternative="greater", rng=np.random.default_rng(0)
        )
        p = float(dunnett.pvalue.min())
        if 0.025 < p < 0.25:
            compared += 1
            assert found[f"c{k}"] == pytest.approx(p, abs=0.01)
    assert compared > 0


def test_a_candidate_at_exactly_half_of_alpha_is_ruled_out() -> None:
    made = evidence([0.0, 2.0])
    p = best_subset(made)[1]["c0"]
    assert p == pytest.approx(tail_of(2.0 / math.sqrt(2.0 / 3.0)))
    assert best_subset(replace(made, alpha=2.0 * p))[0] == ("c1",)
    assert best_subset(replace(made, alpha=1.98 * p))[0] == ("c0", "c1")


@pytest.mark.parametrize(
    ("factor", "drawn"),
    [(0.45, False), (0.5, True), (0.75, True), (3.6, True), (6.0, False), (6.6, False)],
)
def test_only_candidates_near_the_border_need_draws(
    monkeypatch: pytest.MonkeyPatch, factor: float, drawn: bool
) -> None:
    """Neither where the tail is beyond 2 alpha, nor where three times the tail is half of alpha."""
    made = evidence([0.0, 2.0, 0.3, 0.1])
    tail = tail_of((made.means[1] - made.means[0]) / math.sqrt(2.0 / 3.0))
    bound = 3.0 * float(stats.t.sf(made.parts(np.array([[-1.0, 1.0, 0, 0]])).t(), 10.0)[0])
    alpha = {0.5: bound / 3.0 / 2.0, 6.0: 2.0 * bound}.get(factor, factor * tail)
    calls = []
    null = contrasts._null_scores

    def spy(*given: Any) -> np.ndarray:
        calls.append(given)
        return null(*given)

    monkeypatch.setattr(contrasts, "_null_scores", spy)
    p = contrasts._p_of_best(replace(made, alpha=alpha), 0)
    assert len(calls) == drawn
    assert p == pytest.approx(bound) if not drawn else tail < p < 0.95 * bound


def test_few_draws_beyond_give_bonferroni_s_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = evidence([0.0, 2.0, 0.3, 0.1])
    before = contrasts._p_of_best(made, 0)
    beyond = round(before * DRAWS)
    assert beyond / DRAWS == before
    monkeypatch.setattr(contrasts, "_RARE", beyond)
    assert contrasts._p_of_best(made, 0) == before
    monkeypatch.setattr(contrasts, "_RARE", beyond + 1)
    tail = tail_of(2.0 / math.sqrt(2.0 / 3.0))
    assert contrasts._p_of_best(made, 0) == pytest.approx(3.0 * tail)


@pytest.mark.parametrize(("most", "joint"), [(3, True), (2, False)])
def test_beyond_the_limit_of_comparisons_the_bound_is_bonferroni_s(
    monkeypatch: pytest.MonkeyPatch, most: int, joint: bool
) -> None:
    monkeypatch.setattr(contrasts, "_MOST_JOINT", most)
    p_best = best_subset(evidence([0.0, 2.0, 0.3, 0.1]))[1]
    tails = {"c0": 2.0, "c2": 1.7, "c3": 1.9}
    for name, lead in tails.items():
        bound = min(1.0, 3.0 * tail_of(lead / math.sqrt(2.0 / 3.0)))
        if joint:
            assert p_best[name] < bound - 0.002
        else:
            assert p_best[name] == pytest.approx(bound)
    assert p_best["c1"] == 1.0


@pytest.mark.parametrize(("most", "every"), [(6, True), (5, True), (4, False)])
def test_only_of_more_than_the_limit_do_the_best_alone_rule_out(
    monkeypatch: pytest.MonkeyPatch, most: int, every: bool
) -> None:
    """The best mean is noisy, so the quiet second one rules out more where it is a rival."""
    monkeypatch.setattr(contrasts, "_MOST_JOINT", 2)
    monkeypatch.setattr(contrasts, "MOST_DENSE", most)
    monkeypatch.setattr(contrasts, "_RIVALS", 1)
    made = replace(evidence([0.0, 3.0, 2.9, 0.2, 0.4]), unit=np.diag([0.1, 4.0, 0.1, 0.1, 0.1]))
    quiet, noisy = tail_of(2.9 / math.sqrt(0.2)), tail_of(3.0 / math.sqrt(4.1))
    assert best_subset(made)[1]["c0"] == pytest.approx(4.0 * (quiet if every else noisy))


def test_of_equal_means_the_first_are_the_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty candidates of two means: c1, c3 and the quiet c5 come first."""
    monkeypatch.setattr(contrasts, "MOST_DENSE", 10)
    monkeypatch.setattr(contrasts, "_RIVALS", 3)
    made = replace(evidence([0.0, 6.0] * 30), unit=np.diag([0.1, *[4.0] * 4, 0.3, *[4.0] * 54]))
    expected = 59.0 * tail_of(6.0 / math.sqrt(0.4))
    assert contrasts._bounds_of_best(made)[0] == pytest.approx(expected)


def test_a_search_counts_for_those_whose_items_differ() -> None:
    made = replace(
        evidence([0.0, 3.0, 0.5]),
        item_covariance=np.diag([0.3, 0.0, 0.0]),
        item_df=math.inf,
        selection=Selection(searched=20, seeds=1.0),
    )
    bounds = contrasts._bounds_of_best(made)
    first, last = made.parts(np.array([[-1.0, 1.0, 0.0], [0.0, 1.0, -1.0]])).t()
    df = made.parts(np.array([[-1.0, 1.0, 0.0]])).df[0]
    assert bounds[0] == pytest.approx(20.0 * tail_of(first, df))
    # c2 and c1 have no items of their own, but c0 is a rival of both.
    assert bounds[2] == pytest.approx(20.0 * tail_of(last))
    assert contrasts._bounds_of_best(replace(made, item_covariance=None))[2] == pytest.approx(
        2.0 * tail_of(last)
    )
    assert contrasts._bounds_of_best(replace(made, selection=None))[0] == pytest.approx(
        2.0 * tail_of(first, df)
    )


def with_own(item_df: float, items: float = 1.0) -> tuple[Evidence, np.ndarray, Any]:
    made = Evidence(
        names=("a", "b", "c"),
        means=np.zeros(3),
        unit=np.diag([1.0, 0.5, 0.5]),
        noise=TrainingNoise(variance=2.0, df=6.0, source="seeds"),
        item_covariance=items * np.diag([0.125, 0.125, 0.375]),
        item_df=item_df,
        own=OwnVariances(
            squares=np.array([4.0, 4.0, 4.0]),
            df=np.array([2.0, 2.0, 2.0]),
            runs=np.array([1.0, 2.0, 2.0]),
        ),
    )
    weights = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    return made, weights, made.parts(weights)


def plain_scores(monkeypatch: pytest.MonkeyPatch, variance: float, scale: float) -> list[Any]:
    """Replace the drawn variances and scales by constants, and let scores be t; return the calls."""
    calls: list[Any] = []
    df = contrasts.joint_df

    def joint(*given: Any) -> Any:
        calls.append(given)
        return df(*given)

    def scales(columns: int, known: float) -> np.ndarray:
        calls.append((columns, known))
        return np.full(DRAWS, scale)

    monkeypatch.setattr(
        contrasts,
        "own_draws",
        lambda _, weights: (np.full((DRAWS, len(weights)), variance), np.full((DRAWS, 2), 6.0)),
    )
    monkeypatch.setattr(contrasts, "t_scales", scales)
    monkeypatch.setattr(contrasts, "normal_score", lambda t, _: np.abs(t))
    monkeypatch.setattr(contrasts, "joint_df", joint)
    return calls


@pytest.mark.parametrize(("item_df", "factor"), [(200.0, 1.0), (199.0, 0.25)])
def test_drawn_noise_is_shared_between_training_and_items(
    monkeypatch: pytest.MonkeyPatch, item_df: float, factor: float
) -> None:
    made, weights, parts = with_own(item_df)
    # Training 3 and 2, items 0.25 and 0.5: shares 12 / 13 and 0.8.
    assert parts.training.tolist() == [3.0, 2.0]
    assert parts.items.tolist() == [0.25, 0.5]
    share = np.array([12.0 / 13.0, 0.8])
    normal, rank = scaled_normals(made.covariances(weights)[0] + made.covariances(weights)[1])
    calls = plain_scores(monkeypatch, variance=4.0, scale=0.25)
    found = contrasts._null_scores(made, weights, parts)
    assert found == pytest.approx(normal / 2.0**share * factor ** (1.0 - share))
    training, known, items, given_df = calls[0]
    assert np.asarray(training)[0] == pytest.approx(share * 4.0)
    assert known.shape == (DRAWS, 2)
    assert items == pytest.approx(1.0 - share)
    assert given_df == item_df
    assert calls[1:] == ([(rank, item_df)] if item_df < 200.0 else [])


def test_the_items_share_of_few_seeds_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    made, weights, parts = with_own(500.0, items=100.0)
    normal, _ = scaled_normals(made.covariances(weights)[0] + made.covariances(weights)[1])
    plain_scores(monkeypatch, variance=4.0, scale=1.0)
    found = contrasts._null_scores(made, weights, parts)
    assert found == pytest.approx(normal / 2.0 ** math.sqrt(0.5))


def test_draws_without_own_noise_are_those_of_the_fewest_degrees_of_freedom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, weights, _ = with_own(500.0)
    made = replace(made, own=None)
    parts = replace(made.parts(weights), df=np.array([7.0, 4.04]))
    calls: list[Any] = []

    def spy(*given: Any) -> np.ndarray:
        calls.append(given)
        return t_scales(*given)

    monkeypatch.setattr(contrasts, "t_scales", spy)
    found = contrasts._null_scores(made, weights, parts)
    assert calls == [(2, 4.0)]
    assert np.quantile(np.abs(found), 0.95, axis=0) == pytest.approx(
        [stats.t.isf(0.025, 4.0)] * 2, rel=0.03
    )


def test_a_contrast_without_any_noise_draws_zero() -> None:
    made = replace(
        evidence([0.0, 1.0, 2.0], seeds=1),
        unit=np.diag([0.0, 0.0, 1.0]),
        item_covariance=np.diag([0.0, 0.0, 0.5]),
        item_df=500.0,
        selection=Selection(searched=5, seeds=1.0, unchosen=("c0",)),
    )
    weights = np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    found = contrasts._null_scores(made, weights, made.parts(weights))
    assert (found[:, 0] == 0.0).all()
    assert found[:, 1].std() > 0.5


def test_what_the_best_mean_beats_is_ruled_out_with_bonferroni_s_correction() -> None:
    made = evidence([0.0, 3.0, 1.0, 2.9], df=10.0)
    error = math.sqrt(2.0 / 3.0)
    # c0 trails by 3 and c2 by 2; each is out where its one-sided p is below alpha / 2 / 3.
    for lead, name in ((3.0, "c0"), (2.0, "c2")):
        p = tail_of(lead / error)
        assert name not in not_ruled_out(replace(made, alpha=6.06 * p))
        assert name in not_ruled_out(replace(made, alpha=5.94 * p))
    assert not_ruled_out(replace(made, alpha=6.06 * tail_of(3.0 / error))) == {"c1", "c2", "c3"}
    assert not_ruled_out(replace(made, noise=TrainingNoise.unknown())) == set(made.names)
    assert not_ruled_out(evidence([1.0])) == {"c0"}
    assert not_ruled_out(replace(evidence([1.0]), noise=TrainingNoise.unknown())) == {"c0"}
