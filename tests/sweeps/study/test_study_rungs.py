"""A search whose explored runs pause: order of the steps, guard, kills, ledger, evidence, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.files import write_json
from sweeps.search.proposals.rung_policy import RungPlan
from sweeps.search.space import SearchSpace
from sweeps.study.confirm import Recommendation
from sweeps.study.job_overrides import job_overrides
from sweeps.study.proposers import proposals_of
from sweeps.study.rung_scheduler import RungScheduler
from sweeps.study.rungs import Rung, budget_plan, read_rung, settle_rung
from sweeps.study.specs import (
    BudgetSpec,
    ConfirmSpec,
    ConstraintSpec,
    FidelitySpec,
    ObjectiveSpec,
    SearchSpec,
    StrategySpec,
    TaskQualitySpec,
)
from sweeps.study.strategy import History
from sweeps.study.study_state import Run, StudyState
from sweeps.study.surrogate_proposer import evidence_of
from tests.sweeps.study.builders import spec, strategy

RUNG = Rung(share=0.3, tokens=300.0)
PLAN = RungPlan(low_runs=14, design=10, pairs=8, finalists=2, batch=2)
RULE = {
    "direction": "minimize",
    "terms": {
        name: {"metrics": f"{name}/bpb", "weight": 0.5, "direction": "minimize"}
        for name in ("web", "math")
    },
}
Metrics = Callable[[Mapping[str, float], bool], dict[str, float]]


def agreeing(weights: Mapping[str, float], low: bool) -> dict[str, float]:
    """Return two losses; those at the low rung are larger and rank alike."""
    gap = {"web": abs(weights["web"] - 0.5), "math": abs(weights["math"] - 0.3)}
    return {f"{name}/bpb": 1.0 + value + 0.4 * low for name, value in gap.items()}


def turned(weights: Mapping[str, float], low: bool) -> dict[str, float]:
    """Return losses whose low rung ranks the other way."""
    found = agreeing(weights, low=False)
    return {name: 4.0 - value for name, value in found.items()} if low else found


def search(**changes: Any) -> SearchSpec:
    values: dict[str, Any] = {
        "fidelity": FidelitySpec(share=0.3),
        "strategy": StrategySpec(
            baselines=("uniform",), baseline="uniform", design_trials=PLAN.design
        ),
        "budget": BudgetSpec(trials=15),
        "confirm": ConfirmSpec(finalists=2, pick=True, seeds=(0, 1)),
    }
    return spec(**{**values, **changes})


def open_state(folder: Path, wanted: SearchSpec) -> StudyState:
    place = folder / "runs" / "s"
    place.mkdir(parents=True, exist_ok=True)
    settle_rung(place, RUNG, begun=(place / "journal.log").exists())
    return StudyState(place, "s", wanted, seed=0)


def scheduler(
    wanted: SearchSpec, plan: RungPlan = PLAN, units: float | None = None
) -> RungScheduler:
    assert wanted.space is not None
    made = proposals_of(wanted, SearchSpace.build(wanted.space), {"evaluation": {"score": RULE}})
    assert made.rank is not None
    return RungScheduler(
        replace(strategy(wanted), propose=made.propose), pick_of, made.rank, plan, units
    )


def pick_of(history: History) -> Recommendation:
    """Return the mixture of the last paused trial, as if the surrogate's optimum were there."""
    paused = [trial for trial in history.searched if trial.state == "paused"]
    return Recommendation(point=paused[-1].spec.point)


def finish(state: StudyState, run: Run, metrics: Metrics) -> None:
    """Do what a run does: pause at the low rung, or go to the end."""
    trial = state.trial(run.number)
    weights = trial.spec.point["mixture.weights"]
    assert isinstance(weights, dict)
    folder = state.folder / f"{trial.spec.trial}-{run.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    pauses = trial.spec.pauses and not trial.continued and run.seed in trial.spec.seeds
    low, top = metrics(weights, True), metrics(weights, False)
    row = {
        "step": 3,
        "tokens": 300,
        "score": sum(low.values()) / 2,
        "metrics": {name.partition("/")[0]: {"bpb": {"value": v}} for name, v in low.items()},
    }
    if not (folder / "scores.jsonl").exists():
        (folder / "scores.jsonl").write_text(json.dumps(row) + "\n")
    values = low if pauses else top
    content = {
        "reason": None,
        "score": sum(values.values()) / 2,
        "direction": "minimize",
        "metrics": values,
        "step": 3 if pauses else 10,
        "tokens": 300 if pauses else 1000,
        "cost": {"wall_seconds": 3.0 if pauses else 10.0, "flops": 30.0 if pauses else 100.0},
    }
    if pauses:
        write_json(folder / "paused.json", {"status": "paused", **content})
    else:
        write_json(folder / "result.json", {"status": "done", **content})
        (folder / "paused.json").unlink(missing_ok=True)


