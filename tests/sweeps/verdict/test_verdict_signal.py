"""Which tasks carry signal, and whether a ranking transfers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.verdict.noise import TrainingNoise
from sweeps.verdict.signal import Signal, measure_signal
from sweeps.verdict.transfer import transfer

TOKENS = np.arange(1.0, 6.0)
QUIET = TrainingNoise(variance=0.005**2, df=10.0, source="checkpoints")


def measured(values: list[list[float]], **settings: object) -> Signal:
    paths = [(TOKENS[: len(v)], np.array(v)) for v in values]
    noise = settings.pop("noise", QUIET)
    owners = settings.pop("candidate", list(range(len(values))))
    return measure_signal("task", paths, owners, noise, **settings)  # type: ignore[arg-type]


RISING = [0.30, 0.32, 0.35, 0.37, 0.40]


def test_a_rising_quiet_task_above_chance_votes() -> None:
    found = measured([RISING, RISING], chance=0.25)
    assert found.votes
    assert found.monotonicity == pytest.approx(1.0)
    assert found.signal_to_noise == pytest.approx(80.0)
    assert found.above_chance == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("values", "settings", "fault"),
    [
        ([0.4, 0.3, 0.4, 0.3, 0.31], {}, "not monotone in tokens"),
        ([0.4] * 5, {}, "not monotone in tokens"),
        (RISING, {"noise": TrainingNoise(variance=0.03**2, df=9, source="checkpoints")}, "noisy"),
        (RISING, {"chance": 0.39}, "not above chance"),
    ],
)
def test_each_fault_costs_the_vote(
    values: list[float], settings: dict[str, object], fault: str
) -> None:
    found = measured([values, values], **settings)
    assert fault in found.faults
    assert not found.votes


def test_noise_known_from_seeds_alone_only_warns() -> None:
    found = measured([RISING], noise=TrainingNoise(variance=0.03**2, df=4, source="seeds"))
    assert found.votes
    assert found.warnings == ("noisy",)


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


def test_lower_is_better_is_monotone_when_it_falls() -> None:
    falling = [3.0, 2.8, 2.6, 2.5, 2.4]
    assert measured([falling], higher_is_better=False).monotonicity == pytest.approx(1.0)
    assert not measured([falling], higher_is_better=True).votes


def test_what_was_not_measured_costs_no_vote() -> None:
    found = measured([[0.3, 0.4]], noise=TrainingNoise.unknown())
    assert found.votes
    assert (found.monotonicity, found.signal_to_noise, found.above_chance) == (None, None, None)


def test_missing_checkpoints_are_skipped_not_zero() -> None:
    holed = [0.30, math.nan, 0.35, 0.37, 0.40]
    assert measured([holed]).monotonicity == pytest.approx(1.0)


def test_an_unstable_ranking_warns_and_keeps_the_vote() -> None:
    swap = [
        [0.3, 0.31, 0.36, 0.37, 0.44],
        [0.3, 0.33, 0.34, 0.41, 0.42],
        [0.3, 0.32, 0.35, 0.39, 0.43],
    ]
    found = measured(swap)
    assert found.warnings == ("unstable ranking",)
    assert found.votes
    steady = measured([RISING, [v + 0.1 for v in RISING], [v + 0.2 for v in RISING]])
    assert steady.stability == pytest.approx(1.0)


def test_transfer_of_the_same_ranking_is_whole() -> None:
    small = {f"m{k}": float(k) for k in range(8)}
    large = {name: value**3 for name, value in small.items()}
    found = transfer(small, large, small="1M", large="15M")
    assert (found.rank_correlation, found.decision_accuracy, found.pairs) == (1.0, 1.0, 28)
    assert found.decision_interval == (1.0, 1.0)


def test_transfer_counts_only_what_both_arms_ran() -> None:
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
