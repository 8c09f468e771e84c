"""A search whose explored runs have a smaller model: order, guard, kills, evidence, refusals, a real one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.record.run_record import list_runs
from sweeps.search.proposals.rung_policy import RungPlan
from sweeps.search.space import SearchSpace
from sweeps.study.rungs import Rung, budget_plan, read_rung, settle_rung
from sweeps.study.specs import BudgetSpec, FidelitySpec
from sweeps.study.study_state import StudyState
from sweeps.study.surrogate_proposer import evidence_of
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.sweeps.study import test_study_rungs as rungs
from tests.sweeps.study.test_study_rungs import RULE, agreeing, search, turned, values_of
from tests.sweeps.study.test_study_trunks import ablate as run_ablate

SMALL = Rung(share=0.3, tokens=300.0, model={"hidden_size": 32}, size=0.5, cost=0.1)
PLAN = RungPlan(low_runs=14, design=10, pairs=8, finalists=2, batch=2)


@pytest.fixture(autouse=True)
def small_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the studies of ``test_study_rungs`` with a smaller model."""
    monkeypatch.setattr(rungs, "RUNG", SMALL)


def points(state: StudyState, numbers: Any) -> list[str]:
    return [json.dumps(state.trial(number).spec.point, sort_keys=True) for number in numbers]


def test_the_best_mixtures_of_the_small_model_are_run_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, done = rungs.drive(tmp_path, agreeing)
    rung = state.rung
    assert rung is not None
    assert done[0] == "0-0", "the baseline has the large model"
    assert done[1:11] == [f"{number}-0 pauses" for number in range(1, 11)]
    assert done[11:19] == [f"{number}-0" for number in range(11, 19)], "new trials, in full"
    assert points(state, range(11, 19)) == points(state, rung.pairs)
    assert rung.judged is not None
    assert (rung.judged.pairs, rung.judged.holds) == (8, True), "the baseline has no small twin"
    assert "it is used" in capsys.readouterr().err
    assert len(set(done)) == len(done), "no run is repeated"
    assert len(rung.finalists) == 2
    full = {json.dumps(t.spec.point, sort_keys=True) for t in state.trials if not t.spec.pauses}
    assert set(points(state, rung.chosen)) <= full
    low = [trial for trial in state.trials if trial.spec.pauses]
    assert {trial.state for trial in low} == {"paused"}, "they never go on"
    assert not any(trial.continued for trial in state.trials)
    chosen = json.loads((state.folder / "finalists.json").read_text())["finalists"]
    assert not any(state.trial(number).spec.pauses for number in chosen)
    assert min(values_of(state).values()) < 1.12


def test_evidence_has_small_runs_at_their_size_and_full_runs_at_the_top(tmp_path: Path) -> None:
    state, _ = rungs.drive(tmp_path, agreeing)
    assert state.spec.space is not None
    space = SearchSpace.build(state.spec.space)
    evidence = evidence_of(space, state.history(), RULE)
    full = len(state.history().done)
    assert evidence.rungs is not None
    assert evidence.rungs[:full].tolist() == [[0.0, 0.0]] * full
    assert evidence.rungs[full:].tolist() == [[0.5, pytest.approx(1.0)]] * 14


def test_a_small_model_that_ranks_the_other_way_is_dropped(tmp_path: Path) -> None:
    # 14 units after a baseline and ten small runs leave full runs besides the eight pairs.
    state, done = rungs.drive(tmp_path, turned, units=1 + 10 * 0.1 + 8 + 3)
    assert state.rung is not None
    assert state.rung.judged is not None
    assert not state.rung.judged.holds
    assert sum("pauses" in entry for entry in done) == 10
    assert state.history().low == ()
    searched = [t for t in state.trials if t.spec.phase == "search" and not t.spec.pauses]
    assert len(searched) == 8 + 3


