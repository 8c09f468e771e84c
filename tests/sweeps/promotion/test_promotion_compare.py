"""Comparison of the full run with the prediction of the proxies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ablations.config.schema import RunConfig, dump, load
from ablations.errors import UserError
from ablations.files import read_json
from ablations.record.run_record import RunRecord, list_runs
from sweeps.promotion.calibration import calibration, keep_comparison
from sweeps.promotion.changes import Values, changes, mean_values, rank_correlation
from sweeps.promotion.compare import _outcome, _rows, after_run, compare, write_comparison
from sweeps.promotion.promote import promote
from sweeps.promotion.sealed_prediction import Expected
from tests.sweeps.promotion.conftest import FULL, GOOD, PLAIN, TASKS, MadeStudy, composed

GAINS = {task: 0.1 * place for place, task in enumerate(TASKS)}


@pytest.fixture
def promoted(workspace: Path) -> Path:
    """Promote a study whose winner gains more on some tasks than on others."""
    made = MadeStudy(workspace / "runs", run_sd=0.002)
    for seed in (0, 1):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD, effect=GAINS)
    made.judge()
    values = composed(*FULL, config="promote")
    values.pop("compare")
    return promote(values).folder


def full_run(
    folder: Path, trial: str, effect: dict[str, float] | float, *, marked: bool = True
) -> RunRecord:
    """Write a finished full run, its scores drawn around ``effect``, with the labels of its experiment."""
    values = composed(*(o for o in FULL if not o.startswith(("full=", "promotion."))))
    values.update(study=folder.name, trial=trial)
    values["mixture"]["weights"] = GOOD if trial == "full" else PLAIN
    config: RunConfig = load(values)
    name = "promoted" if trial == "full" else trial
    experiment = yaml.safe_load((folder / "conf" / "experiment" / f"{name}.yaml").read_text())
    record = RunRecord.create(
        Path("runs"),
        study=folder.name,
        trial=trial,
        seed=0,
        config=dump(config),
        labels=experiment["labels"] if marked else {},
    )
    MadeStudy(Path("runs"), run_sd=0.002).finish(record, config, effect=effect)
    return record


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite ``promotion.json`` without its checksum, as in a deliberate edit."""
    record = read_json(folder / "promotion.json")
    change(record)
    (folder / "promotion.json").write_text(json.dumps(record))


def without_junk(records: Iterable[RunRecord]) -> None:
    """Remove a source from the audits, as if these runs had never read it."""
    for record in records:
        audit = record.audit()
        assert audit is not None
        rows = [row for row in audit["stages"] if row["source"] != "synthetic_junk"]
        record.write_audit({**audit, "stages": rows})


