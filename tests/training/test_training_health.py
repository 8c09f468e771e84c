from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ablations.training.loss_monitor import Diverged, Health, Spike
from ablations.training.specs import TrainingSpec

RULES = TrainingSpec(
    sequence_length=16,
    batch_size=8,
    peak_lr=1e-3,
    diverged_ratio=1.25,
    diverged_patience_steps=3,
    spike_window_steps=32,
)
VOCABULARY = 1000
GUESS = math.log(VOCABULARY)


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)]
)
def test_a_number_that_is_not_finite_diverges_at_once(loss: float, norm: float) -> None:
    assert isinstance(Health(RULES, VOCABULARY).judge(loss, norm), Diverged)


def test_a_loss_worse_than_guessing_diverges_only_when_it_stays() -> None:
    health = Health(RULES, VOCABULARY)
    bad = 1.3 * GUESS
    verdicts = [health.judge(loss, 1.0) for loss in (bad, bad, GUESS, bad, bad, bad)]
    assert [isinstance(verdict, Diverged) for verdict in verdicts] == [False] * 5 + [True]


def test_the_loss_of_a_guess_is_accepted() -> None:
    health = Health(RULES, VOCABULARY)
    assert [health.judge(GUESS, 1.0) for _ in range(100)] == [None] * 100


def test_a_spike_is_noted_and_does_not_hide_the_next() -> None:
    health = Health(RULES, VOCABULARY)
    for step in range(40):
        assert health.judge(3.0 + 0.05 * (step % 3), 1.0) is None
    assert isinstance(health.judge(5.0, 1.0), Spike)
    assert health.judge(3.0, 1.0) is None
    assert isinstance(health.judge(5.0, 1.0), Spike)


def test_a_loss_that_stays_up_becomes_the_new_normal() -> None:
    health = Health(RULES, VOCABULARY)
    for _ in range(40):
        health.judge(3.0, 1.0)
    verdicts = [health.judge(5.0, 1.0) for _ in range(80)]
    assert isinstance(verdicts[0], Spike)
    assert verdicts[-1] is None


def test_recalled_losses_count_as_judged_ones() -> None:
    losses = [3.0 + 0.1 * (step % 4) for step in range(30)]
    judged, recalled = Health(RULES, VOCABULARY), Health(RULES, VOCABULARY)
    for loss in losses:
        judged.judge(loss, 1.0)
    recalled.recall(losses)
    assert judged.judge(4.5, 1.0) == recalled.judge(4.5, 1.0)


@pytest.mark.parametrize(("before", "spike"), [(15, False), (16, True)])
def test_a_spike_is_told_from_sixteen_losses_on(before: int, spike: bool) -> None:
    health = Health(RULES, VOCABULARY)
    for step in range(before):
        health.judge(3.0 + 0.05 * (step % 3), 1.0)
    assert isinstance(health.judge(5.0, 1.0), Spike) == spike


@pytest.mark.parametrize(("window", "needed"), [(4, 4), (16, 16), (40, 16)])
def test_a_short_window_is_used_once_it_is_full(window: int, needed: int) -> None:
    for before, spike in ((needed - 1, False), (needed, True)):
        health = Health(replace(RULES, spike_window_steps=window), VOCABULARY)
        for _ in range(before):
            assert health.judge(3.0, 1.0) is None
        assert isinstance(health.judge(5.0, 1.0), Spike) == spike


@pytest.mark.parametrize(("loss", "told"), [(3.59, None), (3.62, "loss 3.62, 6.2 deviations up")])
def test_a_spike_is_told_by_the_deviation_of_the_window(loss: float, told: str | None) -> None:
    health = Health(replace(RULES, spike_sigmas=6.0), VOCABULARY)
    for step in range(32):
        health.judge(2.9 if step % 2 else 3.1, 1.0)  # mean 3, deviation 0.1
    assert health.judge(loss, 1.0) == told


def test_a_flat_window_has_the_least_deviation_and_a_loss_at_the_threshold_is_none() -> None:
    rules = replace(RULES, spike_sigmas=6.0)
    at = 3.0 + 6.0 * 0.01
    for loss, spike in ((at, False), (math.nextafter(at, 9.0), True), (2.0, False)):
        health = Health(rules, VOCABULARY)
        for _ in range(32):
            health.judge(3.0, 1.0)
        assert isinstance(health.judge(loss, 1.0), Spike) == spike


def test_a_loss_at_the_limit_is_not_above_it_and_patience_counts_steps_in_a_row() -> None:
    limit = 1.25 * GUESS
    at, above = Health(RULES, VOCABULARY), Health(RULES, VOCABULARY)
    assert not any(isinstance(at.judge(limit, 1.0), Diverged) for _ in range(9))
    over = math.nextafter(limit, 99.0)
    assert [isinstance(above.judge(over, 1.0), Diverged) for _ in range(4)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_divergence_tells_its_numbers() -> None:
    health = Health(RULES, VOCABULARY)
    told = [health.judge(9.0, 1.0) for _ in range(3)][-1]
    assert told == "loss 9, above 8.635 for 3 steps in a row"
    assert health.judge(2.0, math.inf) == "loss 2, gradient norm inf"