def drive(
    folder: Path,
    metrics: Metrics,
    *,
    kill_after: int | None = None,
    plan: RungPlan = PLAN,
    units: float | None = None,
    wanted: SearchSpec | None = None,
) -> tuple[StudyState, list[str]]:
    """Run a study to its end; the driver is killed after every ``kill_after`` runs.

    Returns:
        The study, and its runs in order, with the rung that each reached.
    """
    wanted = wanted or search()
    state, done = open_state(folder, wanted), []
    giver = scheduler(wanted, plan, units)
    while runs := giver.next_runs(state, set(), 3):
        for run in runs:
            before = state.trial(run.number)
            finish(state, run, metrics)
            pauses = before.spec.pauses and not before.continued and run.seed == 0
            done.append(f"{run.number}-{run.seed}{' pauses' if pauses else ''}")
            if kill_after is not None and len(done) % kill_after == 0:
                state = open_state(folder, wanted)
                giver = scheduler(wanted, plan, units)
                break
            outcome = state.collect(run)
            assert outcome is not None
            state.record(run, outcome)
    return state, done


def values_of(state: StudyState) -> dict[str, Any]:
    return {
        path.parent.name: json.loads(path.read_text())["score"]
        for path in sorted(state.folder.glob("trial-*/result.json"))
    }


def test_the_best_of_many_cheap_runs_go_on_and_are_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, done = drive(tmp_path, agreeing)
    assert done[0] == "0-0", "the baseline runs in full"
    assert done[1:11] == [f"{number}-0 pauses" for number in range(1, 11)], "then the design"
    assert all(entry.endswith("-0") for entry in done[11:19]), "then eight pairs go on"
    assert done[19:23] == [f"{number}-0 pauses" for number in range(11, 15)], "then proposals"
    assert len(set(done)) == len(done), "no run is repeated"
    rung = read_rung(state.folder)
    assert rung is not None
    assert len(rung.pairs) == 8
    assert len(rung.finalists) == 2
    assert rung.judged is not None
    assert rung.judged.holds
    assert rung.judged.pairs == 9, "the baseline passed the low rung too"
    assert "it is used" in capsys.readouterr().err
    chosen = json.loads((state.folder / "finalists.json").read_text())["finalists"]
    assert {t.state for t in state.trials if t.number in chosen} == {"done"}
    assert {t.state for t in state.trials} == {"done", "paused"}
    best = min(values_of(state).values())
    assert best < 1.12


def test_a_rung_that_ranks_the_other_way_is_dropped_and_the_rest_runs_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, done = drive(tmp_path, turned)
    assert state.rung is not None
    assert state.rung.judged is not None
    assert not state.rung.judged.holds
    assert "it is dropped, and the rest runs in full" in capsys.readouterr().err
    assert sum("pauses" in entry for entry in done) == 10, "no run pauses after the guard"
    assert state.history().low == (), "the low rung left the fit"
    assert sum(t.spec.phase == "search" for t in state.trials) == 4
    assert state.rung.finalists == ()
    assert {t.spec.pauses for t in state.trials if t.spec.phase == "search"} == {False}


def test_dropped_rungs_leave_the_units_that_are_left(tmp_path: Path) -> None:
    state, _ = drive(tmp_path, turned, units=1 + 2 * 0.3 + 8 + 2, plan=PLAN)
    assert sum(t.spec.phase == "search" for t in state.trials) == 2


@pytest.mark.parametrize("metrics", [agreeing, turned], ids=["used", "dropped"])
@pytest.mark.parametrize("kill_after", [1, 4])
def test_kills_at_any_run_lose_and_repeat_nothing(
    tmp_path: Path, metrics: Metrics, kill_after: int
) -> None:
    whole, runs = drive(tmp_path / "whole", metrics)
    killed, again = drive(tmp_path / "killed", metrics, kill_after=kill_after)
    assert sorted(again) == sorted(runs)
    assert values_of(killed) == values_of(whole)
    assert read_rung(killed.folder) == read_rung(whole.folder)
    kept = [(t.spec, t.state, t.continued) for t in killed.trials]
    assert kept == [(t.spec, t.state, t.continued) for t in whole.trials]


def test_a_paused_run_at_the_surrogates_optimum_goes_on_instead_of_a_new_one(
    tmp_path: Path,
) -> None:
    state, done = drive(tmp_path, agreeing)
    assert state.rung is not None
    (number,) = state.rung.picked
    assert state.trial(number).state == "done"
    assert f"{number}-0 pauses" in done
    assert f"{number}-0" in done, "its first seed goes on from the pause"
    assert f"{number}-1" in done, "and it gets the other seeds"
    assert not any(trial.spec.phase == "confirm" for trial in state.trials)
    assert json.loads((state.folder / "pick.json").read_text())["trial"] == f"trial-{number:04d}"


def test_a_driver_killed_between_the_choice_and_its_journal_lines_continues_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.study.journal import Journal

    wanted = search()
    state, giver = open_state(tmp_path, wanted), scheduler(wanted)
    monkeypatch.setattr(Journal, "carry_on", _die)
    with pytest.raises(KeyboardInterrupt):
        _drive_on(state, giver)
    monkeypatch.undo()
    state = open_state(tmp_path, wanted)
    assert state.rung is not None
    assert sum(trial.continued for trial in state.trials) == len(state.rung.pairs) == 8