def test_without_a_full_baseline_only_learning_progress_is_compared(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    found = compare(promoted, Path("runs"))
    assert found.basis == "over the run"
    assert found.correlation == pytest.approx(1.0, abs=0.12)
    assert found.interval is not None
    assert found.interval[0] <= found.correlation <= found.interval[1]
    assert found.same_direction == 1.0
    assert found.outcomes == ()  # nothing that was sealed can be put to the test
    assert found.calibration.promotions == 0
    assert "experiment=baseline" in found.text()
    assert found.audit_gaps == ()
    assert found.unseen == {}


def test_differences_between_mixtures_lead_and_sealed_intervals_are_tested(promoted: Path) -> None:
    stored = json.loads((promoted / "promotion.json").read_text())["prediction"]
    # The winner gains what the prediction expects at full size, plus the noise of the runs.
    expected = {row["task"]: row["mean"] for row in stored["tasks"]}
    full, other = full_run(promoted, "full", expected), full_run(promoted, "baseline", 0.0)
    found = compare(promoted, Path("runs"))
    assert (found.basis, found.seal, found.not_comparable) == ("against the baseline", "kept", None)
    score = found.outcomes[0]
    assert score.task == "score"
    ours, theirs = (run.result() or {} for run in (full, other))
    assert score.realised == pytest.approx(theirs["score"] - ours["score"])  # lower is better
    assert score.mean == stored["score"]["mean"]
    for row in found.outcomes[1:]:
        key = f"{row.task}/{row.metric}"
        assert row.realised == pytest.approx(theirs["metrics"][key] - ours["metrics"][key])
    assert all(row.held for row in found.outcomes)
    count = found.calibration
    assert (count.promotions, count.scores, count.scores_held) == (1, 1, 1)
    assert (count.tasks, count.tasks_held) == (len(found.outcomes) - 1, len(found.outcomes) - 1)
    text = found.text()
    assert text.index("Winner minus baseline at full size") < text.index("Rank correlation")
    assert "learning progress" not in text


def test_an_interval_that_did_not_hold_is_reported(promoted: Path) -> None:
    full_run(promoted, "full", 2.0)
    full_run(promoted, "baseline", 0.0)
    found = compare(promoted, Path("runs"))
    assert [row.held for row in found.outcomes] == [False] * len(found.outcomes)
    assert found.calibration.scores_held == 0
    assert "**outside**" in found.text()


def test_tasks_without_signal_are_left_out(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    full_run(promoted, "baseline", 0.0)
    noisy = {"arc", "code"}

    def without_signal(record: dict[str, Any]) -> None:
        for row in record["prediction"]["tasks"]:
            row["signal"] = row["task"] not in noisy

    edited(promoted, without_signal)
    found = compare(promoted, Path("runs"))
    kept = set(TASKS) - noisy
    assert {row.task for row in found.outcomes} == {"score", *kept}
    assert {row.task for row in found.rows} == kept
    assert set(found.left_out) == {"arc/bpb", "code/bpb"}
    assert "without signal" in found.text()


@pytest.mark.parametrize(
    ("change", "marked", "seal"),
    [
        (lambda record: record["prediction"]["score"].update(low=-9.0, high=9.0), True, "broken"),
        (lambda record: None, False, "unmarked"),
        (lambda record: record.pop("prediction"), True, "none"),
    ],
    ids=["changed later", "began without it", "promoted before predictions were sealed"],
)
def test_only_a_prediction_that_was_there_first_counts(
    promoted: Path, change: Callable[[dict[str, Any]], None], marked: bool, seal: str
) -> None:
    full_run(promoted, "full", GAINS, marked=marked)
    full_run(promoted, "baseline", 0.0, marked=marked)
    edited(promoted, change)
    found = compare(promoted, Path("runs"))
    assert found.seal == seal
    assert found.calibration.promotions == 0
    assert found.correlation is not None


def test_a_source_that_no_proxy_read_makes_a_lone_full_run_not_comparable(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    without_junk(list_runs(Path("runs"), "proxies"))
    found = compare(promoted, Path("runs"))
    assert found.unseen == {"synthetic_junk": pytest.approx(0.1, abs=0.01)}
    assert found.not_comparable is not None
    assert (found.correlation, found.same_direction) == (None, None)
    assert "**Not comparable**: the full run read synthetic_junk (10.0%" in found.text()


def test_the_same_addition_to_both_full_runs_is_comparable(promoted: Path) -> None:
    full = full_run(promoted, "full", GAINS)
    other = full_run(promoted, "baseline", 0.0)
    without_junk(list_runs(Path("runs"), "proxies"))
    uneven = compare(promoted, Path("runs"))
    assert uneven.not_comparable is not None  # 10% of the winner's tokens, 50% of the baseline's
    assert "different shares" in uneven.not_comparable
    assert uneven.outcomes == ()
    assert uneven.calibration.promotions == 0
    alike = full.audit()
    assert alike is not None
    other.write_audit(alike)
    even = compare(promoted, Path("runs"))
    assert even.not_comparable is None
    assert len(even.outcomes) > 1
    assert "winner and baseline read it alike" in even.text()


def test_a_prediction_that_failed_correlates_negatively(promoted: Path) -> None:
    full_run(promoted, "full", {task: 0.5 - gain for task, gain in GAINS.items()})
    found = compare(promoted, Path("runs"))
    assert found.correlation == pytest.approx(-1.0, abs=0.12)


def test_the_comparison_is_stored_and_printed(
    promoted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = full_run(promoted, "full", GAINS)
    after_run({"after": {"kind": "comparison", "promotion": str(promoted)}}, record)
    printed = capsys.readouterr().out
    assert "Rank correlation over tasks of the relative learning progress over the run" in printed
    kept = json.loads((promoted / "comparison.json").read_text())
    assert kept["correlation"] is not None
    assert (promoted / "comparison.md").read_text() in printed
    assert json.loads((record.path.parent / "comparison.json").read_text()) == kept


def test_a_promotion_that_moved_stops_nothing(
    promoted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = full_run(promoted, "full", GAINS)
    after_run({"after": {"kind": "comparison", "promotion": str(promoted / "elsewhere")}}, record)
    assert "was moved away" in capsys.readouterr().out


def test_a_full_run_that_has_not_finished_is_refused(promoted: Path) -> None:
    with pytest.raises(UserError, match="has not finished"):
        compare(promoted, Path("runs"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged"), ("[]", "damaged"), ('{"name": "x"}', "damaged"), (None, "not a promotion")],
)
def test_what_is_no_promotion_is_refused(promoted: Path, content: str | None, message: str) -> None:
    path = promoted / "promotion.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        compare(promoted, Path("runs"))


def kept(promotion: str, *held: tuple[str, bool | None], seal: str = "kept") -> dict[str, Any]:
    """Return the part of a comparison that the calibration reads."""
    rows = [{"task": task, "held": value} for task, value in held]
    return {"promotion": promotion, "seal": seal, "outcomes": rows}


def test_the_calibration_counts_every_promotion_of_a_runs_folder(tmp_path: Path) -> None:
    for one in (
        kept("a", ("score", True), ("arc", True), ("math", False), ("code", None)),
        kept("b", ("score", False), ("arc", True)),
        kept("c", ("score", True), seal="broken"),
    ):
        (tmp_path / one["promotion"]).mkdir()
        keep_comparison(tmp_path, one["promotion"], one)
    for name, text in (("d", '{"promotion": "d"}'), ("e", "{"), ("f", "[1]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_text(text)
    found = calibration(tmp_path, kept("b", ("score", True), ("arc", False)))  # b, compared again
    assert (found.promotions, found.scores, found.scores_held) == (2, 2, 2)
    assert (found.tasks, found.tasks_held) == (3, 1)
    assert len(found.unreadable) == 3
    assert "2 of 2 intervals of scores and 1 of 3 of tasks held, over 2 promotions" in found.text(
        tmp_path
    )


def row(value: float | None, *, higher: bool = False) -> dict[str, Any]:
    return {"value": value, "higher_is_better": higher}


def test_a_metric_that_one_run_lacks_has_no_mean() -> None:
    rows = [
        {"metrics": {"a": {"bpb": row(1.0), "acc": row(0.2, higher=True)}}},
        {"metrics": {"a": {"bpb": row(3.0), "acc": row(None, higher=True)}}},
        {"metrics": {"a": {"bpb": row(5.0)}}},
    ]
    assert mean_values(rows) == {("a", "bpb"): (3.0, False)}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({("a", "bpb"): (2.0, False)}, {("a", "bpb"): (1.0, False)}, {"a": ("bpb", 0.5)}),
        (
            {("a", "acc"): (0.2, True)},
            {("a", "acc"): (0.3, True)},
            {"a": ("acc", pytest.approx(0.5))},
        ),
        # A negative value that rises has gained where more is better, whatever its sign.
        ({("a", "margin"): (-2.0, True)}, {("a", "margin"): (-1.0, True)}, {"a": ("margin", 0.5)}),
        ({("a", "nll"): (-2.0, False)}, {("a", "nll"): (-1.0, False)}, {"a": ("nll", -0.5)}),
        ({("a", "bpb"): (0.0, False)}, {("a", "bpb"): (1.0, False)}, {}),
        ({("a", "bpb"): (2.0, False)}, {("a", "acc"): (1.0, False)}, {}),
        # Bits per byte are preferred in any order of the metrics.
        (
            {("a", "acc"): (0.5, True), ("a", "bpb"): (2.0, False), ("a", "f1"): (0.5, True)},
            {("a", "acc"): (0.6, True), ("a", "bpb"): (1.0, False), ("a", "f1"): (0.1, True)},
            {"a": ("bpb", 0.5)},
        ),
        (
            {("a", "acc"): (0.5, True), ("a", "bpb"): (2.0, False)},
            {("a", "acc"): (0.6, True)},
            {"a": ("acc", pytest.approx(0.2))},
        ),
    ],
)
def test_changes_are_relative_for_the_better_and_of_one_metric(
    before: Values, after: Values, expected: dict[str, tuple[str, float]]
) -> None:
    assert changes(before, after) == expected


def test_only_the_same_metric_is_compared() -> None:
    found = _rows(
        {"a": ("bpb", 0.1), "b": ("acc", 0.2)}, {"a": ("acc", 0.3), "b": ("acc", 0.4)}, {}
    )
    assert [(one.task, one.predicted, one.realised) for one in found] == [("b", 0.2, 0.4)]


def test_too_few_tasks_give_no_correlation() -> None:
    assert rank_correlation([0.1, 0.2], [0.1, 0.2]) == (None, None)
    assert rank_correlation([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]) == (None, None)
    correlation, interval = rank_correlation([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert correlation == pytest.approx(1.0)
    assert interval is None


@given(st.lists(st.integers(-100, 100), min_size=5, max_size=12, unique=True))
def test_a_monotone_prediction_correlates_fully(values: list[int]) -> None:
    correlation, interval = rank_correlation(values, [2.0 * value**3 + 1.0 for value in values])
    assert correlation is not None
    assert correlation > 0.99
    assert interval is not None
    assert interval[1] <= 1.0 + 1e-9


def test_writing_twice_keeps_the_newest(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    found = compare(promoted, Path("runs"))
    write_comparison(promoted, found)
    assert write_comparison(promoted, found).read_text() == found.text()


@pytest.mark.parametrize(
    ("low", "high", "held"),
    [(0.1, 0.5, True), (0.3, 0.5, False), (0.0, 0.1, False), (None, 0.5, None), (0.1, None, None)],
)
def test_a_prediction_holds_if_the_realised_value_is_inside_its_interval(
    low: float | None, high: float | None, held: bool | None
) -> None:
    row = Expected(
        task="t", metric="m", proxies=0.3, error=0.1, mean=0.3, low=low, high=high, signal=True
    )
    assert _outcome(row, 0.2).held is held
