"""Check small numeric rules of the verdict by hand: ranks, Holm, canonical texts, sparse contrasts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sweeps.verdict.canonical import canonical
from sweeps.verdict.contrasts import Estimate
from sweeps.verdict.covariance import (
    Contrasts,
    Covariance,
    centred,
    differences,
    matrix,
    power_sums,
    product,
    variances,
)
from sweeps.verdict.holm import corrected_by_holm, holm
from sweeps.verdict.numbers import rank_correlations


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"d": 2, "c": 3}}, '{"a":{"c":3,"d":2},"b":1}'),
        ({2: "two", 1: "one"}, '{"1":"one","2":"two"}'),
        ({"where": Path("x")}, '{"where":"x"}'),
    ],
)
def test_equal_values_have_one_text_whatever_their_order_and_keys(value: object, text: str) -> None:
    assert canonical(value) == text


def test_rank_correlations_are_those_of_each_row() -> None:
    x = np.array([[1.0, 2.0, 3.0, 40.0], [1.0, 2.0, 3.0, 4.0], [4.0, 4.0, 4.0, 4.0]])
    y = np.array([[1.0, 3.0, 2.0, 9.0], [9.0, 1.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    found = rank_correlations(x, y)
    # Row 1: ranks differ by 0, 1, 1, 0: 1 - 6 * 2 / (4 * 15). Row 2: -4.5 over the root of 5 * 4.5.
    assert found[:2] == pytest.approx([0.8, -4.5 / math.sqrt(22.5)])
    assert math.isnan(found[2])
    assert math.isnan(rank_correlations(y[2:], x[2:])[0])
    assert rank_correlations(y[:2], x[:2]) == pytest.approx(found[:2])


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([0.4, 0.6], [0.8, 0.8]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02, 0.001, 0.3, 0.03], [0.06, 0.004, 0.3, 0.06]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_multiplies_by_those_that_are_left_and_never_falls(
    p_values: list[float], corrected: list[float]
) -> None:
    assert holm(p_values) == pytest.approx(corrected)


def test_estimates_keep_their_numbers_beside_the_corrected_p() -> None:
    made = [
        Estimate(value=v, standard_error=1.0, df=3.0, low=-9.0, high=9.0, p=p, p_corrected=p)
        for v, p in ((1.0, 0.03), (2.0, 0.01))
    ]
    found = corrected_by_holm(made)
    assert [(e.value, e.p, e.p_corrected) for e in found] == [(1.0, 0.03, 0.03), (2.0, 0.01, 0.02)]


SHARED = Covariance(
    diagonal=np.array([1.0, 2.0, 3.0]),
    factor=np.array([[1.0], [2.0], [4.0]]),
    inner=np.array([[0.5]]),
)
WHOLE = np.array([[1.5, 1.0, 2.0], [1.0, 4.0, 4.0], [2.0, 4.0, 11.0]])


def test_a_covariance_is_its_diagonal_and_what_all_share() -> None:
    assert SHARED.dense().tolist() == WHOLE.tolist()


@pytest.mark.parametrize("form", [SHARED, WHOLE], ids=["narrow", "matrix"])
def test_variances_and_covariances_of_contrasts_by_hand(form: Covariance | np.ndarray) -> None:
    sparse = differences(3, [2, 1], 0)
    plain = np.array([[-1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]])
    assert sparse.dense().tolist() == plain.tolist()
    # 11 + 1.5 - 2 * 2 and 4 + 1.5 - 2 * 1; together 4 - 2 - 1 + 1.5.
    for weights in (sparse, plain):
        assert variances(form, weights) == pytest.approx([8.5, 3.5])
    assert matrix(form, plain) == pytest.approx(np.array([[8.5, 2.5], [2.5, 3.5]]))
    # Of 2 and 3 less their mean: a quarter of 4 + 11 - 8 each.
    assert variances(form, centred(3, [1, 2])) == pytest.approx([1.75, 1.75])


def test_contrasts_against_a_mean_by_hand() -> None:
    all_three, pair = centred(3), centred(3, [0, 2])
    third = 1.0 / 3.0
    assert all_three.dense() == pytest.approx(np.eye(3) - third)
    assert pair.dense() == pytest.approx(np.array([[0.5, 0.0, -0.5], [-0.5, 0.0, 0.5]]))
    assert (len(all_three), len(pair)) == (3, 2)
    values = np.array([1.0, 5.0, 9.0])
    assert product(pair, values) == pytest.approx([-4.0, 4.0])
    assert product(pair.dense(), values) == pytest.approx([-4.0, 4.0])
    assert product(differences(3, [0, 2], 1), values) == pytest.approx([-4.0, 4.0])
    assert power_sums(pair, 2, values) == pytest.approx([2.5, 2.5])
    assert power_sums(all_three, 3, values) == pytest.approx(
        [(8 - 5 - 9) / 27, (-1 + 40 - 9) / 27, (-1 - 5 + 72) / 27]
    )
    doubled = Contrasts(rows=2.0 * differences(3, [2], 0).rows)
    assert power_sums(doubled, 3, values) == pytest.approx([8.0 * 9.0 - 8.0])
