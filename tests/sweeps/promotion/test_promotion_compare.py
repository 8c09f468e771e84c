"""What the proxies predicted and what the full run did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import UserError
from ablations.runs import RunRecord, list_runs
from ablations.schema import RunConfig, dump, load
from sweeps.promotion.changes import rank_correlation
from sweeps.promotion.compare import after_run, compare, write_comparison
from sweeps.promotion.promote import promote
from tests.sweeps.promotion.conftest import FULL, GOOD, PLAIN, TASKS, MadeStudy, composed

GAINS = {task: 0.1 * place for place, task in enumerate(TASKS)}


@pytest.fixture
def promoted(workspace: Path) -> Path:
    """A promotion of a study whose winner gains on some tasks more than on others."""
    made = MadeStudy(workspace / "runs", run_sd=0.002)
    for seed in (0, 1):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD, effect=GAINS)
    made.judge()
    values = composed(*FULL, config="promote")
    values.pop("compare")
    return promote(values).folder


def full_run(folder: Path, trial: str, effect: dict[str, float] | float) -> RunRecord:
    """A finished full run, its scores drawn around ``effect``."""
    values = composed(*(o for o in FULL if not o.startswith(("full=", "promotion."))))
    values.update(study=folder.name, trial=trial)
    values["mixture"]["weights"] = GOOD
    config: RunConfig = load(values)
    record = RunRecord.create(
        Path("runs"), study=folder.name, trial=trial, seed=0, config=dump(config)
    )
    MadeStudy(Path("runs"), run_sd=0.002).finish(record, config, effect=effect)
    return record


def test_a_prediction_that_came_true_is_told_so(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    found = compare(promoted, Path("runs"))
    assert found.basis == "over the run"
    assert found.correlation == pytest.approx(1.0, abs=0.12)
    assert found.correlation is not None
    assert found.interval is not None
    assert found.interval[0] <= found.correlation <= found.interval[1]
    assert found.same_direction == 1.0
    assert len(found.rows) == len(TASKS)
    assert found.audit_gaps == ()
    assert found.unseen == ()


def test_sources_that_no_proxy_read_are_named(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    for proxy in list_runs(Path("runs"), "proxies"):
        audit = proxy.audit()
        assert audit is not None
        rows = [row for row in audit["stages"] if row["source"] != "synthetic_junk"]
        proxy.write_audit({**audit, "stages": rows})
    found = compare(promoted, Path("runs"))
    assert found.unseen == ("synthetic_junk",)
    assert "by no proxy, so not foretold: synthetic_junk." in found.text()


def test_a_prediction_that_failed_is_told_so(promoted: Path) -> None:
    full_run(promoted, "full", {task: 0.5 - gain for task, gain in GAINS.items()})
    found = compare(promoted, Path("runs"))
    assert found.correlation == pytest.approx(-1.0, abs=0.12)


def test_with_a_full_baseline_the_change_is_against_it(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    full_run(promoted, "baseline", 0.0)
    found = compare(promoted, Path("runs"))
    assert found.basis == "against the baseline"
    assert found.correlation == pytest.approx(1.0, abs=0.12)


def test_the_comparison_is_kept_and_told(
    promoted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = full_run(promoted, "full", GAINS)
    after_run({"after": {"promotion": str(promoted)}}, record)
    said = capsys.readouterr().out
    assert "Rank correlation of per-task change over the run" in said
    kept = json.loads((promoted / "comparison.json").read_text())
    assert kept["correlation"] is not None
    assert (promoted / "comparison.md").read_text() in said


def test_a_promotion_that_moved_stops_nothing(
    promoted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = full_run(promoted, "full", GAINS)
    after_run({"after": {"promotion": str(promoted / "elsewhere")}}, record)
    assert "was moved away" in capsys.readouterr().out


def test_a_full_run_that_has_not_finished_is_told(promoted: Path) -> None:
    with pytest.raises(UserError, match="has not finished"):
        compare(promoted, Path("runs"))


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
