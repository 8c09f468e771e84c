"""Check what is read from, written to and removed in the run folders of a study, file by file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ablations.errors import DamagedError
from ablations.files import read_json, write_json
from ablations.record.run_record import RunRecord
from sweeps.study.run_results import (
    folders_by_trial,
    forget_failure,
    has_lost_its_result,
    holds_record,
    is_held,
    may_be_tried_again,
    outcome_of,
    outcomes_of,
    read_trial_spec,
    refused_in,
    run_folder,
    runs_in,
    trial_fields,
    trial_file,
    trial_specs_in,
    write_failure,
    write_trial_spec,
)
from sweeps.study.trial import TrialSpec
from tests.sweeps.study.builders import outcome

SPEC = TrialSpec(number=3, phase="design", name="half", point={"mixture.weights": {"web": 1.0}})


def run(folder: Path, name: str = "trial-0003-0") -> Path:
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def recorded(folder: Path, config: dict[str, Any] | None = None, **labels: Any) -> RunRecord:
    """Return the record of the study's run ``trial-0003-0`` with a manifest."""
    return RunRecord.create(
        folder, study="s", trial="trial-0003", seed=0, config=config or {}, labels=labels
    )


def result(path: Path, **values: Any) -> None:
    write_json(path / "result.json", {"status": "done", "score": 1.0, "metrics": {}, **values})


