from __future__ import annotations

import math

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
