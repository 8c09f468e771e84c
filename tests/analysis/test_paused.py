"""Paused runs in frames, watch, ls, report and verdict: named everywhere, judged nowhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ablations.files import write_sealed
from ablations.record.paused import write_paused
from ablations.record.run_record import RunRecord
from analysis.frames import Frames
from analysis.report import gather_report
from analysis.report.summaries import evidence, notices
from analysis.synthetic import SyntheticStudy, write_study
from analysis.watch.live_table import snapshot_table
from analysis.watch.snapshot import look
from sweeps.commands.ls import main as ls
from sweeps.search.proposals.rung_policy import Guard
from sweeps.study.old_runs import Evidence, settle_evidence, write_check
from sweeps.study.rungs import Rung, settle_rung, write_chosen, write_guard
from sweeps.verdict.loading import load_run
from sweeps.verdict.question import Question

RUN = "trial-0004-0"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a folder with a study of which one run has paused at 30% of its tokens."""
    run = write_study(tmp_path, SyntheticStudy(name="low", trials=8, items=0)) / RUN
    for other in run.parent.glob("trial-0004-[1-9]"):
        shutil.rmtree(other)
    (run / "result.json").unlink()
    record = RunRecord(run)
    record.set_status("paused")
    cost = {"flops": 30.0, "wall_seconds": 3.0, "train_cpu_seconds": 2.0, "eval_cpu_seconds": 1.0}
    content = {"status": "paused", "step": 6, "tokens": 600, "share": 0.3, "cost": cost}
    write_paused(record, {**content, "score": 1.25, "metrics": {"a/bpb": 1.25}})
    return tmp_path


def test_frames_have_the_cost_and_no_score_of_a_paused_run(study: Path) -> None:
    frames = Frames.read(study, "low")
    runs = frames.runs.set_index("run")
    assert runs.loc[RUN, "status"] == "paused"
    assert runs.loc[RUN, "step"] == 6
    assert runs["score"].isna()[RUN]
    assert frames.cost.set_index("run").loc[RUN, "flops"] == 30.0
    trials = frames.trials.set_index("trial")
    assert trials.loc["trial-0004", "status"] == "paused"


def test_watch_names_the_share_at_which_a_run_paused(study: Path) -> None:
    snapshot = look(study, "low")
    (run,) = [run for run in snapshot.runs if run.run == RUN]
    assert run.over
    assert not run.working
    assert run.silent_seconds is None
    assert snapshot.counts["paused"] == 1
    assert snapshot_table(snapshot, 40) is not None


def test_ls_shows_the_pause_and_no_score(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ls({"runs_dir": str(study), "study": "low"}) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if RUN in line]
    assert line.split()[1] == "paused"
    assert "paused at 30% of its tokens, score 1.2500 there" in line


def test_a_verdict_leaves_a_paused_run_out_with_the_reason(study: Path) -> None:
    left_out: dict[str, str] = {}
    assert load_run(RunRecord(study / "low" / RUN), Question(), left_out) is None
    assert left_out[RUN] == (
        "paused at 30% of its tokens: used for the ranking of mixtures, not judged"
    )


def test_a_report_states_the_rung_and_tells_old_runs_from_new_ones(study: Path) -> None:
    folder = study / "low"
    settle_rung(folder, Rung(share=0.3, tokens=600.0), begun=False)
    write_chosen(folder, "pairs", [1, 2])
    write_guard(folder, Guard(pairs=8, correlation=0.9))
    notes = ["12 runs of study 'older'", "no old run has read code"]
    old = Evidence(studies=["older"], split={}, runs=[], added={}, notes=notes)
    settle_evidence(folder, ["older"], old, begun=False)
    check = {"new_runs": 9, "old_runs": 12, "with_old": 0.9, "without_old": 0.5, "used": True}
    write_check(folder, check)
    content = gather_report(study, "low", verdict="none", surrogates=())
    text = " ".join(evidence(content))
    assert "Explored runs paused at 30% of their tokens; 2 of them went on." in text
    assert "rank correlation 0.90 over 8 pairs" in text
    assert "New are the runs of this study. Old are 12 runs of study 'older'" in text
    assert "0.90 with the 12 old runs, 0.50 without" in text
    assert "1 paused" in text
    assert not any("paused" in notice for notice in notices(content))


def test_a_damaged_rung_does_not_hide_a_report(study: Path) -> None:
    (study / "low" / "rungs.json").write_text(json.dumps({"share": "much"}))
    content = gather_report(study, "low", verdict="none", surrogates=())
    assert content.reused[0].startswith("Not readable:")


def test_a_report_states_what_trunks_cost_and_runs_count_their_own_steps(study: Path) -> None:
    folder = study / "low"
    cost = {"step": 5, "tokens": 50.0, "flops": 5e9, "wall_seconds": 360.0}
    for seed in (0, 1):
        place = folder / f"trunks/abc-{seed}"
        place.mkdir(parents=True)
        paid = {**cost, "train_cpu_seconds": 300.0, "devices": 2}
        write_sealed(place / "trunk.json", {"status": "done", "reason": None, "cost": paid})
    run = RunRecord(folder / "trial-0001-0")
    before = run.result()
    assert before is not None
    run.write_result({**before, "trunk": {"name": "abc-0", "step": 5, "tokens": 50}})
    content = gather_report(study, "low", verdict="none", surrogates=())
    text = " ".join(evidence(content))
    assert "The first 5 steps are equal in all runs of a group" in text
    assert "2 trunks, 1e+10 FLOPs, 0.4 device hours" in text
    costs = Frames.read(study, "low").cost.set_index("run")
    assert costs.loc["trial-0001-0", "tokens"] == before["tokens"] - 50
    assert costs.loc["trial-0002-0", "tokens"] == before["tokens"]
