"""Check frames on hand-made records: odd, missing and out of order, with the values written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.frames import empty
from analysis.frames.build import (
    audits_frame,
    cost_frame,
    identity,
    label,
    runs_frame,
    sources_frame,
    tasks_frame,
    trials_frame,
)
from analysis.frames.columns import shaped
from analysis.frames.config_columns import parameters, planned_sources, total_tokens
from analysis.records import RunFiles


def run_of(
    run: str = "t-0",
    *,
    manifest: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    paused: Mapping[str, Any] | None = None,
) -> RunFiles:
    """Return the small files of a run that has no folder."""
    return RunFiles(
        folder=f"nowhere/s/{run}",
        study="s",
        run=run,
        manifest=manifest or {},
        result=result,
        audit=audit,
        paused=paused,
    )


def trials_of(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return the frame of trials by name."""
    return trials_frame(runs_frame(runs), cost_frame(runs)).set_index("trial", drop=False)


# --------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({}, None),
        ({"labels": None}, None),
        ({"labels": "name"}, None),
        ({"labels": {"name": None}}, None),
        ({"labels": {"name": ""}}, None),
        ({"labels": {"name": "natural"}}, "natural"),
        ({"labels": {"name": 0}}, "0"),
    ],
)
def test_an_empty_label_is_missing(manifest: dict[str, Any], expected: str | None) -> None:
    assert label(manifest, "name") == expected
    (found,) = runs_frame([run_of(manifest=manifest)])["name"]
    assert found == expected if expected else pd.isna(found)


@pytest.mark.parametrize(
    ("manifest", "result", "status", "reason"),
    [
        ({}, None, "pending", None),
        ({"status": "training", "reason": "old"}, None, "training", "old"),
        ({"status": "training", "reason": "old"}, {"status": "failed", "reason": "new"}, "failed", "new"),
        ({"status": "training"}, {"status": "failed", "reason": "new"}, "failed", "new"),
        ({"reason": "old"}, {"status": "done"}, "done", "old"),
        ({"status": "training"}, {"score": 1.0}, "training", None),
        ({"status": "scoring", "reason": 7}, {"status": None, "reason": None}, "scoring", "7"),
    ],
)  # fmt: skip
def test_what_a_result_says_of_a_run_counts_before_its_manifest(
    manifest: dict[str, Any],
    result: dict[str, Any] | None,
    status: str,
    reason: str | None,
) -> None:
    row = runs_frame([run_of(manifest=manifest, result=result)]).iloc[0]
    assert row["status"] == status
    assert row["reason"] == reason if reason else pd.isna(row["reason"])


def test_names_are_categories_in_order_whatever_the_order_of_the_runs() -> None:
    manifests: tuple[dict[str, Any], ...] = (
        {"trial": "b", "seed": 2},
        {"trial": "a", "seed": None},
        {},
    )
    runs = [run_of(f"r{n}", manifest=one) for n, one in zip((2, 1, 3), manifests, strict=True)]
    found = identity(runs, np.array([0, 0, 1, 2]))
    assert list(found["trial"]) == ["b", "b", "a", "r3"]
    assert list(found["trial"].categories) == ["a", "b", "r3"]
    assert list(found["run"].categories) == ["r1", "r2", "r3"]
    assert list(found["seed"].fillna(-1)) == [2, 2, -1, -1]


def test_a_run_without_a_command_has_an_empty_one() -> None:
    commands: tuple[Any, ...] = (None, [], ["ablate run", "a b"])
    frame = runs_frame([run_of(f"r{n}", manifest={"command": c}) for n, c in enumerate(commands)])
    assert frame["command"].tolist() == ["", "", "ablate run 'a b'"]


# -------------------------------------------------------------------------------------------- trials


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["done"], "done"),
        (["done", "done"], "done"),
        (["done", "failed"], "failed"),
        (["failed", "paused", "training"], "failed"),
        (["paused"], "paused"),
        (["paused", "done"], "paused"),
        (["paused", "done", "done"], "paused"),
        (["paused", "training"], "training"),
        (["paused", "pending"], "training"),
        (["done", "pending"], "training"),
        (["scoring"], "training"),
        (["training", "pending"], "training"),
        (["pending"], "pending"),
        (["pending", "pending"], "pending"),
    ],
)
def test_the_status_of_a_trial_follows_from_its_runs(statuses: list[str], expected: str) -> None:
    runs = [
        run_of(f"t-{n}", manifest={"trial": "t", "status": status})
        for n, status in enumerate(statuses)
    ]
    row = trials_of(runs).loc["t"]
    assert row["status"] == expected
    assert row["runs"] == len(statuses)
    assert (row["done"], row["failed"]) == (statuses.count("done"), statuses.count("failed"))


