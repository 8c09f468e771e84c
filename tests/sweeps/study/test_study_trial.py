"""Values computed from a trial's outcomes."""

from __future__ import annotations

import pytest

from sweeps.study.specs import ConstraintSpec, ObjectiveSpec
from sweeps.study.trial import Trial, TrialSpec, feasibility, measure, trial_name
from tests.sweeps.study.builders import outcome, trial


def test_names_contain_numbers() -> None:
    assert [trial_name(n) for n in (0, 7, 12345)] == ["trial-0000", "trial-0007", "trial-12345"]


def test_a_specification_survives_json() -> None:
    spec = TrialSpec(
        number=3,
        phase="search",
        name="60/40",
        point={"mixture.weights": {"web": 0.6, "math": 0.4}, "peak_lr": 0.1},
        overrides=("a=1",),
        seeds=(0, 2),
    )
    assert TrialSpec.from_plain(spec.plain()) == spec


def test_a_trial_ends_with_its_last_seed() -> None:
    spec = TrialSpec(number=0, phase="design", seeds=(0, 1))
    assert Trial(spec=spec, outcomes={0: outcome()}).state == "running"
    assert Trial(spec=spec, outcomes={0: outcome(), 1: outcome(seed=1)}).state == "done"


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_one_bad_seed_decides(state: str) -> None:
    bad = outcome(None, seed=1, status=state, reason="NaN at step 3")
    ended = Trial(
        spec=TrialSpec(number=0, phase="design", seeds=(0, 1)), outcomes={0: outcome(), 1: bad}
    )
    assert (ended.state, ended.reason) == (state, "NaN at step 3")


def test_the_value_is_the_mean_over_replicates_that_are_done() -> None:
    ended = Trial(
        spec=TrialSpec(number=0, phase="design"),
        outcomes={
            0: outcome(1.0),
            1: outcome(2.0, seed=1),
            2: outcome(None, seed=2, status="failed"),
        },
    )
    assert ended.value(ObjectiveSpec()) == 1.5


def test_patterns_mean_over_what_they_match() -> None:
    run = outcome(9.0, metrics={"a/bpb": 1.0, "b/bpb": 3.0, "b/acc": 0.5, "c/bpb": None})
    assert measure(run, ["[ab]/bpb"]) == 2.0
    assert measure(run, ["score", "b/acc"]) == 4.75


@pytest.mark.parametrize("metrics", [["*/bpb"], ["d/bpb"], ["a/bpb", "d/bpb"]])
def test_a_missing_metric_is_missing_never_zero(metrics: list[str]) -> None:
    assert measure(outcome(metrics={"a/bpb": 1.0, "c/bpb": None}), metrics) is None


@pytest.mark.parametrize(
    ("constraint", "beyond"),
    [
        (ConstraintSpec(metrics=("score",), bound=1.5), -0.5),
        (ConstraintSpec(metrics=("score",), bound=1.5, direction="maximize"), 0.5),
        (ConstraintSpec(metrics=("score",), margin=0.25), 0.25),
    ],
)
def test_constraints_give_the_distance_beyond(constraint: ConstraintSpec, beyond: float) -> None:
    values = feasibility(trial(1, 1.0), {"x": constraint}, trial(0, 0.5))
    assert values == {"x": pytest.approx(beyond)}


def test_a_margin_waits_for_the_baseline() -> None:
    constraint = ConstraintSpec(metrics=("score",), margin=0.25)
    assert feasibility(trial(1), {"x": constraint}, None) is None
