"""``ablate diff A B``: what differs between two runs or studies, and what of it is noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.errors import DataError
from sweeps.verdict.side_by_side import (
    Measured,
    Side,
    changed_metrics,
    changed_settings,
    read_side,
)
from tests.conftest import Ablate

RECORDED = Path(__file__).parents[2] / "analysis/fixtures/runs"
FIRST, SECOND = "demo_ratio/trial-0003-0", "demo_ratio/trial-0004-0"


def side(**metrics: Measured) -> Side:
    config = {"model": {"hidden_size": 64}, "mixture": {"weights": {"a": 1.0}}, "seed": 0}
    return Side(name="x", kind="run", what="", config=config, weights={"a": 1.0}, metrics=metrics)


@pytest.mark.parametrize(
    ("second", "error", "higher", "reading"),
    [
        (0.5, 0.1, True, "within noise"),
        (0.9, 0.1, True, "better"),
        (0.9, 0.1, False, "worse"),
        (0.1, 0.1, False, "better"),
        (0.1, 0.1, True, "worse"),
        (0.9, None, True, "noise unknown"),
    ],
)
def test_a_difference_is_read_against_its_noise(
    second: float, error: float | None, higher: bool, reading: str
) -> None:
    old = side(score=Measured(value=0.45, error=error, higher_is_better=higher))
    new = side(score=Measured(value=second, error=error, higher_is_better=higher))
    (change,) = changed_metrics(old, new)
    assert change.reading == reading
    assert change.difference == pytest.approx(second - 0.45)
    if error is not None:
        assert change.noise == pytest.approx(1.96 * error * 2**0.5)


def test_two_runs_of_a_study_differ_in_their_mixture_alone() -> None:
    old, new = (read_side(RECORDED, name) for name in (FIRST, SECOND))
    assert changed_settings(old, new) == []
    assert old.weights != new.weights
    assert next(iter(old.metrics)) == "score"
    assert old.metrics["score"].error is not None


def test_settings_that_differ_are_named_with_both_values() -> None:
    old, new = side(), side()
    changed = {**new.config, "model": {"hidden_size": 128}, "seed": 3}
    other = Side(name="y", kind="run", what="", config=changed, weights={}, metrics={})
    assert changed_settings(old, other) == [("model.hidden_size", 64, 128)]


def test_a_study_stands_for_the_pick_of_its_verdict() -> None:
    found = read_side(RECORDED, "demo_ratio")
    assert found.kind == "study"
    assert found.what.startswith("tie: ")
    assert [c.difference for c in changed_metrics(found, found)] == [0.0] * len(found.metrics)


def test_what_is_not_there_gets_the_nearest_name() -> None:
    with pytest.raises(DataError, match="did you mean"):
        read_side(RECORDED, "demo_rato")


def test_the_command_takes_two_words_without_keys(ablate: Ablate) -> None:
    answer = ablate("diff", FIRST, SECOND, f"runs_dir={RECORDED}")
    assert answer.code == 0, answer.err
    assert "no setting differs" in answer.out
    assert "within noise" in answer.out
    named = ablate("diff", f"a={FIRST}", f"b={SECOND}", f"runs_dir={RECORDED}")
    assert named.out == answer.out
    assert "b: missing" in ablate("diff", FIRST, f"runs_dir={RECORDED}").err