# ----------------------------------------------------------------------------------- specifications


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "trial.json"),
        (("trial.json",), "trial.json"),
        (("ask.json",), "ask.json"),
        (("trial.json", "ask.json"), "trial.json"),
    ],
)
def test_the_older_file_is_taken_only_where_it_stands_alone(
    tmp_path: Path, names: tuple[str, ...], expected: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert trial_file(tmp_path) == tmp_path / expected


def test_a_specification_is_written_once_and_torn_ones_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "deep/s"
    write_trial_spec(folder, SPEC, 7)
    path = folder / "trial-0003-7"
    assert run_folder(folder, SPEC, 7) == path
    assert read_trial_spec(path / "trial.json") == SPEC
    again = run(folder, "trial-0003-8")
    for name in (".trial.json.1.tmp", ".ask.json.2.tmp", ".other.json.3.tmp"):
        (again / name).touch()
    write_trial_spec(folder, SPEC, 8)
    assert sorted(p.name for p in again.iterdir()) == [".other.json.3.tmp", "trial.json"]
    write_trial_spec(folder, replace(SPEC, name="other"), 8)
    assert read_trial_spec(again / "trial.json").name == "half"


@pytest.mark.parametrize("wrong", [{"number": "three"}, {"seeds": 0}, {"name": None}])
def test_a_specification_of_other_kinds_is_damaged(tmp_path: Path, wrong: dict[str, Any]) -> None:
    write_json(tmp_path / "trial.json", {**SPEC.plain(), **wrong})
    with pytest.raises(DamagedError, match=r"trial\.json"):
        read_trial_spec(tmp_path / "trial.json")


def test_the_first_seed_with_a_specification_describes_the_trial(tmp_path: Path) -> None:
    for seed in (8, 1):
        write_trial_spec(tmp_path, replace(SPEC, name=f"seed {seed}"), seed)
    run(tmp_path, "trial-0003-0")
    run(tmp_path, "trial-0004-0")
    found = trial_specs_in(tmp_path, [5, 4, 3], {3: {8, 1, 0}, 4: {0}})
    assert {number: spec.name for number, spec in found.items()} == {3: "seed 1"}


def test_folders_are_listed_by_trial_and_by_name(tmp_path: Path) -> None:
    for name in ("trial-0003-1", "trial-0003-0", "trial-0010-0"):
        run(tmp_path, name)
    (tmp_path / "study.json").touch()
    found = folders_by_trial(tmp_path)
    assert found["trial-0003"] == [tmp_path / "trial-0003-0", tmp_path / "trial-0003-1"]
    assert found["trial-0010"] == [tmp_path / "trial-0010-0"]


def test_only_run_folders_of_trials_are_runs(tmp_path: Path) -> None:
    wrong = ("trial-003-0", "trial-0003", "trial-0003-0-x", "a-trial-0003-0", "promote-0003-0")
    for name in ("trial-0003-12", "trial-0003-0", "trial-12345-6", *wrong):
        run(tmp_path, name)
    assert runs_in(tmp_path) == {3: {0, 12}, 12345: {6}}


def test_a_run_s_fields_come_from_its_file_then_another_replicate_s_then_its_labels(
    tmp_path: Path,
) -> None:
    record = recorded(tmp_path, name="half", phase="design", other="x")
    labels = {"name": "half", "phase": "design"}
    assert trial_fields(record) == labels
    run(tmp_path / "s", "trial-0003-1")
    write_trial_spec(tmp_path / "s", replace(SPEC, name="second", seeds=(4,)), 2)
    write_trial_spec(tmp_path / "s", replace(SPEC, name="third", seeds=(5,)), 9)
    write_trial_spec(tmp_path / "s", replace(SPEC, number=4, seeds=(6,)), 0)
    other = trial_fields(record)
    assert (other["name"], other["phase"], other["seeds"]) == ("second", "design", [4])
    given = {"trial-0003": [tmp_path / "s/trial-0003-9"]}
    assert trial_fields(record, record.manifest, given)["seeds"] == [5]
    write_trial_spec(tmp_path / "s", SPEC, 0)
    assert trial_fields(record)["seeds"] == [0]


def test_a_run_of_no_study_has_no_fields(tmp_path: Path) -> None:
    record = recorded(tmp_path, name="", other="x")
    write_trial_spec(tmp_path / "s", SPEC, 1)
    assert trial_fields(record) == {}
    assert trial_fields(RunRecord(run(tmp_path / "s", "trial-0009-0"))) == {}


@pytest.mark.parametrize(
    ("manifest", "ended", "lost"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_a_result_is_lost_where_a_run_has_a_record_alone(
    tmp_path: Path, manifest: bool, ended: bool, lost: bool
) -> None:
    path = run(tmp_path)
    if manifest:
        (path / "manifest.json").touch()
    if ended:
        (path / "result.json").touch()
    assert has_lost_its_result(path) is lost


def test_one_record_among_the_seeds_is_enough(tmp_path: Path) -> None:
    run(tmp_path, "trial-0003-0")
    (run(tmp_path, "trial-0003-2") / "manifest.json").touch()
    assert holds_record(tmp_path, 3, (0, 2))
    assert not holds_record(tmp_path, 3, (0, 1))
    assert not holds_record(tmp_path, 2, (0, 2))


# ------------------------------------------------------------------------------------------- results


def test_a_result_is_read_whole(tmp_path: Path) -> None:
    config = {"execution": {"dp": 3}}
    record = recorded(tmp_path, config)
    result(
        record.path,
        reason="why",
        score=1.5,
        direction="maximize",
        metrics={"web/bpb": 2.0, "math/bpb": None},
        tokens=1000,
        trunk={"tokens": 300},
        cost={"wall_seconds": 20.0, "flops": 50.0},
    )
    assert outcome_of(tmp_path / "s", SPEC, 0) == outcome(
        1.5,
        reason="why",
        direction="maximize",
        metrics={"web/bpb": 2.0, "math/bpb": None},
        tokens=700.0,
        flops=50.0,
        device_seconds=60.0,
    )


def test_what_a_result_does_not_tell_is_nothing(tmp_path: Path) -> None:
    path = run(tmp_path)
    expected = outcome(None, direction=None, tokens=0.0)
    for empty in ({}, {"cost": None, "tokens": None, "trunk": None, "metrics": None}):
        result(path, **{"score": None, **empty})
        assert outcome_of(tmp_path, SPEC, 0) == expected
    result(path, score=None, trunk={"tokens": None}, tokens=5)
    assert outcome_of(tmp_path, SPEC, 0) == replace(expected, tokens=5.0)
    (path / "result.json").unlink()
    assert outcome_of(tmp_path, SPEC, 0) is None


def test_a_record_without_execution_has_one_device(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"execution": None})
    result(record.path, cost={"wall_seconds": 20.0})
    found = outcome_of(tmp_path / "s", SPEC, 0)
    assert found is not None
    assert found.device_seconds == 20.0


@pytest.mark.parametrize(("pauses", "seed", "ended"), [(True, 0, 1), (False, 0, 0), (True, 1, 0)])
def test_a_pause_ends_the_runs_of_a_specification_that_pauses(
    tmp_path: Path, pauses: bool, seed: int, ended: bool
) -> None:
    paused = {"step": 4, "status": "paused", "score": 2.5, "metrics": {"web/bpb": 2.0}}
    write_json(run(tmp_path, f"trial-0003-{seed}") / "paused.json", paused)
    found = outcome_of(tmp_path, replace(SPEC, rung=300.0, pauses=pauses), seed)
    assert (found is not None) is bool(ended)
    if found is not None:
        assert (found.status, found.low_score, found.low_metrics) == (
            "paused",
            2.5,
            {"web/bpb": 2.0},
        )


def test_a_pause_without_metrics_has_none_at_the_rung(tmp_path: Path) -> None:
    paused = {"step": 4, "status": "paused", "score": 2.5, "metrics": None}
    write_json(run(tmp_path) / "paused.json", paused)
    found = outcome_of(tmp_path, replace(SPEC, rung=300.0, pauses=True), 0)
    assert found is not None
    assert (found.low_score, found.low_metrics) == (2.5, {})


def scored(tmp_path: Path, *tokens: float) -> None:
    record = RunRecord(run(tmp_path))
    for step, count in enumerate(tokens):
        metrics = {"web": {"bpb": {"value": 2.0 + step}}, "math": {"acc": {"value": None}}}
        record.add_scores({"step": step, "tokens": count, "score": 3.0 + step, "metrics": metrics})
    result(record.path)


@pytest.mark.parametrize(
    ("tokens", "step"),
    [
        ((100.0, 300.0, 900.0), 1),
        ((100.0, 299.6, 900.0), 1),
        ((100.0, 300.4, 900.0), 1),
        ((300.0, 300.25), 0),
        ((299.5, 300.5, 900.0), None),
        ((100.0, 900.0), None),
        ((), None),
    ],
)
def test_a_full_run_passed_the_rung_within_half_a_token(
    tmp_path: Path, tokens: tuple[float, ...], step: int | None
) -> None:
    scored(tmp_path, *tokens)
    found = outcome_of(tmp_path, replace(SPEC, rung=300.0), 0)
    assert found is not None
    if step is None:
        assert (found.low_score, found.low_metrics) == (None, {})
    else:
        assert found.low_score == 3.0 + step
        assert found.low_metrics == {"web/bpb": 2.0 + step, "math/acc": None}


@pytest.mark.parametrize(("status", "rung"), [("failed", 300.0), ("done", None)])
def test_no_rung_was_passed_by_a_failed_run_or_without_a_rung(
    tmp_path: Path, status: str, rung: float | None
) -> None:
    scored(tmp_path, 300.0)
    result(tmp_path / "trial-0003-0", status=status)
    found = outcome_of(tmp_path, replace(SPEC, rung=rung), 0)
    assert found is not None
    assert (found.low_score, found.low_metrics) == (None, {})


def test_a_checkpoint_without_metrics_has_its_score_at_the_rung(tmp_path: Path) -> None:
    record = RunRecord(run(tmp_path))
    record.add_scores({"step": 1, "tokens": 300, "score": 3.0, "metrics": None})
    result(record.path)
    found = outcome_of(tmp_path, replace(SPEC, rung=300.0), 0)
    assert found is not None
    assert (found.low_score, found.low_metrics) == (3.0, {})


def test_runs_that_ended_have_outcomes_by_seed(tmp_path: Path) -> None:
    for seed in (0, 2):
        result(run(tmp_path, f"trial-0003-{seed}"), score=float(seed))
    found = outcomes_of(tmp_path, SPEC, (0, 1, 2))
    assert {seed: (one.seed, one.score) for seed, one in found.items()} == {
        0: (0, 0.0),
        2: (2, 2.0),
    }


# ------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("status", "kinds", "again"),
    [
        ("failed", (), True),
        ("failed", ("started", "failed"), True),
        ("failed", ("started", "diverged", "failed"), False),
        ("failed", ("diverged",), False),
        ("done", (), False),
        ("pruned", (), False),
    ],
)
def test_a_failed_run_may_be_tried_again_unless_it_diverged(
    tmp_path: Path, status: str, kinds: tuple[str, ...], again: bool
) -> None:
    record = RunRecord(run(tmp_path))
    for kind in kinds:
        record.event(kind)
    assert may_be_tried_again(outcome(None, status=status), record.path) is again


def test_a_failure_alone_is_forgotten(tmp_path: Path) -> None:
    forget_failure(tmp_path)
    result(tmp_path)
    forget_failure(tmp_path)
    assert (tmp_path / "result.json").exists()
    result(tmp_path, status="failed")
    forget_failure(tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_a_failure_is_in_the_events_the_manifest_and_the_result(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    write_failure(record.path, "out of memory")
    assert [(e["kind"], e["reason"]) for e in record.events()] == [("failed", "out of memory")]
    assert (record.status, record.manifest.reason) == ("failed", "out of memory")
    stored = read_json(record.path / "result.json")
    assert {k: v for k, v in stored.items() if k != "content_sha256"} == {
        "status": "failed",
        "reason": "out of memory",
        "score": None,
        "metrics": {},
    }


def test_runs_refused_before_they_had_a_record_are_listed_with_their_reasons(
    tmp_path: Path,
) -> None:
    for number, values in enumerate(({"reason": "first"}, {}, {"status": "done"})):
        write_trial_spec(tmp_path, replace(SPEC, number=9 - number), 0)
        result(tmp_path / f"trial-{9 - number:04d}-0", **{"status": "failed", **values})
    write_trial_spec(tmp_path, replace(SPEC, number=1), 0)  # no result
    result(run(tmp_path, "trial-0002-0"), status="failed")  # no specification
    write_trial_spec(tmp_path, replace(SPEC, number=4), 0)
    result(tmp_path / "trial-0004-0", status="failed")
    (tmp_path / "trial-0004-0/manifest.json").touch()
    write_trial_spec(tmp_path, replace(SPEC, number=5), 0)
    (tmp_path / "trial-0005-0/result.json").write_text("{}")  # damaged: no status
    found = refused_in(tmp_path)
    assert list(found.items()) == [
        ("trial-0008-0", "no reason was recorded"),
        ("trial-0009-0", "first"),
    ]
    assert refused_in(tmp_path / "missing") == {}


def test_a_pruned_run_has_an_outcome_of_its_own_seed(tmp_path: Path) -> None:
    path = run(tmp_path, "trial-0003-5")
    assert outcome_of(tmp_path, SPEC, 5) is None
    write_json(path / "pruned.json", {"reason": "behind"})
    assert outcome_of(tmp_path, SPEC, 5) == outcome(
        None, seed=5, status="pruned", reason="behind", direction=None, tokens=0.0
    )


def test_a_run_is_held_by_a_lock_here_or_a_lease_of_another_host(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    lock = FileLock(tmp_path / "lock")
    with lock:
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    write_json(tmp_path / "holder.json", {"host": "another", "pid": 1, "token": "t", "beat": 3})
    assert is_held(tmp_path)
