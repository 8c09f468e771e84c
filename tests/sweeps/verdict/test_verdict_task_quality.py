"""Task quality, and transfer of a ranking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.verdict.numbers import rank_correlations
from sweeps.verdict.observations import Candidate, Observations, ObservedRun, TaskData
from sweeps.verdict.proxies import proxy_of
from sweeps.verdict.task_quality import TaskFit, TaskQuality, measure_quality
from sweeps.verdict.training_noise import TrainingNoise, fit_means
from sweeps.verdict.transfer import transfer

TOKENS = np.arange(1.0, 6.0)
QUIET = TrainingNoise(variance=0.005**2, df=10.0, source="checkpoints")


def measured(
    values: list[list[float]],
    *,
    noise: TrainingNoise = QUIET,
    higher_is_better: bool = True,
    chance: float | None = None,
) -> TaskQuality:
    """Measure one metric, with one run per candidate."""
    finals = [next((x for x in reversed(v) if not math.isnan(x)), 0.0) for v in values]
    names = [f"c{k}" for k in range(len(values))]
    task = TaskData(
        task="task",
        metric="metric",
        higher_is_better=higher_is_better,
        chance=chance,
        values=np.array(finals),
        trajectories=tuple((TOKENS[: len(v)], np.array(v)) for v in values),
    )
    observed = Observations(
        study="study",
        direction="maximize",
        score="",
        rule={},
        candidates=tuple(Candidate(name=name, trial=name) for name in names),
        runs=tuple(
            ObservedRun(name=name, candidate=k, seed=k, score=0.0) for k, name in enumerate(names)
        ),
        tasks=(task,),
    )
    fit = fit_means(observed.run_scores(task.sign * task.values))
    return measure_quality(TaskFit(observed=observed, task=task, fit=fit, noise=noise))


RISING = [0.30, 0.32, 0.35, 0.37, 0.40]
HIGHER = [value + 0.05 for value in RISING]


def test_a_rising_metric_that_separates_mixtures_gives_no_warning() -> None:
    found = measured([RISING, HIGHER], chance=0.25)
    assert found.warnings == ()
    assert found.monotonicity == pytest.approx(1.0)
    # Two means 0.05 apart have variance 0.00125, 50 noise variances; one of them is noise.
    assert found.variance_ratio == pytest.approx(49.0)
    assert found.above_chance == pytest.approx(35.0)


@pytest.mark.parametrize(
    ("values", "settings", "warning"),
    [
        ([0.4, 0.3, 0.4, 0.3, 0.31], {}, "not monotone in tokens"),
        ([0.4] * 5, {}, "not monotone in tokens"),
        (RISING, {}, "mixtures differ by less than the noise of a run"),
        (RISING, {"chance": 0.39}, "not above chance"),
    ],
)
def test_each_criterion_that_fails_is_a_warning(
    values: list[float], settings: dict[str, float], warning: str
) -> None:
    assert warning in measured([values, values], **settings).warnings  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0.1, 1.0, 1000.0])
def test_the_level_of_a_metric_over_its_noise_is_not_quality(level: float) -> None:
    """Bits per byte are far above zero even if they do not separate mixtures."""
    paths = [[level + 2.0 - 0.1 * i for i in range(5)] for _ in range(2)]
    found = measured(paths, higher_is_better=False)
    assert found.variance_ratio == 0.0
    apart = measured([paths[0], [v - 0.05 for v in paths[1]]], higher_is_better=False)
    assert apart.variance_ratio == pytest.approx(49.0, rel=1e-6)


def test_bits_per_byte_need_be_neither_monotone_nor_above_chance() -> None:
    rising = measured([RISING, HIGHER], higher_is_better=False)
    assert rising.monotonicity == pytest.approx(-1.0)
    assert rising.warnings == ()


VALUE = st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan])


@given(st.lists(st.lists(VALUE, min_size=3, max_size=5), min_size=1, max_size=6))
def test_monotonicity_is_the_mean_rank_correlation_of_the_runs(runs: list[list[float]]) -> None:
    wanted = []
    for run in runs:
        known = [(t, v) for t, v in zip(TOKENS.tolist(), run, strict=False) if not math.isnan(v)]
        if len(known) >= 3:
            flat = len({v for _, v in known}) == 1
            wanted.append(0.0 if flat else stats.spearmanr(*zip(*known, strict=True)).statistic)
    found = measured(runs).monotonicity
    assert found == (pytest.approx(np.mean(wanted), abs=1e-12) if wanted else None)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=6))
def test_the_rank_correlation_of_a_row_is_scipys_and_unknown_if_a_side_is_constant(
    points: list[tuple[int, int]],
) -> None:
    x, y = np.array(points, dtype=np.float64).T
    found = float(rank_correlations(x[None], y[None])[0])
    if np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(x, y).statistic)


def test_lower_is_better_is_monotone_when_it_falls() -> None:
    falling = [3.0, 2.8, 2.6, 2.5, 2.4]
    assert measured([falling], higher_is_better=False).monotonicity == pytest.approx(1.0)


def test_chance_is_beaten_from_below_where_lower_is_better() -> None:
    falling = [3.0, 2.8, 2.6, 2.5, 2.4]
    found = measured([falling], higher_is_better=False, chance=2.5)
    assert found.above_chance == pytest.approx(20.0)


def test_what_was_not_measured_gives_no_warning() -> None:
    found = measured([[0.3, 0.4]], noise=TrainingNoise.unknown())
    assert found.warnings == ()
    assert (found.monotonicity, found.variance_ratio, found.above_chance) == (None, None, None)


def test_missing_checkpoints_are_skipped_not_zero() -> None:
    holed = [0.30, math.nan, 0.35, 0.37, 0.40]
    assert measured([holed]).monotonicity == pytest.approx(1.0)


def test_an_unstable_ranking_warns() -> None:
    swap = [
        [0.3, 0.31, 0.36, 0.37, 0.44],
        [0.3, 0.33, 0.34, 0.41, 0.42],
        [0.3, 0.32, 0.35, 0.39, 0.43],
    ]
    assert measured(swap).warnings == ("unstable ranking",)
    steady = measured([RISING, [v + 0.1 for v in RISING], [v + 0.2 for v in RISING]])
    assert steady.stability == pytest.approx(1.0)


def test_transfer_of_the_same_ranking_is_whole() -> None:
    small = {f"m{k}": float(k) for k in range(8)}
    large = {name: value**3 for name, value in small.items()}
    found = transfer(small, large, small="1M", large="15M")
    assert (found.rank_correlation, found.decision_accuracy, found.pairs) == (1.0, 1.0, 28)
    assert found.decision_interval == (1.0, 1.0)


def test_transfer_counts_only_mixtures_that_both_proxies_ran() -> None:
    found = transfer({"a": 1.0, "b": 2.0, "x": 9.0}, {"a": 2.0, "b": 1.0}, small="s", large="l")
    assert (found.mixtures, found.pairs, found.decision_accuracy) == (2, 1, 0.0)
    assert found.rank_correlation is None
    assert found.rank_interval is None


def test_transfer_interval_covers_the_middle() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(30)
    small = dict(enumerate(truth + rng.standard_normal(30)))
    large = dict(enumerate(truth + 0.3 * rng.standard_normal(30)))
    found = transfer(
        {str(k): v for k, v in small.items()},
        {str(k): v for k, v in large.items()},
        small="s",
        large="l",
    )
    assert found.rank_interval is not None
    assert found.rank_correlation is not None
    low, high = found.rank_interval
    assert -1.0 < low < found.rank_correlation < high < 1.0


@pytest.mark.parametrize(("mixtures", "known"), [(4, False), (5, True)])
def test_an_interval_over_mixtures_needs_five(mixtures: int, known: bool) -> None:
    scores = {str(number): float(number) for number in range(mixtures)}
    found = transfer(scores, scores, small="s", large="l")
    assert found.rank_correlation == 1.0
    assert (found.rank_interval is not None) == known
    assert (found.decision_interval is not None) == known


def test_the_cost_of_a_proxy_grows_with_its_size_and_its_tokens() -> None:
    def cost(width: int = 64, depth: int = 2, tokens: float = 1e6) -> float:
        model = {"hidden_size": width, "num_hidden_layers": depth}
        return proxy_of({"model": model, "schedule": {"total_tokens": tokens}}).cost

    base = cost()
    assert [cost(width=128) / base, cost(depth=6) / base, cost(tokens=5e6) / base] == [4, 3, 5]
