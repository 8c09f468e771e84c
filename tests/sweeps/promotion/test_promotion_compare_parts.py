"""Check each step of the comparison with a full run, on records that hold nothing but what it reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.files import read_json, write_json
from ablations.record.run_record import RunRecord
from sweeps.promotion.calibration import Calibration, calibration, keep_comparison
from sweeps.promotion.compare import (
    _differences,
    _finished,
    _mean,
    _outcome,
    _outcomes,
    _rows,
    _score,
    _seal,
    _shares,
    _unseen,
    _why_not,
    after_run,
)
from sweeps.promotion.sealed_prediction import Expected, digest
from tests.sweeps.promotion.test_promotion_compare import kept

# ------------------------------------------------------------------------------------------ the seal


def marked(*marks: str | None) -> list[Any]:
    labels = [{} if mark is None else {"prediction": mark} for mark in marks]
    return [SimpleNamespace(manifest=SimpleNamespace(labels=one)) for one in labels]


def test_a_seal_is_kept_by_full_runs_that_all_have_the_digest() -> None:
    stored = {"score": 1.0}
    mark = digest(stored)
    assert _seal(None, marked(mark)) == "none"
    assert _seal(stored, marked(mark, mark)) == "kept"
    assert _seal(stored, marked(mark, None)) == "unmarked"
    assert _seal(stored, marked(None)) == "unmarked"
    assert _seal(stored, marked("other")) == "broken"
    assert _seal(stored, marked(mark, "other")) == "broken"


# ------------------------------------------------------------------------------------- the intervals


def expected(task: str, mean: float, **changes: Any) -> Expected:
    values: dict[str, Any] = {
        "task": task,
        "metric": "bpb",
        "proxies": mean,
        "error": 0.1,
        "mean": mean,
        "low": mean - 1.0,
        "high": mean + 1.0,
        "signal": True,
    }
    return Expected(**{**values, **changes})


@pytest.mark.parametrize(
    ("realised", "held"), [(0.25, True), (0.75, True), (0.2499, False), (0.7501, False)]
)
def test_an_interval_holds_with_both_its_ends(realised: float, held: bool) -> None:
    found = _outcome(expected("t", 0.5, low=0.25, high=0.75), realised)
    assert found.held is held
    assert (found.task, found.metric, found.mean) == ("t", "bpb", 0.5)
    assert (found.low, found.high, found.realised) == (0.25, 0.75, realised)


def prediction(*tasks: Expected, score: Expected | None) -> Any:
    return SimpleNamespace(tasks=tasks, score=score, not_comparable={"new/bpb": "no proxy read it"})


def test_outcomes_are_the_score_then_tasks_by_size_and_the_rest_has_reasons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    realised = {"score": 0.5, "small/bpb": 0.1, "falls/bpb": -2.0, "large/bpb": 3.0, "x/bpb": 1.0}
    monkeypatch.setattr("sweeps.promotion.compare._differences", lambda *_: realised)
    made = prediction(
        expected("small", 0.1),
        expected("falls", -2.0),
        expected("noise", 9.0, signal=False),
        expected("gone", 5.0),
        expected("large", 3.0, low=None),
        score=expected("score", 0.5, metric="", signal=False),
    )
    run: Any = SimpleNamespace()
    outcomes, left_out = _outcomes(made, run, run)
    assert [(one.task, one.realised) for one in outcomes] == [
        ("score", 0.5),
        ("large", 3.0),
        ("falls", -2.0),
        ("small", 0.1),
    ]
    assert left_out == {
        "new/bpb": "no proxy read it",
        "noise/bpb": "without signal: the proxies' noise is larger than their difference",
        "gone/bpb": "not scored by both full runs",
    }


def test_without_a_baseline_nothing_is_tested_and_only_noise_is_left_out() -> None:
    run: Any = SimpleNamespace()
    made = prediction(expected("a", 1.0), expected("b", 1.0, signal=False), score=None)
    outcomes, left_out = _outcomes(made, None, run)
    assert outcomes == ()
    assert set(left_out) == {"new/bpb", "b/bpb"}
    assert _outcomes(None, run, run) == ((), {})


def scored(
    path: Path, score: float | None, ended: bool = True, **tasks: tuple[float, bool]
) -> RunRecord:
    """Return a record with one scored checkpoint: task → value, and whether more is better."""
    path.mkdir()
    record = RunRecord(path)
    metrics = {
        task: {"m": {"value": value, "higher_is_better": higher}}
        for task, (value, higher) in tasks.items()
    }
    record.add_scores({"step": 1, "tokens": 8, "metrics": metrics})
    if ended:
        record.write_result({"status": "done", "score": score, "metrics": {}})
    return record


def objective(direction: str) -> Any:
    score = SimpleNamespace(value=lambda result: result.get("score"))
    return SimpleNamespace(objective=score, direction=direction)


def test_differences_are_full_minus_baseline_for_the_better(tmp_path: Path) -> None:
    full = scored(tmp_path / "a", 2.0, up=(0.75, True), down=(2.0, False), own=(1.0, True))
    base = scored(tmp_path / "b", 2.5, up=(0.5, True), down=(2.5, False), other=(1.0, True))
    assert _differences(objective("minimize"), base, full) == {
        "up/m": 0.25,
        "down/m": 0.5,
        "score": 0.5,
    }
    assert _differences(objective("maximize"), base, full)["score"] == -0.5


@pytest.mark.parametrize(
    ("full", "base"), [((None, True), (2.0, True)), ((2.0, True), (None, True))]
)
@pytest.mark.parametrize("lost", [True, False])
def test_a_score_that_one_run_lacks_has_no_difference(
    tmp_path: Path, full: tuple[float | None, bool], base: tuple[float | None, bool], lost: bool
) -> None:
    runs = [
        scored(tmp_path / name, score, ended=not lost or score is not None, t=(1.0, True))
        for name, (score, _) in (("a", full), ("b", base))
    ]
    assert _differences(objective("minimize"), runs[1], runs[0]) == {"t/m": 0.0}


# ------------------------------------------------------------------------------------ what was read


def audited(*rows: tuple[str, float], tolerance: float = 0.01) -> Any:
    """Return a run whose audit has these sources and windows."""
    stages = [{"source": source, "windows": windows} for source, windows in rows]
    config = {"mixture": {"audit_tolerance": tolerance}}
    return SimpleNamespace(
        audit=lambda: {"stages": stages}, manifest=SimpleNamespace(config=config)
    )


def test_shares_are_of_the_windows_of_all_stages() -> None:
    assert _shares(audited(("a", 30), ("b", 0), ("c", 20), ("a", 50))) == {"a": 0.8, "c": 0.2}
    nothing: Any = SimpleNamespace(audit=lambda: None)
    assert _shares(nothing) == {}


def test_a_source_is_unseen_if_no_proxy_read_it() -> None:
    full = audited(("a", 20), ("b", 30), ("c", 50))
    assert _unseen(full, [audited(("a", 1)), audited(("d", 1), ("c", 0))]) == {"b": 0.3, "c": 0.5}
    assert _unseen(full, [audited(("a", 1), ("b", 1)), audited(("c", 1))]) == {}


def test_a_full_run_alone_is_not_compared_if_it_read_something_else() -> None:
    full = audited(("a", 875), ("b", 125))
    assert _why_not({}, full, None) is None
    assert _why_not({}, full, audited(("a", 1))) is None
    said = _why_not({"b": 0.125, "c": 0.25}, full, None)
    assert said is not None
    assert said.startswith("the full run read b (12.5% of its tokens), c (25.0% of its tokens), ")


@pytest.mark.parametrize(
    ("theirs", "alike"),
    [(0.2, True), (0.2215, True), (0.1785, True), (0.2225, False), (0.1775, False), (0.0, False)],
)
def test_two_full_runs_read_alike_within_both_their_tolerances(theirs: float, alike: bool) -> None:
    """Twice the tolerance of 1%, and 0.2% more."""
    full = audited(("a", 0.8), ("b", 0.2))
    said = _why_not({"b": 0.2}, full, audited(("a", 1.0 - theirs), ("b", theirs)))
    if alike:
        assert said is None
    else:
        shares = f"b (20.0% and {theirs:.1%})"
        assert said == (
            f"no proxy read {shares}, and winner and baseline read different shares of it"
        )


def test_a_source_that_only_the_baseline_lacks_is_named_alone() -> None:
    full = audited(("a", 0.4), ("b", 0.3), ("c", 0.3))
    said = _why_not({"b": 0.3, "c": 0.3}, full, audited(("a", 0.7), ("b", 0.3)))
    assert said is not None
    assert "no proxy read c (30.0% and 0.0%), and" in said
    assert "b (" not in said


# ------------------------------------------------------------------------------------------- tables


def test_rows_are_of_equal_metrics_largest_gain_first() -> None:
    before = {
        "a": ("bpb", 0.1),
        "b": ("bpb", 0.3),
        "c": ("acc", 0.9),
        "d": ("bpb", 0.8),
        "e": ("bpb", -0.2),
        "f": ("bpb", 0.7),
    }
    after = {task: ("bpb", change / 10.0) for task, (_, change) in before.items() if task != "f"}
    rows = _rows(before, after, {"d/bpb": "noise", "b/acc": "another metric"})
    assert [(one.task, one.metric, one.predicted) for one in rows] == [
        ("b", "bpb", 0.3),
        ("a", "bpb", 0.1),
        ("e", "bpb", -0.2),
    ]
    assert [one.realised for one in rows] == pytest.approx([0.03, 0.01, -0.02])


def test_scores_are_numbers_or_missing(tmp_path: Path) -> None:
    assert _score(scored(tmp_path / "a", 2.5)) == 2.5
    assert _score(scored(tmp_path / "b", None)) is None
    assert _score(scored(tmp_path / "c", 2.5, ended=False)) is None
    assert _mean([1.0, None, 2.0, 6.0]) == 3.0
    assert _mean([None]) is None
    assert _mean([]) is None


def full_run(runs_dir: Path, trial: str, *, seed: int = 0, status: Any = "done") -> RunRecord:
    record = RunRecord.create(runs_dir, study="promoted", trial=trial, seed=seed, config={})
    record.set_status(status)
    return record


def test_the_first_finished_run_of_a_trial_is_taken(tmp_path: Path) -> None:
    full_run(tmp_path, "baseline")
    full_run(tmp_path, "full", status="training")
    assert _finished(tmp_path, "promoted", "full") is None
    for seed in (2, 1):
        full_run(tmp_path, "full", seed=seed)
    found = _finished(tmp_path, "promoted", "full")
    assert found is not None
    assert found.path.name == "full-1"


@pytest.mark.parametrize(
    ("trial", "full", "compared"),
    [("full", False, True), ("baseline", False, False), ("baseline", True, True)],
)
def test_a_comparison_waits_for_the_promoted_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trial: str,
    full: bool,
    compared: bool,
) -> None:
    folder, runs_dir = tmp_path / "promotions/promoted", tmp_path / "runs"
    folder.mkdir(parents=True)
    (folder / "promotion.json").write_text("{}")
    calls: list[Any] = []

    def compare(*given: Path) -> Any:
        calls.append(given)
        return SimpleNamespace(text=lambda: "the comparison")

    monkeypatch.setattr("sweeps.promotion.compare.compare", compare)
    monkeypatch.setattr(
        "sweeps.promotion.compare.write_comparison", lambda folder, found: f"{folder.name}, kept"
    )
    record = full_run(runs_dir, trial, status="scoring")
    if full:
        full_run(runs_dir, "full")
    after_run({"after": {"promotion": str(folder)}}, record)
    said = capsys.readouterr().out
    if compared:
        assert calls == [(folder, runs_dir)]
        assert said == "the comparison\nkept as promoted, kept\n"
    else:
        assert calls == []
        assert said == "no comparison yet: the promoted run itself has not finished\n"


# --------------------------------------------------------------------------------------- calibration


def test_a_calibration_says_how_many_intervals_held() -> None:
    empty = Calibration()
    assert vars(empty) == {
        "promotions": 0,
        "scores": 0,
        "scores_held": 0,
        "tasks": 0,
        "tasks_held": 0,
        "unreadable": (),
    }
    assert empty.text("runs") == (
        "Calibration in runs: no sealed interval has been put to the test yet."
    )
    one = Calibration(promotions=1, scores=4, scores_held=3, tasks=9, tasks_held=7)
    counts = "3 of 4 intervals of scores and 7 of 9 of tasks held, over 1 promotion"
    assert one.text("runs") == f"Calibration in runs: {counts} (about 90% should)."
    two = Calibration(promotions=2, unreadable=("a", "b"))
    assert two.text("runs").endswith("2 promotions (about 90% should); not readable: a, b.")


def test_a_comparison_is_kept_beside_full_runs_that_are_there(tmp_path: Path) -> None:
    keep_comparison(tmp_path, "missing", {"a": 1})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    for value in (1, 2):
        keep_comparison(tmp_path, "there", {"a": value})
        assert read_json(tmp_path / "there/comparison.json")["a"] == value


def test_comparisons_are_counted_by_kind_and_what_cannot_be_read_is_listed_in_order(
    tmp_path: Path,
) -> None:
    names = [f"p{place:02d}" for place in (3, 11, 0, 7, 5, 9, 1, 8, 2, 10, 4, 6)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_text("{")
    tested = kept("good", ("score", False), ("a", True), ("b", True), ("c", None))
    (tmp_path / "good").mkdir()
    write_json(tmp_path / "good/comparison.json", tested)
    untested = kept("none", ("score", None))
    (tmp_path / "none").mkdir()
    write_json(tmp_path / "none/comparison.json", untested)
    found = calibration(tmp_path, kept("new", ("score", True), ("a", False), seal="kept"))
    assert (found.promotions, found.scores, found.scores_held) == (2, 2, 1)
    assert (found.tasks, found.tasks_held) == (3, 2)
    assert found.unreadable == tuple(
        str(tmp_path / name / "comparison.json") for name in sorted(names)
    )
    broken = calibration(tmp_path / "empty", kept("new", ("score", True), seal="broken"))
    assert broken == Calibration()
