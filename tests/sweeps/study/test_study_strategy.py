"""The phases of a search as functions of its trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ablations.errors import ConfigError
from sweeps.search.space import SearchSpace
from sweeps.study.confirm import Recommendation, finalists, undominated
from sweeps.study.samplers import optuna_proposer, random_proposer
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import BudgetSpec, ConfirmSpec, ConstraintSpec, ObjectiveSpec, StrategySpec
from sweeps.study.strategy import History, design_size
from sweeps.study.surrogate_proposer import evidence_of
from sweeps.study.trial import Phase, Trial, TrialSpec
from tests.sweeps.study.builders import (
    SPACE,
    all_runs,
    finish_as,
    outcome,
    spec,
    strategy,
    study,
    trial,
)

OBJECTIVE = {"score": ObjectiveSpec(direction="minimize")}


def history(*trials: Trial, **changes: object) -> History:
    values = {"trials": trials, "objectives": OBJECTIVE, "baseline": "uniform", **changes}
    return History(**values)  # type: ignore[arg-type]


def test_baselines_then_design_then_proposals_then_seeds(tmp_path: Path) -> None:
    search = spec()
    state = study(tmp_path, search)
    scheduler = SearchScheduler(strategy(search), None)
    runs = all_runs(state, scheduler.next_runs)
    phases: list[Phase] = [state.trial(n).spec.phase for n in range(10)]
    assert phases == ["baseline"] * 2 + ["design"] * 3 + ["search"] * 5
    assert [state.trial(n).spec.name for n in (0, 1)] == ["uniform", "half"]
    assert len(state.trials) == 10
    confirmed = {run.number for run in runs if run.seed}
    assert 2 <= len(confirmed) <= 3
    assert 0 in confirmed
    assert all(set(state.trial(n).outcomes) == {0, 1, 2} for n in confirmed)


def test_a_study_reopened_after_every_run_has_the_same_trials(tmp_path: Path) -> None:
    search = spec()
    whole = study(tmp_path / "whole", search)
    all_runs(whole, SearchScheduler(strategy(search), None).next_runs, free_workers=1)
    while True:
        state = study(tmp_path / "cut", search)
        runs = SearchScheduler(strategy(search), None).next_runs(state, set(), 1)
        if not runs:
            break
        finish_as(state, runs[0])
    assert [t.spec for t in state.trials] == [t.spec for t in whole.trials]
    assert [t.outcomes for t in state.trials] == [t.outcomes for t in whole.trials]


@pytest.mark.parametrize(
    ("wanted", "affordable", "expected"),
    [(None, None, 20), (None, 12, 7), (None, 100, 20), (4, 12, 4), (30, 12, 10), (0, 12, 0)],
)
def test_the_design_is_as_specified_or_within_the_budget(
    wanted: int | None, affordable: int | None, expected: int
) -> None:
    space = SearchSpace.build(SPACE)
    assert design_size(StrategySpec(design_trials=wanted), space, 2, affordable) == expected


def test_a_named_mixture_of_foreign_sources_is_refused() -> None:
    named = StrategySpec(baselines=(), mixtures={"x": {"wikki": 1.0}}, baseline="x")
    with pytest.raises(ConfigError, match="wikki"):
        strategy(spec(strategy=named))


def test_natural_weights_need_token_counts() -> None:
    asked = StrategySpec(baselines=("natural",), baseline="natural", proposer="random")
    with pytest.raises(ConfigError, match="token counts are missing"):
        strategy(spec(strategy=asked))
    planned = strategy(spec(strategy=asked), tokens={"web": 6.0, "math": 3.0, "code": 1.0})
    weights = planned.baselines["natural"]["mixture.weights"]
    assert weights == pytest.approx({"web": 0.6, "math": 0.3, "code": 0.1})


@pytest.mark.parametrize("kind", ["tpe", "cmaes", "qmc"])
def test_optuna_proposes_feasible_points_from_the_trials_alone(kind: str) -> None:
    space = SearchSpace.build(SPACE)
    points = space.points(space.from_unit(random_box(space, 8)))
    seen = history(*(trial(i, 1.0 + i, point=point) for i, point in enumerate(points)))
    first = optuna_proposer(space, kind, 0)(seen, 3)  # type: ignore[arg-type]
    again = optuna_proposer(space, kind, 0)(seen, 3)  # type: ignore[arg-type]
    assert first == again
    assert all(space.contains(point) for point in first)
    longer = history(*seen.trials, trial(8, 2.0, point=points[0]))
    assert optuna_proposer(space, kind, 0)(longer, 3) != first  # type: ignore[arg-type]


def random_box(space: SearchSpace, n: int):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.random.default_rng(0).random((n, len(space.unit_names)))


def test_random_proposals_differ_from_call_to_call() -> None:
    propose = random_proposer(SearchSpace.build(SPACE), 0)
    assert propose(history(), 2) != propose(history(trial(0)), 2)


def test_finalists_are_the_best_and_the_baseline() -> None:
    ended = [trial(i, score) for i, score in enumerate([3.0, 1.0, 2.0, 4.0])]
    base = trial(4, 5.0, phase="baseline", name="uniform")
    chosen = finalists(history(*ended, base), ConfirmSpec(finalists=2))
    assert [t.number for t in chosen] == [1, 2, 4]


def test_what_breaks_a_constraint_is_no_finalist() -> None:
    limits = {"cap": ConstraintSpec(metrics=("score",), bound=2.5)}
    ended = [trial(i, score) for i, score in enumerate([3.0, 1.0, 2.0])]
    chosen = finalists(history(*ended, constraints=limits), ConfirmSpec(finalists=3))
    assert [t.number for t in chosen] == [1, 2]


def test_the_pareto_front_comes_first() -> None:
    import numpy as np

    losses = np.array([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [4.0, 1.0]])
    assert undominated(losses).tolist() == [True, True, False, True]
    both = {
        "a": ObjectiveSpec(metrics=("a/x",), direction="minimize"),
        "b": ObjectiveSpec(metrics=("b/x",), direction="minimize"),
    }
    ended = [
        Trial(
            spec=TrialSpec(number=i, phase="design"),
            outcomes={0: outcome(metrics={"a/x": row[0], "b/x": row[1]})},
        )
        for i, row in enumerate(losses.tolist())
    ]
    chosen = finalists(history(*ended, objectives=both), ConfirmSpec(finalists=3))
    assert {t.number for t in chosen} == {0, 1, 3}


@pytest.mark.parametrize("limit", ["tokens", "flops", "gpu_hours"])
def test_a_budget_in_anything_ends_exploring_and_leaves_seeds(tmp_path: Path, limit: str) -> None:
    prices = {"tokens": 100.0, "flops": 10.0, "gpu_hours": 1.0 / 3600}
    budget = BudgetSpec(**{limit: 12 * prices[limit]}, confirm_share=0.25)  # type: ignore[arg-type]
    search = replace(spec(), budget=budget)
    state = study(tmp_path, search)
    all_runs(state, SearchScheduler(strategy(search), None).next_runs, free_workers=2)
    ledger = state.ledger()
    assert ledger.explore.runs == 9
    assert ledger.confirm.runs == 3


RULE = {
    "direction": "minimize",
    "terms": {"text": {"metrics": "*/bpb", "weight": 3}, "skill": {"metrics": "*/acc"}},
}


def rated(number: int, web: float, math: float, acc: float) -> Trial:
    """Return a trial whose score follows from its metrics by RULE."""
    score = (3 * (web + math) / 2 - acc) / 4
    metrics = {"web/bpb": web, "math/bpb": math, "math/acc": acc}
    point = {"mixture.weights": {"web": 0.5, "math": 0.5, "code": 0.0}}
    spec = TrialSpec(number=number, phase="design", point=point)
    return Trial(spec=spec, outcomes={0: outcome(score, metrics=metrics)})


def test_the_surrogate_sees_the_metrics_that_a_score_is_made_of() -> None:
    space = SearchSpace.build(SPACE)
    seen = history(rated(0, 2.0, 3.0, 0.25), rated(1, 2.5, 2.0, 0.5), trial_running(2))
    evidence = evidence_of(space, seen, RULE)
    assert evidence.values.shape == (2, 3)
    assert evidence.losses[:, 0] == pytest.approx([t.outcomes[0].score for t in seen.done])
    assert len(evidence.pending) == 1


def test_a_rule_that_does_not_reproduce_the_scores_is_not_used() -> None:
    space = SearchSpace.build(SPACE)
    evidence = evidence_of(space, history(trial(0, 1.5), trial(1, 2.5)), RULE)
    assert evidence.values.tolist() == [[1.5], [2.5]]


def test_maximised_objectives_change_sign() -> None:
    space = SearchSpace.build(SPACE)
    upward = {"score": ObjectiveSpec(direction="maximize")}
    evidence = evidence_of(space, history(trial(0, 1.5), objectives=upward), {})
    assert evidence.losses.tolist() == [[-1.5]]


@pytest.mark.parametrize(
    ("constraint", "kept"),
    [
        (ConstraintSpec(metrics=("score",), bound=2.0), [True, False]),
        (ConstraintSpec(metrics=("score",), margin=0.2), [True, False]),
        (ConstraintSpec(metrics=("score",), bound=2.0, direction="maximize"), [False, True]),
    ],
)
def test_constraints_reach_the_surrogate_as_limits(
    constraint: ConstraintSpec, kept: list[bool]
) -> None:
    space = SearchSpace.build(SPACE)
    base = trial(0, 1.5, phase="baseline", name="uniform")
    seen = history(base, trial(1, 2.5), constraints={"x": constraint})
    evidence = evidence_of(space, seen, {})
    within = [evidence.values @ limit.weights <= limit.bound for limit in evidence.limits]
    assert [row.tolist() for row in within] == [kept]


def trial_running(number: int) -> Trial:
    point = {"mixture.weights": {"web": 1.0, "math": 0.0, "code": 0.0}}
    return Trial(spec=TrialSpec(number=number, phase="search", point=point))


def test_the_surrogate_s_pick_is_confirmed_with_every_seed(tmp_path: Path) -> None:
    search = spec(confirm=ConfirmSpec(finalists=1, pick=True, seeds=(0, 1)))
    state = study(tmp_path, search)
    picked = Recommendation(point={"mixture.weights": {"web": 0.9, "math": 0.1, "code": 0.0}})
    all_runs(state, SearchScheduler(strategy(search), lambda _: picked).next_runs)
    last = state.trials[-1]
    assert (last.spec.phase, last.spec.name, sorted(last.outcomes)) == (
        "confirm",
        "pick-10",
        [0, 1],
    )
    again = study(tmp_path, search)
    assert SearchScheduler(strategy(search), lambda _: picked).next_runs(again, set(), 4) == []


def test_a_pick_that_was_run_already_is_confirmed_there(tmp_path: Path) -> None:
    search = spec(confirm=ConfirmSpec(finalists=1, pick=True, seeds=(0, 1)))
    state = study(tmp_path, search)
    planned = strategy(search)
    picked = Recommendation(point=planned.design[0])
    all_runs(state, SearchScheduler(planned, lambda _: picked).next_runs)
    assert len(state.trials) == 10
    assert sorted(state.trial(2).outcomes) == [0, 1]


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_the_pick_never_takes_the_place_of_a_finalist(tmp_path: Path, rank: int) -> None:
    search = spec(confirm=ConfirmSpec(finalists=2, pick=True, seeds=(0, 1)))
    state = study(tmp_path, search)
    all_runs(state, SearchScheduler(strategy(search), None).next_runs)
    ranked = finalists(state.history(), ConfirmSpec(finalists=10))
    baseline = state.history().baseline_trial
    others = [trial.number for trial in ranked if trial is not baseline]
    chosen = finalists(state.history(), search.confirm, picked=others[rank])
    expected = {*[number for number in others if number != others[rank]][:2], others[rank]}
    assert {trial.number for trial in chosen if trial is not baseline} == expected
    assert baseline in chosen
