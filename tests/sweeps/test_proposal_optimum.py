"""Compare the search for an optimum and the tests of one with numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeps.search.proposals import Difference, Evidence, Goal, Limit, Pick, propose, trust_pick
from sweeps.search.proposals import optimum as optimum_module
from sweeps.search.proposals import optimum_tests as tests_module
from sweeps.search.proposals.optimum import _apart, _clean, _refine, _slope, candidates, optimise
from sweeps.search.proposals.optimum_tests import Refit, Skill, difference, inside, judge, skill
from sweeps.search.proposals.propose import _explored, _farthest, _one_rung, search_families
from sweeps.search.space import Floats, GroupSpec, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates import family
from sweeps.search.surrogates.base import folds

SKILL = Skill(correlation=0.5, shuffled=0.2, chance=0.01, needed=0.5)


def space_of(**given: Any) -> SearchSpace:
    spec = SimplexSpec(sources=tuple("abc"), **given)
    return SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))


class Told:
    """Model whose metrics are the first weight and twice the second."""

    def predict(self, inputs: Floats) -> Floats:
        return inputs[:, :2] * [1.0, 2.0]


def goal(**given: Any) -> Goal:
    return Goal(space=space_of(), surrogate=Told(), weights=np.array([3.0, -1.0]), **given)


ROWS = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
PRIOR = {"m": {"a": 0.25, "b": 0.5, "c": 0.25}}


def test_a_goal_weighs_metrics_and_punishes_what_exceeds_a_limit() -> None:
    assert goal()(ROWS).tolist() == [1.0, -0.25]
    limit = Limit(weights=np.array([1.0, 1.0]), bound=1.125)
    # The second has 1.25, which is .125 too much: a thousand times, and four for the weights.
    assert goal(limits=(limit,))(ROWS).tolist() == [1.0, 499.75]
    assert goal(limits=(limit, limit))(ROWS).tolist() == [1.0, 999.75]


def test_a_goal_is_pulled_to_its_prior_by_nats() -> None:
    nats = 0.5 * math.log(2.0) + 0.25 * math.log(0.5)
    assert goal(prior=PRIOR, pull=2.0)(ROWS) == pytest.approx([1.0 + 2.0 * nats, -0.25])
    assert goal(prior=PRIOR)(ROWS).tolist() == [1.0, -0.25]
    assert goal(prior=PRIOR, pull=-1.0)(ROWS).tolist() == [1.0, -0.25]
    assert goal(pull=2.0)(ROWS).tolist() == [1.0, -0.25]
    corner = goal(prior={"m": {"a": 0.0, "b": 0.0, "c": 1.0}}, pull=1.0)(np.eye(3))
    assert corner == pytest.approx(
        [3.0 + 6.0 * math.log(10.0), -2.0 + 6.0 * math.log(10.0), 0.0], abs=1e-9
    )


def test_candidates_are_draws_edges_the_centre_and_runs_inside_with_four_neighbours() -> None:
    space, rng = space_of(high={"a": 0.6}), np.random.default_rng(0)
    seen = np.array([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    found = candidates(space, seen, 30, rng)
    assert len(found) == 30 + 15 + 1 + 2 + 2 * 4
    assert found[45].tolist() == space.centre.tolist()
    assert found[46:48].tolist() == seen[[0, 2]].tolist()
    assert len(candidates(space, seen[1:2], 30, rng)) == 46
    assert len(candidates(space, seen[:0], 30, rng)) == 46
    many = candidates(space, np.tile(seen[2], (100, 1)), 2, rng)[104:]
    # Steps of a tenth times the size of a normal number, .798 on average.
    assert np.linalg.norm(many - seen[2], axis=1).mean() == pytest.approx(0.08, abs=0.012)


@pytest.mark.parametrize(("value", "first"), [(0.05, True), (0.1, False), (0.2, False)])
def test_four_candidates_are_refined_and_the_best_result_is_kept(
    value: float, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[list[float]] = []
    corner = np.array([0.0, 0.0, 1.0])

    def refine(goal: Any, space: Any, start: Floats, rng: Any) -> tuple[Floats, float]:
        starts.append(start.tolist())
        return corner, value

    monkeypatch.setattr(optimum_module, "_refine", refine)
    monkeypatch.setattr(optimum_module, "_clean", lambda goal, space, best, loss: (best, loss))
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 300)
    losses = 0.1 + np.arange(300.0)
    losses[[0, 7]] = losses[[7, 0]]
    kept: list[int] = []

    def apart(ordered: Floats, n: int) -> Floats:
        kept.append(len(ordered))
        return ordered[:n]

    monkeypatch.setattr(optimum_module, "_apart", apart)
    rng = np.random.default_rng(0)
    best, loss = optimise(lambda coordinates: losses, space_of(), rows, rng)
    assert kept == [200]
    assert starts == rows[[7, 1, 2, 3]].tolist()
    assert best.tolist() == (corner if first else rows[7]).tolist()
    assert loss == pytest.approx(0.05 if first else 0.1)


def test_starts_are_the_best_and_others_far_from_all_before() -> None:
    line = np.array([[4.0], [4.5], [0.0], [9.0], [2.0], [3.0]])
    assert _apart(line, 4)[:, 0].tolist() == [4.0, 9.0, 0.0, 2.0]
    assert _apart(line, 1)[:, 0].tolist() == [4.0]
    assert sorted(_apart(line, 9)[:, 0].tolist()) == [0.0, 2.0, 3.0, 4.0, 4.5, 9.0]
    plane = np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [4.0, 3.0]])
    assert _apart(plane, 3).tolist() == [[0.0, 0.0], [4.0, 3.0], [0.0, 3.0]]


def test_a_flat_goal_leaves_the_start_where_it_is() -> None:
    start = np.array([0.5, 0.25, 0.25])
    flat: Callable[[Floats], Floats] = lambda rows: np.ones(len(rows))  # noqa: E731
    found, value = _refine(flat, space_of(), start, np.random.default_rng(0))
    assert found.tolist() == start.tolist()
    assert value == 1.0


def test_a_goal_of_steps_is_refined_by_batches_of_sixty_to_the_least_that_was_seen() -> None:
    seen: list[Floats] = []

    def steps(rows: Floats) -> Floats:
        losses = np.floor(40.0 * rows[:, 0]) + 10.0 * np.floor(10.0 * np.abs(rows[:, 1] - 0.5))
        if len(rows) > 10:
            seen.append(losses)
        return np.asarray(losses, dtype=np.float64)

    start = np.array([0.5, 0.1, 0.4])
    found, value = _refine(steps, space_of(), start, np.random.default_rng(0))
    assert [len(losses) for losses in seen] == [60] * 4
    assert value == min(losses.min() for losses in seen)
    assert value == steps(found[None])[0]


def test_a_slope_is_that_of_forward_differences() -> None:
    value, slope = _slope(lambda rows: 7.0 + rows @ [2.0, -1.0, 0.5], np.array([0.5, 1.0, 2.0]))
    assert value == pytest.approx(8.0)
    assert slope == pytest.approx([2.0, -1.0, 0.5], abs=1e-6)


NEARLY = np.array([0.6, 0.3995, 0.0005])


@pytest.mark.parametrize(
    ("loss", "rounded", "cleaned"),
    [
        (0.0, 0.0, True),
        (1.0, 1.0007, True),
        (1.0, 1.0015, False),
        (-1.0, -1.0, True),
        (-1.0, -0.9993, True),
        (-1.0, -0.9985, False),
        (2.0, 1.0, True),
    ],
)
def test_a_weight_below_a_thousandth_becomes_zero_if_the_loss_allows_it(
    loss: float, rounded: float, cleaned: bool
) -> None:
    found, value = _clean(lambda rows: np.full(len(rows), rounded), space_of(), NEARLY, loss)
    if cleaned:
        assert found == pytest.approx([0.6 / 0.9995, 0.3995 / 0.9995, 0.0], abs=1e-12)
        assert value == rounded
    else:
        assert (found.tolist(), value) == (NEARLY.tolist(), loss)


@pytest.mark.parametrize(
    "given",
    [
        {"low": {"c": 0.0004}},
        {"groups": {"g": GroupSpec(sources=("b", "c"), weight=0.4)}},
    ],
)
def test_a_small_weight_that_its_limits_need_stays(given: dict[str, Any]) -> None:
    space = space_of(**given)
    found, _ = _clean(lambda rows: np.zeros(len(rows)), space, NEARLY, 1.0)
    assert found.tolist() == NEARLY.tolist()


def refit(slope: float, optimum: float) -> Refit:
    """Return a fit whose loss is a line through zero."""
    return Refit(lambda rows: slope * rows[:, 0], np.array([optimum]))


def test_a_difference_has_the_spread_of_refits_and_the_bias_of_choosing() -> None:
    # At 2 against 1: the gap of each refit is its slope. Twelve slopes, -1.1 to 0.
    slopes = [-0.1 * number for number in range(12)]
    other = np.array([1.0])
    low, high = np.quantile(slopes, (0.16, 0.84))
    half = 1.795885 * 0.5 * (high - low)
    fitted = refit(-0.5, 2.0)
    plain = difference("o", fitted, [refit(slope, 1.0) for slope in slopes], other)
    assert plain.to == "o"
    assert plain.value == pytest.approx(-0.5)
    assert (plain.low, plain.high) == pytest.approx((-0.5 - half, -0.5 + half), abs=1e-5)
    # At 1.5 a refit gains half of what its slope is below that of the fit: .025 on average.
    moved = difference("o", fitted, [refit(slope, 1.5) for slope in slopes], other)
    assert moved.value == pytest.approx(-0.5 + 0.025)
    far = difference("o", fitted, [refit(slope, 60.0) for slope in slopes], other)
    assert far.value == pytest.approx(-0.5 + half, abs=1e-5)
    lost = difference("o", fitted, [refit(slope, 0.0) for slope in slopes], other)
    assert lost.value == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("place", "within"), [(0.01, True), (0.0101, False), (0.016, False), (-0.01, True)]
)
def test_an_optimum_may_lie_a_hundredth_beyond_those_of_resampled_runs(
    place: float, within: bool
) -> None:
    assert inside(np.array([place, -place]), [np.zeros(2)]) is within
    spread = [np.array([-0.5, 0.5]), np.array([0.25, -0.25]), np.array([0.25, -0.25])]
    assert inside(np.array([0.5 + place, -0.5 - place]), spread) is within


def gap(value: float, low: float, high: float, to: str = "o") -> Difference:
    return Difference(to=to, value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("runs", "given", "reasons", "more"),
    [
        (20, {}, 0, None),
        # (0.5 / 0.25)**2 is four times as many runs, and at most ten times are reported.
        (20, {"correlation": 0.25}, 1, 60),
        (20, {"correlation": -0.5}, 1, 180),
        (20, {"baseline": gap(-0.2, -0.4, 0.0)}, 1, 5),
        (10, {"baseline": gap(-0.2, -0.4, 0.0)}, 1, 3),
        (20, {"baseline": gap(-0.2, -0.4, -1e-9)}, 0, None),
        (20, {"baseline": gap(-0.1, -0.3, 0.1)}, 1, 60),
        (20, {"baseline": gap(0.0, -0.2, 0.2)}, 1, 180),
        (20, {"best_run": gap(0.0, -0.2, 0.2)}, 0, None),
        (20, {"best_run": gap(0.01, -0.2, 0.2)}, 1, 180),
        (20, {"within": False}, 1, 20),
        (20, {"within": True}, 0, None),
        (20, {"within": False, "baseline": gap(-0.1, -0.3, 0.1)}, 2, 60),
    ],
)
def test_an_optimum_needs_each_answer_and_names_the_runs_that_would_give_it(
    runs: int, given: dict[str, Any], reasons: int, more: int | None
) -> None:
    correlation = given.pop("correlation", 0.5)
    known = Skill(correlation=correlation, shuffled=0.2, chance=0.01, needed=0.5)
    trust = judge(runs, known, **given)
    assert (len(trust.reasons), trust.enough) == (reasons, reasons == 0)
    assert trust.more_runs == more


def test_a_record_of_trust_has_no_number_that_is_not_finite() -> None:
    known = Skill(correlation=math.nan, shuffled=0.2, chance=1.0, needed=math.inf)
    plain = judge(20, known, gap(0.5, -math.inf, 1.5)).plain()
    assert plain["skill"] == {"correlation": None, "shuffled": 0.2, "chance": 1.0, "needed": None}
    assert plain["best_run"] == {"to": "o", "value": 0.5, "low": None, "high": 1.5}
    assert isinstance(plain["reasons"], list)
    assert (plain["enough"], plain["baseline"]) == (False, None)


@pytest.mark.parametrize(
    ("runs", "given", "count"),
    [(7, {}, 2), (8, {}, 2), (12, {}, 3), (19, {}, 4), (20, {}, 5), (60, {}, 5),
     (60, {"fold_count": 3}, 3)],
)  # fmt: skip
def test_folds_of_a_skill_have_four_runs_each(
    runs: int, given: dict[str, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = folds

    def noted(size: int, number: int, seed: int) -> NDArray[Any]:
        asked.append((size, number, seed))
        return real(size, number, seed)

    monkeypatch.setattr(tests_module, "folds", noted)
    inputs = np.random.default_rng(0).dirichlet(np.ones(2), runs)
    skill(family("linear"), inputs, inputs[:, 0], **given)
    assert asked == [(runs, count, 0)]


def test_constant_losses_show_no_skill() -> None:
    inputs = np.random.default_rng(0).dirichlet(np.ones(2), 16)
    found = skill(family("linear"), inputs, np.full(16, 3.0))
    assert found.correlation == 0.0
    assert found.shuffled == pytest.approx(0.25)
    # Student's t of 20 degrees of freedom exceeds 1.724718 with probability .05.
    assert found.needed == pytest.approx(0.25 * 1.724718, abs=1e-6)
    assert found.chance == pytest.approx(0.5)
    three = skill(family("linear"), inputs, np.full(16, 3.0), compared=3)
    assert three.chance == pytest.approx(0.875)


@pytest.mark.parametrize("runs", [7, 8])
def test_fewer_than_eight_runs_have_no_skill(runs: int) -> None:
    space = space_of()
    coordinates = space.sample(runs, np.random.default_rng(0))
    points = space.points(coordinates)
    seen = Evidence.of(space, points, np.random.default_rng(1).normal(size=runs))
    chosen = Pick(point=points[0], loss=0.0, low=0.0, high=0.0, surrogate="power-law", errors={})
    chosen = Pick(**{**vars(chosen), "surrogate": search_families()[0].name})
    trust = trust_pick(space, seen, chosen, seed=0)
    nothing = Skill(correlation=0.0, shuffled=1.0, chance=1.0, needed=1.0)
    assert (trust.skill == nothing) is (runs == 7)


def test_the_families_of_a_search_are_two_falling_laws_and_a_rough_process() -> None:
    power, line, process = search_families()
    told: Any = (power, line, process)
    assert (told[0].penalty, told[0].signs, told[1].signs) == (0.15, (1.0,), (1.0,))
    found = (told[2].kernel, told[2].powers, told[2].length, told[2].noise)
    assert found == ("matern52", (0.4, 1.0), 1.0, 0.1)


def test_the_rung_with_most_runs_is_that_of_a_skill() -> None:
    space = space_of()
    rungs = np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    points = space.points(space.sample(6, np.random.default_rng(0)))
    ranked = Evidence.of(space, points, np.arange(6.0), rungs=rungs)
    assert _one_rung(ranked, np.arange(6)).tolist() == [0, 3, 5]
    assert _one_rung(ranked, np.array([1, 2, 3, 4])).tolist() == [1, 4]
    assert _one_rung(Evidence.of(space, points, np.arange(6.0)), np.array([1, 3])).tolist() == [
        1,
        3,
    ]


@pytest.mark.parametrize(
    ("count", "asked", "share", "explored"),
    [
        (5, 10, 0.2, 1),
        (4, 0, 0.2, 0),
        (4, 1, 0.2, 1),
        (3, 12, 0.5, 1),
        (3, 13, 0.5, 2),
        (4, 7, 1.0, 4),
    ],
)
def test_exploring_points_keep_their_share_over_batches(
    count: int, asked: int, share: float, explored: int
) -> None:
    assert _explored(count, asked, share) == explored


def test_filling_points_are_the_farthest_from_all_others() -> None:
    space = space_of()
    drawn = np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    taken = np.array([[0.0, 1.0, 0.0], [0.9, 0.0, 0.1]])
    assert _farthest(space, drawn, taken, 0).shape == (0, 3)
    assert _farthest(space, drawn, taken, 2).tolist() == drawn[[3, 0]].tolist()
    assert _farthest(space, drawn, taken[:0], 2).tolist() == drawn[[3, 0]].tolist()


def test_a_batch_without_runs_has_as_many_points_as_asked_for() -> None:
    nothing = Evidence.of(space_of(), [], np.zeros((0, 1)))
    assert len(propose(space_of(), nothing, 2, seed=0)) == 2