@pytest.mark.parametrize("metrics", [agreeing, turned], ids=["used", "dropped"])
@pytest.mark.parametrize("kill_after", [1, 3])
def test_kills_at_any_run_lose_and_repeat_nothing(
    tmp_path: Path, metrics: rungs.Metrics, kill_after: int
) -> None:
    whole, runs = rungs.drive(tmp_path / "whole", metrics)
    killed, again = rungs.drive(tmp_path / "killed", metrics, kill_after=kill_after)
    assert sorted(again) == sorted(runs)
    assert values_of(killed) == values_of(whole)
    assert read_rung(killed.folder) == read_rung(whole.folder)
    assert [(t.spec, t.state) for t in killed.trials] == [(t.spec, t.state) for t in whole.trials]


def test_a_driver_killed_between_the_choice_and_the_full_runs_adds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = rungs.drive(tmp_path / "whole", agreeing)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sweeps.study.rung_scheduler.RungScheduler._continued", die)
        with pytest.raises(KeyboardInterrupt):
            rungs.drive(tmp_path / "killed", agreeing)
    state, _ = rungs.drive(tmp_path / "killed", agreeing)
    assert values_of(state) == values_of(whole)
    assert [t.spec for t in state.trials] == [t.spec for t in whole.trials]


def test_a_full_run_costs_all_and_a_small_one_its_price() -> None:
    spec = search(budget=BudgetSpec(flops=1.0))
    plan = budget_plan(spec, SMALL, 20.0, 5, 1)
    assert plan.pairs == 6, "of 19 units, 35% pay six full runs"
    assert plan.low_runs == math.floor((19 - 6 - plan.finalists) / 0.1)
    assert SMALL.price == 0.1
    assert replace(SMALL, cost=None).price == 0.3


def test_another_model_is_another_rung(tmp_path: Path) -> None:
    settle_rung(tmp_path, SMALL, begun=False)
    assert settle_rung(tmp_path, SMALL, begun=True) == SMALL
    for other in (replace(SMALL, model={"hidden_size": 48}), replace(SMALL, model=None)):
        with pytest.raises(ConfigError, match="not what the study was begun with"):
            settle_rung(tmp_path, other, begun=True)


def test_a_model_needs_a_share() -> None:
    with pytest.raises(ConfigError, match="needs the share"):
        FidelitySpec(model="proxy_1m")


STUDY = (
    *TINY,
    *SHORT_SOURCES,
    "study=small",
    "search=mixture",
    "search.strategy.baselines=[uniform]",
    "search.strategy.baseline=uniform",
    "search.fidelity.share=0.5",
    "search.confirm.finalists=1",
    "search.confirm.seeds=[0,1]",
    "search.budget.trials=7",
)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{hidden_size:64}", "not smaller than the model of full runs"),
        ("{hiden_size:16}", "did you mean 'hidden_size'"),
        ("nothing", "search.fidelity.model"),
        ("{hidden_size:18}", "heads need an even width"),
    ],
)
def test_a_model_that_is_none_or_not_smaller_is_refused(
    workspace: Path, ablate: Ablate, model: str, message: str
) -> None:
    answer = ablate("plan", "-m", *STUDY, f"search.fidelity.model={model}")
    assert answer.code == 2, answer.out
    assert message in answer.err


@pytest.mark.slow
def test_a_study_explores_with_a_small_model_and_decides_with_the_large_one(
    workspace: Path,
) -> None:
    given = (*STUDY, "search.fidelity.model={hidden_size:16,intermediate_size:32}")
    plan = run_ablate(workspace, "plan", "-m", *given)
    assert "to 50% of the tokens, smaller model" in plan
    run_ablate(workspace, "run", "-m", *given)
    widths: dict[str, set[int]] = {}
    for record in list_runs(workspace / "runs", "small"):
        width = record.manifest.config["model"]["hidden_size"]
        widths.setdefault(record.status, set()).add(width)
        assert record.manifest.labels.get("rung") == ("smaller_model" if width == 16 else None)
    assert widths == {"paused": {16}, "done": {32}}
    verdict = run_ablate(workspace, "verdict", "study=small")
    assert verdict.lower().startswith(("tie:", "winner:", "keep"))
    ledger = json.loads((workspace / "runs/small/ledger.json").read_text())
    assert ledger["paused"]["runs"] == 6
