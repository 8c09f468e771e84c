"""Mixtures are points on the simplex, and say so when they are not."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import ConfigError
from ablations.mixture.mixture import Mixture, natural, uniform, unimax

tokens = st.dictionaries(
    st.sampled_from(["web", "code", "math", "books", "chat"]),
    st.floats(1e3, 1e12),
    min_size=1,
)


@given(tokens)
def test_normalised_weights_lie_on_the_simplex(amounts: dict[str, float]) -> None:
    mixture = Mixture(amounts, normalize=True)
    assert math.isclose(math.fsum(mixture.values()), 1.0, abs_tol=1e-12)
    assert all(weight >= 0.0 for weight in mixture.values())
    assert list(mixture) == list(amounts)


def test_equal_mixtures_have_one_hash_in_whatever_order_their_sources_come() -> None:
    one, other = Mixture({"web": 0.25, "code": 0.75}), Mixture({"code": 0.75, "web": 0.25})
    assert one == other
    assert len({one, other}) == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "at least one source"),
        ({"web": 0.5, "code": 0.4}, "sum 0.9"),
        ({"web": 1.2, "code": -0.2}, "code: not a weight"),
        ({"web": math.nan, "code": 1.0}, "web: not a weight"),
        ({"web": math.inf}, "web: not a weight"),
        ({"web": 0.0, "code": 0.0}, "all weights are zero"),
    ],
)
def test_a_point_off_the_simplex_is_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixture(weights)


def test_every_bad_weight_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Mixture({"web": -1.0, "code": math.nan, "math": 1.0})
    assert [problem.where for problem in caught.value.problems] == [
        "mixture.weights.web",
        "mixture.weights.code",
    ]


@pytest.mark.parametrize("off", [9e-7, -9e-7])
def test_rounding_within_the_tolerance_passes(off: float) -> None:
    assert math.fsum(Mixture({"web": 0.5 + off, "code": 0.5}).values()) == pytest.approx(1.0)


def test_a_mixture_cannot_be_changed_and_travels_between_processes() -> None:
    mixture = Mixture({"web": 0.6, "code": 0.4})
    with pytest.raises(TypeError):
        mixture["web"] = 1.0  # type: ignore[index]
    again = pickle.loads(pickle.dumps(mixture))
    assert again == mixture
    assert hash(again) == hash(mixture)


@given(tokens)
def test_natural_weights_follow_the_tokens(amounts: dict[str, float]) -> None:
    total = math.fsum(amounts.values())
    for name, weight in natural(amounts).items():
        assert weight == pytest.approx(amounts[name] / total)


@given(tokens, st.floats(0.01, 1.0), st.floats(1.0, 8.0))
def test_unimax_is_as_even_as_the_cap_allows(
    amounts: dict[str, float], share: float, cap: float
) -> None:
    budget = share * cap * math.fsum(amounts.values())
    mixture = unimax(amounts, budget_tokens=budget, max_epochs=cap)
    epochs = {name: mixture[name] * budget / amounts[name] for name in amounts}
    assert all(value <= cap * (1 + 1e-9) for value in epochs.values())
    below = [mixture[name] for name in amounts if epochs[name] < cap * (1 - 1e-6)]
    # Sources under the cap share evenly, and none at the cap gets more than they do.
    assert max(below, default=0.0) == pytest.approx(min(below, default=0.0))
    assert all(mixture[n] <= max(below, default=1.0) * (1 + 1e-6) for n in amounts if below)


def test_unimax_without_a_binding_cap_is_uniform() -> None:
    amounts = {"web": 1e12, "code": 2e12}
    assert unimax(amounts, budget_tokens=1e9) == uniform(amounts)


def test_unimax_refuses_a_budget_beyond_all_sources() -> None:
    with pytest.raises(ConfigError, match="more than all sources give"):
        unimax({"web": 100.0}, budget_tokens=401.0, max_epochs=4.0)


def test_blending_sixty_forty_makes_an_annealing_mixture() -> None:
    before = Mixture({"web": 0.9, "code": 0.1})
    blended = dict(before.blend({"math": 1.0}, 0.6))
    assert blended == pytest.approx({"web": 0.36, "code": 0.04, "math": 0.6})
