"""Check the state of a study step by step: what is kept, repaired, refused and written."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.files import read_json, write_json
from ablations.record.run_record import RunRecord
from sweeps.search.space import Point
from sweeps.study.old_runs import EVIDENCE_FILE, Evidence, OldRun
from sweeps.study.rungs import Rung, settle_rung
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec
from sweeps.study.strategy import TrialRequest
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import TrialSpec
from tests.sweeps.study.builders import finish, outcome, spec, study

WEIGHTS = {"web": 0.5, "math": 0.25, "code": 0.25}
POINT: Point = {"mixture.weights": WEIGHTS}
DRAFT = TrialRequest(phase="design", point=POINT)
TOKENS_RUNG = Rung(share=0.3, tokens=300.0)
SMALL_MODEL = Rung(share=0.3, tokens=300.0, model={"hidden_size": 32}, size=0.5, cost=0.1)


def with_rung(folder: Path, rung: Rung | None) -> StudyState:
    place = study(folder).folder
    settle_rung(place, rung, begun=False)
    return study(folder)


def ended(state: StudyState, score: float | None = 1.0, **result: Any) -> Run:
    """Add a trial, finish its first run and record it."""
    run = Run(state.add_trial(DRAFT).number, 0)
    finish(state, run, score, **result)
    found = state.collect(run)
    assert found is not None
    state.record(run, found)
    return run


# ------------------------------------------------------------------------------------------- trials


def test_a_trial_has_the_study_s_seeds_or_its_own(tmp_path: Path) -> None:
    assert study(tmp_path / "a").add_trial(DRAFT).spec.seeds == (0,)
    many = study(tmp_path / "b", spec(seeds=(3, 4)))
    assert many.add_trial(DRAFT).spec == TrialSpec(
        number=0, phase="design", point=POINT, seeds=(3, 4)
    )
    assert (many.folder / "trial-0000-3/trial.json").exists()
    named = TrialRequest(phase="confirm", point=POINT, name="pick-3")
    own = many.add_trial(named, seeds=(7,), overrides=("a=1",))
    assert (own.spec.seeds, own.spec.name, own.spec.overrides) == ((7,), "pick-3", ("a=1",))
    assert (own.number, many.add_trial(DRAFT).number) == (1, 2)


@pytest.mark.parametrize("pauses", [True, False])
@pytest.mark.parametrize(
    ("rung", "full", "low"),
    [(None, None, None), (TOKENS_RUNG, 300.0, 300.0), (SMALL_MODEL, None, 300.0)],
)
def test_a_full_run_passes_the_rung_of_its_own_model_alone(
    tmp_path: Path, rung: Rung | None, full: float | None, low: float | None, pauses: bool
) -> None:
    state = with_rung(tmp_path, rung)
    added = state.add_trial(replace(DRAFT, pauses=pauses)).spec
    assert added.rung == (low if pauses else full)
    assert added.pauses is pauses


def test_failed_trials_are_those_of_the_named_phases(tmp_path: Path) -> None:
    state = study(tmp_path)
    ended(state)
    ended(state, None, status="failed", reason="x")
    run = Run(state.add_trial(replace(DRAFT, phase="search")).number, 0)
    state.record(run, state.fail(run, "y"))
    assert [t.number for t in state.failures(("design",))] == [1]
    assert [t.number for t in state.failures(("baseline", "search", "design"))] == [1, 2]
    assert state.failures(("confirm",)) == []


def test_a_failure_is_written_and_returned_and_removed_before_the_next_launch(
    tmp_path: Path,
) -> None:
    state = study(tmp_path)
    run = Run(state.add_trial(DRAFT).number, 5)
    (state.folder / "trial-0000-5").mkdir()
    assert state.fail(run, "why") == outcome(
        None, seed=5, status="failed", reason="why", direction=None, tokens=0.0
    )
    found = state.collect(run)
    assert found is not None
    assert (found.status, found.reason) == ("failed", "why")
    state.prepare(run)
    assert state.collect(run) is None
    assert read_json(state.folder / "trial-0000-5/trial.json")["number"] == 0


def test_a_pause_ends_a_run_until_it_is_continued(tmp_path: Path) -> None:
    state = with_rung(tmp_path, TOKENS_RUNG)
    run = Run(state.add_trial(replace(DRAFT, pauses=True)).number, 0)
    paused = {"step": 4, "status": "paused", "score": 2.5, "metrics": {"web/bpb": 2.0}}
    write_json(state.folder / "trial-0000-0/paused.json", paused)
    found = state.collect(run)
    assert found is not None
    assert found.status == "paused"
    assert state.record(run, found).state == "paused"
    state.choose("pairs", [0])
    assert state.trial(0).continued
    assert state.trial(0).state == "running"
    assert state.collect(run) is None
    again = study(tmp_path)
    assert again.trial(0).continued
    finish(state, run, 3.0)
    done = state.collect(run)
    assert done is not None
    assert done.status == "done"


# --------------------------------------------------------------------------------- repair and repeat


def test_runs_to_repeat_are_failed_or_without_a_score(tmp_path: Path) -> None:
    state = study(tmp_path)
    fine, unscored = ended(state), ended(state, None)
    broken, diverged = (ended(state, None, status="failed", reason="x") for _ in range(2))
    RunRecord(state.folder / "trial-0003-0").event("diverged")
    never = Run(state.add_trial(DRAFT).number, 0)
    every = [fine, unscored, broken, diverged, never]
    assert state.retry_failures(every) == [unscored, broken]
    assert [state.trial(n).state for n in range(5)] == [
        "done",
        "running",
        "running",
        "failed",
        "running",
    ]
    assert state.retry_failures(every, diverged=True) == [diverged]
    assert state.trial(3).outcomes == {}
    assert state.retry_failures(every, diverged=True) == []


def test_only_the_failed_seed_is_forgotten(tmp_path: Path) -> None:
    state = study(tmp_path, spec(seeds=(0, 1)))
    number = state.add_trial(DRAFT).number
    for seed, status in ((0, "done"), (1, "failed")):
        (state.folder / f"trial-0000-{seed}").mkdir(exist_ok=True)
        finish(state, Run(number, seed), status=status)
        found = state.collect(Run(number, seed))
        assert found is not None
        state.record(Run(number, seed), found)
    assert state.trial(number).state == "failed"
    assert state.retry_failures([Run(number, 1)]) == [Run(number, 1)]
    assert set(state.trial(number).outcomes) == {0}


def test_a_failed_run_that_was_repeated_by_hand_is_read_again(tmp_path: Path) -> None:
    state = study(tmp_path)
    run = ended(state, None, status="failed", reason="x")
    finish(state, run, 1.25)
    assert state.trial(0).state == "failed"
    assert study(tmp_path).trial(0).outcomes[0].score == 1.25


def test_a_score_that_came_later_is_read_again(tmp_path: Path) -> None:
    state = study(tmp_path)
    run = ended(state, None)
    finish(state, run, 1.25)
    assert state.trial(0).outcomes[0].score is None
    assert study(tmp_path).trial(0).outcomes[0].score == 1.25


def test_a_done_run_is_kept_from_the_journal_though_its_folder_is_gone(tmp_path: Path) -> None:
    state = study(tmp_path)
    ended(state, 1.5)
    (state.folder / "trial-0000-0/result.json").unlink()
    assert study(tmp_path).trial(0).outcomes[0].score == 1.5
    (state.folder / "trial-0000-0/manifest.json").write_text("{}")
    assert study(tmp_path).trial(0).outcomes == {}


def test_the_next_number_follows_the_largest(tmp_path: Path) -> None:
    state = study(tmp_path)
    for _ in range(3):
        state.add_trial(DRAFT)
    assert study(tmp_path).add_trial(DRAFT).number == 3
    (state.folder / "trial-0009-0").mkdir()
    assert study(tmp_path).add_trial(DRAFT).number == 4
    (state.folder / "trial-0009-0/manifest.json").touch()
    assert study(tmp_path).add_trial(DRAFT).number == 10


# --------------------------------------------------------------------------- what others see of a study


def test_the_history_has_the_study_s_rung_baseline_and_constraints(tmp_path: Path) -> None:
    limits = {"cap": ConstraintSpec(metrics=("score",), bound=2.5)}
    plain = study(tmp_path / "a", spec(constraints=limits)).history()
    assert (plain.rung, plain.old, plain.form) == (None, (), None)
    assert plain.baseline == "uniform"
    assert dict(plain.constraints) == limits
    assert list(plain.objectives) == ["score"]
    assert with_rung(tmp_path / "b", SMALL_MODEL).history().rung == SMALL_MODEL.distance


OLD = OldRun(
    study="before", run="trial-0001-0", point=POINT, dropped={}, score=1.0, metrics={}, rung=(0, 0)
)


@pytest.mark.parametrize(("check", "count"), [(None, 2), ({"used": True}, 2), ({"used": False}, 0)])
def test_old_runs_are_in_the_history_while_they_are_used(
    tmp_path: Path, check: dict[str, Any] | None, count: int
) -> None:
    evidence = Evidence(
        studies=["before"], split={}, runs=[OLD, OLD], added={}, notes=[], check=check
    )
    write_json(study(tmp_path).folder / EVIDENCE_FILE, asdict(evidence))
    assert len(study(tmp_path).history().old) == count


@pytest.mark.parametrize(
    ("metrics", "direction", "refused"),
    [
        (("score",), "maximize", True),
        (("score",), "minimize", False),
        (("score",), None, False),
        (("web/bpb",), "maximize", False),
    ],
)
def test_the_direction_of_the_run_s_score_is_checked_for_the_score_alone(
    tmp_path: Path, metrics: tuple[str, ...], direction: str | None, refused: bool
) -> None:
    objectives = {"x": ObjectiveSpec(metrics=metrics, direction="minimize")}
    state = study(tmp_path, spec(objectives=objectives))
    run = Run(state.add_trial(DRAFT).number, 0)
    found = outcome(direction=direction, metrics={"web/bpb": 1.0})
    if not refused:
        assert state.record(run, found).state == "done"
        return
    with pytest.raises(ConfigError, match=r"search\.objectives\.x\.direction") as raised:
        state.record(run, found)
    assert "found: minimize" in str(raised.value)
    assert "allowed: maximize" in str(raised.value)


def test_the_ledger_is_written_every_two_seconds_or_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("sweeps.study.study_state.time.monotonic", lambda: now[0])
    state = study(tmp_path)
    path = state.folder / "ledger.json"
    state.add_trial(DRAFT)
    for moment, forced, trials in (
        (100.0, False, 1),
        (101.5, False, 1),
        (102.0, False, 3),
        (102.5, False, 3),
        (102.5, True, 5),
        (104.0, False, 5),
        (104.5, False, 7),
    ):
        now[0] = moment
        state.write_ledger(now=forced)
        assert read_json(path)["explored_trials"] == trials
        state.add_trial(DRAFT)
