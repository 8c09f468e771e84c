"""The analysis on records that the platform's own demo left behind, thinned (fixtures/README.md)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ablations.record.run_record import list_runs
from analysis.frames import Frames, task_values
from analysis.report import ReportContent, gather_report, render_html, render_markdown
from tests.conftest import SHORT_SOURCES, TINY, Ablate

RUNS = Path(__file__).parent / "fixtures" / "runs"


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return gather_report(RUNS, "demo_ratio", surrogates=("linear", "ridge-sqrt"))


def test_every_recorded_run_is_read() -> None:
    frames = Frames.read(RUNS, "demo_ratio")
    assert len(frames.runs) == len(list_runs(RUNS, "demo_ratio")) == 15
    assert (frames.runs["status"] == "done").all()
    assert frames.runs["audit_ok"].all()
    assert frames.trials["phase"].isin(["baseline", "design", "search"]).all()
    assert {"natural", "uniform"} <= set(frames.trials["name"].dropna())
    assert set(frames.sources["source"]) == {"wiki", "chat"}


def test_items_are_read_by_metric_and_not_by_what_else_is_kept_of_them() -> None:
    samples = Frames.read(RUNS, "demo_ratio").samples()
    of_task = {task: set(rows["metric"]) for task, rows in samples.groupby("task", observed=True)}
    assert of_task == {"arc_easy": {"acc", "acc_char", "bpb"}, "heldout_wiki": {"bpb"}}
    assert samples["value"].notna().all()


def test_more_encyclopedic_text_helps_its_held_out_documents() -> None:
    frames = Frames.read(RUNS, "demo_ratio")
    values = task_values(frames.scores)
    wiki = frames.sources[frames.sources["source"] == "wiki"].groupby("trial", observed=True)
    share = wiki["weight"].first()
    share.index = share.index.astype("str")
    assert values["heldout_wiki"].corr(share, method="spearman") < -0.5
    assert values["heldout_chat"].corr(share, method="spearman") > 0.5


def test_the_recorded_tie_is_reported_as_one(content: ReportContent) -> None:
    verdict = content.loaded.verdict
    assert verdict is not None
    assert content.loaded.origin == "stored"
    assert verdict.outcome == "tie"
    assert "encyclopedic text to conversations" in content.question
    page = render_html(content)
    assert "The study is still running" not in page
    assert "nothing here was trained" not in page
    assert "Tie: " in render_markdown(content)


@pytest.mark.slow
def test_the_command_of_a_run_repeats_it(workspace: Path, ablate: Ablate) -> None:
    assert ablate("run", *TINY, *SHORT_SOURCES, "study=first").code == 0
    content = gather_report(workspace / "runs", "first", surrogates=(), verdict="none")
    (command,) = content.commands.values()
    again = ablate(*shlex.split(command)[1:])
    assert again.code == 0, again.err
    (one,), (two,) = (list_runs(workspace / "runs", name) for name in ("first", "first_again"))
    assert [row["loss"] for row in two.metrics()] == [row["loss"] for row in one.metrics()]
    assert [row["metrics"] for row in two.scores()] == [row["metrics"] for row in one.scores()]
