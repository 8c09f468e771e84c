"""Check what a run and a study bring to ``ablate diff``, from records with stated numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.errors import DataError
from ablations.record.run_record import RunRecord
from sweeps.study.objective import Objective
from sweeps.verdict import side_by_side
from sweeps.verdict.side_by_side import Measured, Side, changed_metrics, read_side, sources_of
from sweeps.verdict.verdict_record import NoiseRow, write_verdict
from tests.oracles.verdicts import candidate, quality, task_row, verdict

ITEMS = "the noise of a task is that of its items alone; training noise comes on top"

ROWS = (
    {"arc": {"acc": {"value": 9.0}}},
    {"arc": {"acc": {"value": 8.0}}},
    {
        "arc": {
            "acc": {"value": 0.5, "stderr": 0.1, "higher_is_better": True},
            "gone": {"value": None},
        },
        "wiki": {"bpb": {"value": 2.0, "higher_is_better": False}, "odd": {"value": 0.0}},
    },
)


def record(
    runs_dir: Path,
    *,
    config: dict[str, Any] | None = None,
    rows: tuple[dict[str, Any], ...] = ROWS,
    result: dict[str, Any] | None = None,
) -> RunRecord:
    made = RunRecord.create(runs_dir, study="web", trial="mix", seed=3, config=config or {})
    for step, metrics in enumerate(rows):
        made.add_scores({"step": step, "tokens": step, "metrics": metrics})
    if result is not None:
        made.set_status("done")
        made.write_result({"status": "done", **result})
    return made


def noise(run_sd: float | None) -> NoiseRow:
    return NoiseRow(
        source="seeds",
        run_sd=run_sd,
        df=6.0,
        item_error=None,
        blocked=False,
        bootstrap=None,
        permutation_p=None,
    )


@pytest.mark.parametrize("by", ["name", "path"])
def test_a_run_brings_its_last_scores_with_the_noise_of_their_items(
    tmp_path: Path, by: str
) -> None:
    config = {"mixture": {"weights": {"edu": 0.75, "dclm": 0.25}}}
    made = record(tmp_path, config=config, result={"score": 1.5, "direction": "minimize"})
    found = read_side(tmp_path, "web/mix-3" if by == "name" else str(made.path))
    assert found == Side(
        name="web/mix-3",
        kind="run",
        what="trial mix, seed 3",
        config=config,
        weights={"edu": 0.75, "dclm": 0.25},
        metrics={
            "score": Measured(value=1.5, error=None, higher_is_better=False),
            "arc/acc": Measured(value=0.5, error=0.1, higher_is_better=True),
            "wiki/bpb": Measured(value=2.0, error=None, higher_is_better=False),
            "wiki/odd": Measured(value=0.0, error=None, higher_is_better=True),
        },
        notes=(
            ITEMS,
            "the noise of the score of web/mix-3 is unknown: its study has no verdict",
        ),
    )
    assert next(iter(found.metrics)) == "score"


def test_a_run_that_has_not_ended_says_so_and_has_no_score(tmp_path: Path) -> None:
    record(tmp_path, rows=()).set_status("failed", "broke")
    found = read_side(tmp_path, "web/mix-3")
    assert (dict(found.metrics), dict(found.weights)) == ({}, {})
    assert found.notes[0] == ITEMS
    assert found.notes[2:] == ("web/mix-3 is failed",)


def test_a_run_without_weights_has_no_mixture(tmp_path: Path) -> None:
    record(tmp_path, config={"mixture": {"weights": None}}, result={"score": 1.0})
    assert read_side(tmp_path, "web/mix-3").weights == {}


@pytest.mark.parametrize(
    ("declared", "recorded", "higher"),
    [
        (None, "minimize", False),
        (None, "maximize", True),
        ("maximize", "minimize", True),
        ("minimize", "maximize", False),
        ("minimize", None, False),
        (None, None, True),
    ],
)
def test_the_direction_that_the_study_declares_comes_before_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: Any, recorded: Any, higher: bool
) -> None:
    record(tmp_path, result={"score": 1.0, "direction": recorded})
    objective = Objective(direction=declared)
    monkeypatch.setattr(side_by_side, "objective_of", lambda folder: objective)
    assert read_side(tmp_path, "web/mix-3").metrics["score"].higher_is_better == higher


@pytest.mark.parametrize(("run_sd", "notes"), [(0.5, 1), (None, 2)])
def test_the_noise_of_a_run_s_score_is_that_of_its_study_s_verdict(
    tmp_path: Path, run_sd: float | None, notes: int
) -> None:
    record(tmp_path, result={"score": 1.0, "direction": "maximize"})
    write_verdict(tmp_path / "web", verdict(noise=noise(run_sd)))
    found = read_side(tmp_path, "web/mix-3")
    assert found.metrics["score"] == Measured(value=1.0, error=run_sd, higher_is_better=True)
    assert len(found.notes) == notes


def test_a_study_brings_its_pick_whose_noise_shrinks_with_its_seeds(tmp_path: Path) -> None:
    record(tmp_path, result={"score": 1.0})
    kept = verdict(
        direction="minimize",
        candidates=(
            candidate("base", mean=9.0),
            candidate("mix", mean=2.5, weights={"edu": 1.0}),
        ),
        tasks=(
            task_row("arc", pick=0.75),
            task_row("gone", pick=None),
            task_row("wiki", metric="bpb", pick=1.25),
            task_row("own", metric="home_made", pick=0.0),
        ),
        signal=(quality("arc/acc", noise_sd=0.2), quality("wiki/bpb")),
        noise=noise(0.5),
    )
    write_verdict(tmp_path / "web", kept)
    assert read_side(tmp_path, "web") == Side(
        name="web",
        kind="study",
        what="winner: mix, 4 seeds",
        config={},
        weights={"edu": 1.0},
        metrics={
            "score": Measured(value=2.5, error=0.25, higher_is_better=False),
            "arc/acc": Measured(value=0.75, error=0.1, higher_is_better=True),
            "wiki/bpb": Measured(value=1.25, error=None, higher_is_better=False),
            "own/home_made": Measured(value=0.0, error=None, higher_is_better=True),
        },
    )


@pytest.mark.parametrize(("seeds", "what"), [((), "1 seed"), ((7,), "1 seed"), ((0, 1), "2 seeds")])
def test_a_pick_without_seeds_counts_as_one_run(
    tmp_path: Path, seeds: tuple[int, ...], what: str
) -> None:
    record(tmp_path, result={"score": 1.0})
    rows = (candidate("base"), candidate("mix", seeds=seeds))
    write_verdict(tmp_path / "web", verdict(candidates=rows, noise=noise(2.0)))
    found = read_side(tmp_path, "web")
    assert found.what == f"winner: mix, {what}"
    assert found.metrics["score"].error == pytest.approx(2.0 / max(1, len(seeds)) ** 0.5)


def test_a_study_of_unknown_noise_says_so(tmp_path: Path) -> None:
    record(tmp_path, result={"score": 1.0})
    write_verdict(tmp_path / "web", verdict(noise=noise(None)))
    found = read_side(tmp_path, "web")
    assert found.metrics["score"].error is None
    assert found.notes == ("the noise of web is unknown",)


def test_a_folder_without_runs_is_no_study(tmp_path: Path) -> None:
    record(tmp_path, result={"score": 1.0})
    (tmp_path / "wab").mkdir()
    with pytest.raises(DataError, match="did you mean 'web'"):
        read_side(tmp_path, "wab")


def one(value: float, error: float | None) -> Side:
    metrics = {"score": Measured(value=value, error=error, higher_is_better=True)}
    return Side(name="x", kind="run", what="", config={}, weights={}, metrics=metrics)


@pytest.mark.parametrize(
    ("first", "second", "noise", "reading"),
    [
        (0.3, 0.4, 1.96 * 0.5, "within noise"),
        (0.3, None, None, "noise unknown"),
        (None, 0.4, None, "noise unknown"),
        (0.3, 0.3999, pytest.approx(0.98, abs=1e-3), "better"),
    ],
)
def test_the_noise_of_a_difference_needs_that_of_both_sides(
    first: float | None, second: float | None, noise: float | None, reading: str
) -> None:
    """A difference as large as its noise is within it."""
    (change,) = changed_metrics(one(0.0, first), one(1.96 * 0.5, second))
    assert (change.noise, change.reading) == (noise, reading)
    assert (change.first, change.second) == (0.0, 0.98)


def test_sources_of_both_mixtures_come_once_in_their_order() -> None:
    sides = [
        Side(name="x", kind="run", what="", config={}, weights=weights, metrics={})
        for weights in ({"b": 1.0, "a": 1.0}, {"c": 1.0, "a": 1.0})
    ]
    assert sources_of(sides) == ["b", "a", "c"]