def test_a_trial_adds_up_its_runs_and_ends_with_the_last() -> None:
    def one(run: str, trial: str, finished: float | None, **result: Any) -> RunFiles:
        manifest = {"trial": trial, "status": "training", "finished": finished}
        return run_of(run, manifest=manifest, result=result or None)

    cost = {"flops": 10.0, "train_cpu_seconds": 3.0, "eval_cpu_seconds": 0.5}
    runs = [
        one("r0", "z", 50.0, status="done", score=2.0, tokens=100, cost=cost, direction="minimize"),
        one("r1", "z", 90.0, status="done", score=5.0, tokens=40, cost={"train_cpu_seconds": 1.0}),
        one("r2", "a", 70.0, status="failed", score=9.0, tokens=7),
        one("r3", "z", 60.0, status="done", score=2.0),
    ]
    frame = trials_of(runs)
    assert frame["trial"].tolist() == ["a", "z"]
    row = frame.loc["z"]
    assert (row["score"], row["tokens"], row["flops"]) == (3.0, 140, 10.0)
    assert row["score_sd"] == pytest.approx(3.0**0.5)
    assert row["cpu_seconds"] == 4.5
    assert row["direction"] == "minimize"
    assert frame["last_finished"].tolist() == [
        pd.Timestamp(t, unit="s", tz="UTC") for t in (70, 90)
    ]
    other = frame.loc["a"]
    assert (other["tokens"], other["failed"]) == (7, 1)
    assert all(pd.isna(other[name]) for name in ("score", "score_sd", "cpu_seconds", "flops"))


def test_no_runs_make_the_documented_empty_frames() -> None:
    for name, frame in {
        "trials": trials_frame(runs_frame([]), cost_frame([])),
        "audits": audits_frame([run_of()]),
        "sources": sources_frame([run_of()]),
        "tasks": tasks_frame([run_of()]),
    }.items():
        pd.testing.assert_frame_equal(frame, empty(name))


# ------------------------------------------------------------------------------- cost, audits, tasks


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        ({"tokens": 100, "trunk": {"tokens": 30}}, 70),
        ({"tokens": 100, "trunk": {"tokens": None}}, 100),
        ({"tokens": 100, "trunk": None}, 100),
        ({"tokens": 0}, 0),
        ({"trunk": {"tokens": 30}}, None),
        (None, None),
    ],
)
def test_the_tokens_of_a_trunk_are_not_those_of_the_run(
    result: dict[str, Any] | None, tokens: int | None
) -> None:
    (found,) = cost_frame([run_of(result=result)])["tokens"]
    assert found == tokens if tokens is not None else pd.isna(found)


def test_an_audit_has_the_gap_of_each_share_that_was_read() -> None:
    stages = [
        {"stage": "x", "source": "a", "asked": 0.5, "realised": 0.75, "tokens": 6, "windows": 2},
        {"stage": "x", "source": "b", "asked": None, "realised": 0.25},
        {"stage": "x", "source": "c", "asked": 0.5},
        {"stage": "x", "asked": 0.5, "realised": 0.5},
    ]
    audit = {"stages": stages, "epochs": {"a": 1.5, "": 9.0}, "tolerance": 0.1, "ok": False}
    runs = [run_of("r0", audit={"stages": None, "ok": True}), run_of("r1", audit=audit)]
    frame = audits_frame([*runs, run_of("r2", audit={}), run_of("r3")])
    assert frame["run"].tolist() == ["r1"] * 4
    assert frame["gap"].fillna(-1.0).tolist() == [0.25, -1.0, -1.0, 0.0]
    assert frame["epochs"].fillna(-1.0).tolist() == [1.5, -1.0, -1.0, 9.0]
    assert frame["tolerance"].tolist() == [0.1] * 4
    assert frame["ok"].tolist() == [False] * 4
    assert frame["tokens"].fillna(-1).tolist() == [6, -1, -1, -1]


def test_a_task_is_described_by_the_first_run_of_its_study_that_names_it() -> None:
    def named(study: str, run: str, metric: str, **source: Any) -> RunFiles:
        quiz = {"domain": "english", "form": "cloze", "metrics": [metric]}
        config = {"evaluation": {"tasks": {"quiz": quiz}}, "source": source}
        made = run_of(run, manifest={"config": config})
        return RunFiles(**{**vars(made), "study": study})

    runs = [
        named("s", "r0", "acc", a={}),
        named("s", "r1", "bpb", a={}, b={"domain": "math"}),
        named("t", "r0", "bpb"),
    ]
    frame = tasks_frame(runs)
    assert frame[["study", "task", "domain", "metric"]].to_numpy().tolist() == [
        ["s", "quiz", "english", "acc"],
        ["s", "heldout_a", "a", "bpb"],
        ["s", "heldout_b", "math", "bpb"],
        ["t", "quiz", "english", "bpb"],
    ]


