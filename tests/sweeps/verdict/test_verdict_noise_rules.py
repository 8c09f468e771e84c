"""Check the sources of training noise at their limits, with numbers computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sweeps.verdict.smoothness import hidden_factor, off_line
from sweeps.verdict.training_noise import (
    FEW_DF,
    MeansFit,
    RunScores,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
    mean_noise,
    temper,
)
from sweeps.verdict.trajectories import tables_of


def noise(variance: float, df: float, source: Any = "seeds") -> TrainingNoise:
    return TrainingNoise(variance=variance, df=df, source=source)


def fitted(*runs: tuple[int, int, float]) -> MeansFit:
    """Fit runs, each of which is (candidate, seed, score)."""
    candidate, seed, value = zip(*runs, strict=True)
    names = [f"c{k}" for k in range(max(candidate) + 1)]
    return fit_means(RunScores(candidates=names, candidate=candidate, seed=seed, value=value))


@pytest.mark.parametrize(
    ("variance", "df", "known"),
    [(1.0, 1.0, True), (0.0, 0.5, True), (1.0, 0.0, False), (math.inf, 3.0, False)],
)
def test_noise_is_known_if_it_is_finite_and_has_degrees_of_freedom(
    variance: float, df: float, known: bool
) -> None:
    assert noise(variance, df).known == known


def test_unknown_noise_is_infinite_on_no_degrees_of_freedom() -> None:
    assert TrainingNoise.unknown() == noise(math.inf, 0.0, "none")
    assert noise(6.25, 1.0).sd == 2.5
    assert noise(1.0, 1.0).smooth == 1.0


@pytest.mark.parametrize("candidate", [[0, 0], [0, 2], [1, 1], [0, 1, 3]])
def test_a_candidate_without_a_run_is_refused(candidate: list[int]) -> None:
    values = [1.0] * len(candidate)
    with pytest.raises(ValueError, match="every candidate needs at least one scored run"):
        RunScores(candidates="ab", candidate=candidate, seed=candidate, value=values)


def test_seeds_of_one_candidate_are_ascending() -> None:
    runs = RunScores(candidates="ab", candidate=[0, 1, 0, 0], seed=[7, 9, 2, 5], value=[0.0] * 4)
    assert runs.seeds(0) == [2, 5, 7]
    assert runs.seeds(1) == [9]


@pytest.mark.parametrize("missing", [[(0, 2), (3, 0)], [(0, 2), (3, 2)]])
def test_an_unbalanced_design_is_adjusted_for_the_effects_of_its_seeds(
    missing: list[tuple[int, int]],
) -> None:
    """Scores are mean + seed effect without noise: the fit finds both, whichever runs are missing."""
    means, effects = [1.0, 2.0, 4.0, 8.0], [0.5, -1.5, 1.0]
    runs = [
        (c, s, means[c] + effects[s]) for c in range(4) for s in range(3) if (c, s) not in missing
    ]
    fit = fitted(*runs)
    assert fit.blocked
    assert fit.means == pytest.approx(means)
    assert fit.noise.variance == pytest.approx(0.0, abs=1e-20)
    assert fit.noise.df == 4.0
    assert fit.own is not None
    assert fit.own.runs.tolist() == [2.0, 3.0, 3.0, 2.0]
    assert fit.own.df.sum() == pytest.approx(4.0)
    assert fit.own.squares == pytest.approx(np.zeros(4), abs=1e-20)


def test_the_covariance_of_unblocked_means_is_one_over_their_runs() -> None:
    fit = fitted((0, 1, 1.0), (0, 2, 3.0), (1, 3, 5.0), (2, 4, 4.0), (2, 5, 4.0), (2, 6, 7.0))
    assert not fit.blocked
    assert fit.means == pytest.approx([2.0, 5.0, 5.0])
    assert fit.unit.diagonal == pytest.approx([1 / 2, 1.0, 1 / 3])
    assert fit.noise.variance == pytest.approx((2.0 + 6.0) / 3.0)
    assert fit.noise.df == 3.0
    assert fit.own is not None
    assert fit.own.squares == pytest.approx([2.0, 0.0, 6.0])
    assert fit.own.df == pytest.approx([1.0, 0.0, 2.0])


def test_a_single_pair_of_runs_is_a_noise_of_one_degree_of_freedom() -> None:
    fit = fitted((0, 0, 1.0), (1, 0, 3.0), (1, 1, 5.0))
    assert (fit.noise.variance, fit.noise.df, fit.noise.source) == (2.0, 1.0, "seeds")
    assert fit.own is None


@pytest.mark.parametrize(
    ("runs", "adds"),
    [
        # Three runs against two: the two candidates differ in what they show.
        ([(0, 0), (0, 1), (0, 2), (1, 3), (1, 4)], True),
        # As many runs of both: together they are the pool.
        ([(0, 0), (0, 1), (1, 3), (1, 4)], False),
        # One of them alone has replicates.
        ([(0, 0), (0, 1), (0, 2), (1, 3)], False),
        ([(0, 0), (0, 1), (0, 2), (1, 3), (2, 4)], False),
        # Three with the same number of runs.
        ([(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)], True),
        ([(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)], True),
        ([(0, 0), (1, 1), (2, 2)], False),
    ],
)
def test_candidates_show_a_noise_of_their_own_if_it_can_differ_from_the_pool(
    runs: list[tuple[int, int]], adds: bool
) -> None:
    fit = fitted(*((c, s, float(c + s**2)) for c, s in runs))
    assert (fit.own is not None) == adds


def test_two_groups_of_candidates_that_share_no_seed_are_not_blocked() -> None:
    """Four candidates share two seeds, four others two other seeds: nothing links the groups."""
    apart = [(c, 10 * (c // 4) + s, float(c * s)) for c in range(8) for s in range(2)]
    assert not fitted(*apart).blocked
    # One run of a seed of the other group links them.
    assert fitted(*apart, (0, 10, 1.0)).blocked
    # The last candidate alone stands apart.
    lone = [(c, s, float(c * s)) for c in range(4) for s in range(3)] + [(4, 9, 1.0), (4, 8, 2.0)]
    assert not fitted(*lone).blocked


def test_one_seed_for_all_is_no_block() -> None:
    fit = fitted(*((c, 5, float(c + k)) for c in range(3) for k in range(3)))
    assert not fit.blocked
    assert fit.noise.df == 6.0
    assert fit.noise.variance == pytest.approx(1.0)


def test_three_checkpoints_leave_one_degree_of_freedom() -> None:
    """About a line through 0, 2, 0 at equal distances the residual is 4 / sqrt(6)."""
    found = checkpoint_noise([(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 0.0]))])
    assert found.df == 1.0
    assert found.variance == pytest.approx(2.0 * 16.0 / 6.0)
    assert found.source == "checkpoints"


def test_the_last_five_checkpoints_count_by_default() -> None:
    tokens = np.arange(1.0, 9.0)
    jump = np.array([99.0, -99.0, 50.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    found = checkpoint_noise([(tokens, jump)])
    assert found.df == 3.0
    assert found.variance == pytest.approx(0.0, abs=1e-20)
    assert checkpoint_noise([(tokens, jump)], 6).variance > 1.0
    assert checkpoint_noise([(tokens, jump)], 4).df == 2.0


def test_rough_checkpoints_never_lessen_the_noise() -> None:
    """Scores that jump up and down hide nothing: the factor stays one."""
    jumps = np.array([[1.0, -1.0, 1.0, -1.0, 1.0]] * 20)
    found = checkpoint_noise([(np.arange(5.0), own) for own in jumps])
    assert found.smooth == 1.0
    assert hidden_factor([off_line(np.arange(5.0), jumps)]) < 2.0


def test_scores_on_a_line_hide_nothing() -> None:
    assert hidden_factor([off_line(np.arange(3.0), np.zeros((1, 3)))]) == 1.0


@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_positions_of_checkpoints_have_no_unit(unit: float) -> None:
    position, own = off_line(unit * np.array([3.0, 4.0, 7.0]), np.array([[0.0, 1.0, 0.0]]))
    assert position == (0.0, 0.25, 1.0)
    # A line through 0, 1/4 and 1: (3, -4, 1) / sqrt(26) is orthogonal to it.
    assert abs(own[0, 0]) == pytest.approx(4.0 / math.sqrt(26.0))


def test_declared_noise_adds_up_by_its_weights() -> None:
    found = mean_noise({"a": 3.0, "b": 4.0, "c": 9.0}, {"a": 1.0, "b": 0.5}, 6.0)
    assert (found.variance, found.source) == (13.0, "published")
    assert found.df == pytest.approx(6.0 * 169.0 / (81.0 + 16.0))


@pytest.mark.parametrize(
    ("sds", "weights"),
    [({"a": 1.0}, {}), ({"a": 1.0}, {"a": 1.0, "b": 0.0}), ({"a": 0.0}, {"a": 1.0}), ({}, {})],
)
def test_declared_noise_is_unknown_without_weights_figures_or_size(
    sds: dict[str, float], weights: dict[str, float]
) -> None:
    assert mean_noise(sds, weights, 5.0) == TrainingNoise.unknown()


@pytest.mark.parametrize(
    ("seeds", "prior", "found"),
    [
        (noise(4.0, 2.0), noise(8.0, 9.0), noise(6.0, 2.0)),
        (noise(4.0, 6.0), noise(8.0, 9.0), noise(5.0, 6.0)),
        (noise(4.0, FEW_DF - 0.5), noise(8.0, 9.0), noise(4.0 + 8.0 / 9.5, FEW_DF - 0.5)),
        (noise(4.0, FEW_DF), noise(8.0, 9.0), noise(4.0, FEW_DF)),
        (noise(4.0, 2.0), noise(3.0, 9.0), noise(4.0, 2.0)),
        (noise(4.0, 2.0), noise(8.0, 0.0), noise(4.0, 2.0)),
        (noise(4.0, 2.0), TrainingNoise.unknown(), noise(4.0, 2.0)),
        (noise(4.0, 0.0), noise(8.0, 9.0), noise(4.0, 0.0)),
        (TrainingNoise.unknown(), noise(8.0, 9.0), TrainingNoise.unknown()),
    ],
)
def test_a_larger_prior_counts_as_two_more_observations_beside_few_seeds(
    seeds: TrainingNoise, prior: TrainingNoise, found: TrainingNoise
) -> None:
    tempered = temper(seeds, prior)
    assert tempered.variance == pytest.approx(found.variance)
    assert (tempered.df, tempered.source) == (found.df, seeds.source)


def test_an_equal_prior_changes_nothing() -> None:
    seeds = noise(4.0, 2.0)
    assert temper(seeds, noise(4.0, 9.0, "published")) is seeds


def test_checkpoints_come_before_declared_figures_as_the_prior_of_seeds() -> None:
    seeds, late, declared = noise(1.0, 2.0), noise(5.0, 3.0), noise(9.0, 3.0)
    nothing = TrainingNoise.unknown()
    assert combine(seeds, late, declared).variance == 3.0
    assert combine(seeds, nothing, declared).variance == 5.0
    assert combine(seeds, nothing, nothing) is seeds


def test_runs_of_other_tokens_stand_in_another_table() -> None:
    tokens, other = np.array([1.0, 2.0]), np.array([1.0, 3.0])
    scores = [np.array([float(k), 9.0]) for k in range(4)]
    runs = [(tokens, scores[0]), (other, scores[1]), (tokens, scores[2]), (other, scores[3])]
    first, second = tables_of(runs)
    assert (first.tokens.tolist(), first.rows.tolist()) == ([1.0, 2.0], [0, 2])
    assert (second.tokens.tolist(), second.rows.tolist()) == ([1.0, 3.0], [1, 3])
    assert second.scores.tolist() == [[1.0, 9.0], [3.0, 9.0]]


def test_a_missing_score_takes_its_run_out_of_the_table_of_the_rest() -> None:
    tokens = np.array([1.0, 2.0, 3.0])
    whole, holed = np.array([5.0, 6.0, 7.0]), np.array([5.0, math.nan, 7.0])
    first, second = tables_of([(tokens, whole), (tokens, holed)])
    assert (first.scores.tolist(), first.rows.tolist()) == ([[5.0, 6.0, 7.0]], [0])
    assert (second.tokens.tolist(), second.scores.tolist()) == ([1.0, 3.0], [[5.0, 7.0]])
    (table,) = tables_of([(tokens, whole), (tokens, 2.0 * whole)])
    assert (table.rows.tolist(), table.scores[1].tolist()) == ([0, 1], [10.0, 12.0, 14.0])