def _drive_on(state: StudyState, giver: RungScheduler) -> None:
    while runs := giver.next_runs(state, set(), 3):
        for run in runs:
            finish(state, run, agreeing)
            outcome = state.collect(run)
            assert outcome is not None
            state.record(run, outcome)


def _die(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_that_went_on_and_was_killed_counts_as_unfinished(tmp_path: Path) -> None:
    state, giver = open_state(tmp_path, search()), scheduler(search())
    while state.rung is not None and not state.rung.pairs:
        for run in giver.next_runs(state, set(), 3):
            finish(state, run, agreeing)
            if (outcome := state.collect(run)) is not None:
                state.record(run, outcome)
    state = open_state(tmp_path, search())
    assert state.rung is not None
    number = state.rung.pairs[-1]
    assert state.trial(number).state == "running"
    assert state.collect(Run(number, 0)) is None, "its pause is no end"
    assert Run(number, 0) in giver.next_runs(state, set(), 20)
    assert state.trial(number).low is not None, "its value at the low rung still counts"


def test_costs_are_counted_from_rung_to_rung(tmp_path: Path) -> None:
    state, done = drive(tmp_path, agreeing)
    ledger = state.ledger()
    results = len(list(state.folder.glob("trial-*/result.json")))
    paused = len(list(state.folder.glob("trial-*/paused.json")))
    both = ledger.explore.plus(ledger.confirm)
    assert both.flops == 100.0 * results + 30.0 * paused
    assert both.failed == 0
    assert ledger.paused.runs == paused > 0
    assert ledger.plain()["paused"]["runs"] == paused
    assert len(done) > results


def test_the_surrogate_reads_both_rungs_and_finalists_are_ranked_at_the_top_alone(
    tmp_path: Path,
) -> None:
    state, _ = drive(tmp_path, agreeing)
    wanted = search()
    assert wanted.space is not None
    history = state.history()
    evidence = evidence_of(SearchSpace.build(wanted.space), history, RULE)
    assert evidence.values.shape[1] == 2, "metrics are fitted, not the score"
    assert evidence.at_top.sum() == len(history.done)
    assert (~evidence.at_top).sum() == len(history.low)
    top = {tuple(row) for row in evidence.coordinates[evidence.at_top].tolist()}
    low = {tuple(row) for row in evidence.coordinates[~evidence.at_top].tolist()}
    assert top & low, "a full run gives its value at the low rung too"
    assert all(trial.state == "done" for trial in history.done)


def test_plain_studies_have_no_trace_of_rungs(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "s"
    place.mkdir(parents=True)
    wanted = replace(search(), fidelity=FidelitySpec())
    settle_rung(place, None, begun=False)
    state = StudyState(place, "s", wanted, seed=0)
    assert state.rung is None
    trial = state.add_trial(strategy(wanted).next_drafts(state.history(), 1)[0])
    plain = trial.spec.plain()
    assert set(plain) == {"number", "phase", "name", "point", "overrides", "seeds"}
    assert "stop_tokens" not in " ".join(job_overrides(trial.spec, 0, "s", []))
    assert not (place / "rungs.json").exists()
    assert "paused" not in state.ledger().plain()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": None}, "no design"),
        ({"strategy": StrategySpec(proposer="random")}, "cannot use paused runs"),
        ({"objectives": {n: ObjectiveSpec(direction="minimize") for n in "ab"}}, "one objective"),
        ({"constraints": {"c": ConstraintSpec(metrics=("a",), bound=1.0)}}, "constraint"),
        ({"task_quality": TaskQualitySpec(apply=True)}, "decided from full runs"),
        ({"seeds": (0, 1)}, "several seeds"),
    ],
)
def test_searches_that_cannot_pause_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(**changes)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_share_lies_between_nothing_and_a_whole_run(share: float) -> None:
    with pytest.raises(ConfigError, match="not a share of a run"):
        FidelitySpec(share=share)


def test_a_study_keeps_its_rung(tmp_path: Path) -> None:
    settle_rung(tmp_path, RUNG, begun=False)
    assert settle_rung(tmp_path, RUNG, begun=True) == RUNG
    for other in (None, replace(RUNG, tokens=400.0)):
        with pytest.raises(ConfigError, match="not what the study was begun with"):
            settle_rung(tmp_path, other, begun=True)


def test_a_study_begun_without_rungs_gets_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not what the study was begun with"):
        settle_rung(tmp_path, RUNG, begun=True)


@pytest.mark.parametrize(
    ("trials", "units", "low", "pairs"),
    [
        (25, None, 24, 8),
        (9, None, 8, 0),
        (None, 17.0, 30, 8),
        (None, 9.0, 22, 0),
        (12, 17.0, 11, 0),
    ],
)
def test_budgets_of_trials_and_of_units(
    trials: int | None, units: float | None, low: int, pairs: int
) -> None:
    budget = BudgetSpec(trials=trials, flops=None if units is None else 1.0)
    plan = budget_plan(search(budget=budget), RUNG, units, sources=7, baselines=1)
    assert (plan.low_runs, plan.pairs) == (low, pairs)
    assert plan.design <= plan.low_runs