def test_tasks_that_only_a_later_run_scores_are_described() -> None:
    def scored(run: str, task: str) -> RunFiles:
        tasks = {task: {"domain": "english", "form": "cloze", "metrics": ["acc"]}}
        return run_of(run, manifest={"config": {"evaluation": {"tasks": tasks}, "source": {}}})

    frame = tasks_frame([scored("r0", "quiz"), scored("r1", "exam"), scored("r2", "quiz")])
    assert frame["task"].tolist() == ["quiz", "exam"]


def test_epochs_need_a_size_of_the_source() -> None:
    config = {
        "mixture": {"weights": {"a": 1.0, "b": 3.0}},
        "schedule": {"total_tokens": 800},
        "source": {"a": {"tokens_available": 50, "tokens": 7}, "b": {"tokens_available": 0}},
    }
    frame = sources_frame([run_of(manifest={"config": config})])
    assert frame["tokens"].tolist() == [200.0, 600.0]
    assert frame["epochs"].fillna(-1.0).tolist() == [4.0, -1.0]


# --------------------------------------------------------------------------------------------- columns


def test_a_frame_of_no_values_has_no_rows() -> None:
    assert len(shaped("runs", {})) == 0
    frame = shaped("runs", {"run": ["a", "b"], "reason": pd.Categorical(["x", "y"])})
    assert len(frame) == 2
    assert frame["reason"].dtype == "str"
    assert frame["score"].isna().all()
    pd.testing.assert_frame_equal(shaped("runs", {}), empty("runs"))


def test_categories_that_no_row_has_are_kept() -> None:
    made = pd.Categorical(["b", "b"], categories=["c", "b"])
    found = shaped("runs", {"trial": made, "phase": ["x", "w"]})
    assert list(found["trial"].cat.categories) == ["c", "b"]
    assert list(found["phase"].cat.categories) == ["w", "x"]


def test_a_time_that_is_no_number_is_missing() -> None:
    values = [0, 1.5, "soon", None]
    found = shaped("runs", {"created": values})["created"]
    assert found[:2].tolist() == [pd.Timestamp(t, unit="s", tz="UTC") for t in (0, 1.5)]
    assert found[2:].isna().all()


MODEL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 10,
}


@pytest.mark.parametrize("missing", MODEL)
def test_a_model_of_which_one_size_is_unknown_has_no_count(missing: str) -> None:
    assert (
        parameters({"model": {key: size for key, size in MODEL.items() if key != missing}}) is None
    )
    assert parameters({"model": {**MODEL, missing: True}}) is None


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 80 + (4 * 64 + 384 + 16) + 8),
        ({"num_hidden_layers": 0}, 80 + 8),
        ({"num_hidden_layers": 3}, 80 + 3 * 656 + 8),
        ({"vocab_size": 0}, 656 + 8),
        ({"num_key_value_heads": 1}, 80 + (3 * 64 + 384 + 16) + 8),
        ({"tie_word_embeddings": False}, 160 + 656 + 8),
    ],
)
def test_parameters_are_counted_by_hand(changes: dict[str, Any], count: int) -> None:
    assert parameters({"model": {**MODEL, **changes}}) == count


@pytest.mark.parametrize("stages", [{}, [], ["x"], None, "x"])
def test_a_schedule_without_stages_is_one_stage(stages: Any) -> None:
    config = {
        "mixture": {"weights": {"a": 0.2, "b": 0.3}},
        "schedule": {"total_samples": 40.0, "stages": stages},
    }
    assert total_tokens(config) == 40.0
    found = list(planned_sources(config))
    assert [(row.stage, row.source) for row in found] == [("main", "a"), ("main", "b")]
    assert [row.tokens for row in found] == pytest.approx([16.0, 24.0])


def test_a_stage_has_its_own_tokens_or_its_share_of_the_schedule() -> None:
    stages = {"x": {"share": 0.25}, "y": {"tokens": 7.0, "share": 0.75}, "z": None}
    config = {
        "mixture": {"weights": {"a": 1}},
        "schedule": {"total_tokens": 100, "total_samples": 5, "stages": stages},
    }
    assert total_tokens(config) == 100.0
    assert [row.tokens for row in planned_sources(config)] == [25.0, 7.0, 100.0]
