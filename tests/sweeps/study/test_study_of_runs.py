"""A study of real runs: trained, scored and collected through the slots launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.config.schema import conf_dir
from ablations.record.run_record import list_runs
from tests.conftest import SHORT_SOURCES, TINY

pytestmark = pytest.mark.slow

SOURCES = ("synthetic_facts", "synthetic_arithmetic", "synthetic_junk")
STUDY = (
    *TINY,
    *SHORT_SOURCES,
    "study=real",
    "search=mixture",
    "search.strategy.design_trials=2",
    "search.confirm.finalists=1",
    "search.confirm.seeds=[0,1]",
)


def ablate(folder: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "ablations.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def results(folder: Path, study: str) -> dict[str, dict[str, object]]:
    paths = sorted((folder / "runs" / study).glob("*/result.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def test_one_command_trains_scores_and_confirms(workspace: Path) -> None:
    ablate(workspace, "run", "-m", *STUDY, "search.budget.trials=5")
    ended = results(workspace, "real")
    assert {name.rpartition("-")[0] for name in ended} >= {f"trial-{i:04d}" for i in range(5)}
    assert all(result["status"] == "done" for result in ended.values())
    assert all(result["audit_ok"] for result in ended.values())
    assert any(name.endswith("-1") for name in ended)
    first = (workspace / "runs/real/study.json").read_text()
    assert json.loads(first)["config"]["mixture"]["weights"] == "searched"
    ablate(workspace, "run", "-m", *STUDY, "search.budget.trials=5")
    assert results(workspace, "real") == ended


def test_a_package_missing_in_scoring_is_named_and_training_is_kept(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = workspace / "broken/lighteval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise ImportError("No module named antlr4")')
    given = (*STUDY, "search.budget.trials=2", "search.confirm.finalists=0", "progress=false")
    monkeypatch.setenv("PYTHONPATH", str(workspace / "broken"))
    output = ablate(workspace, "run", "-m", *given, code=1)
    reason = "ImportError: No module named antlr4"
    assert f"failed: study 'real': 2 of 2 runs failed: trial-0000-0: {reason}" in output
    records = list_runs(workspace / "runs", "real")
    assert [(r.status, r.manifest.reason) for r in records] == [("failed", reason)] * 2
    assert all(result["reason"] == reason for result in results(workspace, "real").values())
    assert all("Traceback" in (r.path / "worker.log").read_text() for r in records)
    assert reason in ablate(workspace, "ls", "study=real")
    assert reason in ablate(workspace, "verdict", "study=real", code=2)
    trained = [(r.path / "metrics.jsonl").read_text() for r in records]
    monkeypatch.delenv("PYTHONPATH")
    assert ablate(workspace, "run", "-m", *given) == ""
    assert all(result["score"] is not None for result in results(workspace, "real").values())
    assert [(r.path / "metrics.jsonl").read_text() for r in records] == trained


def test_a_stage_boundary_is_searched_from_plan_to_run(workspace: Path) -> None:
    given = (
        *STUDY,
        "~schedule.stages.main",
        "+schedule.stages={stable:{share:rest},decay:{share:0.25}}",
        "schedule.lr.decay_share=decay",
        "schedule.total_tokens=8192",
        "+search.space.parameters={schedule.stages.decay.share:{kind:float,low:0.05,high:0.4}}",
        "search.budget.trials=5",
        "search.confirm.finalists=0",
    )
    assert "schedule.stages.decay.share=0.25" in ablate(workspace, "plan", "-m", *given)
    ablate(workspace, "run", "-m", *given)
    shares = []
    for record in list_runs(workspace / "runs", "real"):
        share = record.manifest.config["schedule"]["stages"]["decay"]["share"]
        rates = [row["lr"] for row in record.metrics()]
        falling = sum(rate < max(rates) for rate in rates[16:])
        assert len(rates) == 32
        # The first step of the decay still has a rate below the peak's: 32 steps in all.
        assert falling == pytest.approx(32 * share, abs=1)
        shares.append(share)
    assert shares[:2] == [0.25] * 2  # the baselines keep the config's own boundary
    assert len(set(shares)) == 4


def test_several_ranks_run_under_torchrun_inside_a_job(workspace: Path) -> None:
    shared = (*TINY, *SHORT_SOURCES, "study=ranks", "hydra.launcher.slots=1")
    ablate(workspace, "run", "-m", *shared, "execution.dp=1,2")
    one, two = results(workspace, "ranks").values()
    assert one["score"] == pytest.approx(two["score"], rel=1e-3)


def test_an_edited_source_is_refused_by_name(workspace: Path) -> None:
    own = workspace / "own" / "source"
    own.mkdir(parents=True)
    source = (conf_dir() / "source" / "synthetic_facts.yaml").read_text()
    assert "documents: 20_000" in source
    source = source.replace("documents: 20_000", "documents: 400")
    (own / "synthetic_facts.yaml").write_text(source)
    given = ["--config-dir", "own", *(o for o in STUDY if "synthetic_facts" not in o)]
    given += ["search.budget.trials=1", "search.confirm.finalists=0"]
    ablate(workspace, "run", "-m", *given)
    pinned = json.loads((workspace / "runs/real/study.json").read_text())["config"]["source"]
    assert pinned["synthetic_facts"]["origin"]["documents"] == 400
    (own / "synthetic_facts.yaml").write_text(source.replace("documents: 400", "documents: 401"))
    output = ablate(workspace, "run", "-m", *given, code=2)
    assert "config.source.synthetic_facts.origin.documents: not what the study was begun" in output


def test_a_source_s_filter_is_searched_beside_the_mixture(workspace: Path) -> None:
    path = "source.synthetic_facts.max_documents"
    stores = [f"+{path}=100", f"+source.synthetic_facts.store=facts_${{{path}}}"]
    for count in (100, 300):
        source = [*SHORT_SOURCES, *stores, f"{path}={count}", "prepare.contamination=false"]
        ablate(workspace, "prepare", "experiment=synthetic", *source)
    filtered = f"+search.space.parameters={{{path}:{{kind:choice,choices:[100,300]}}}}"
    given = ["search.budget.trials=4", "mixture.epoch_cap=100", "evaluation.heldout=false"]
    given += ["search.confirm.finalists=0", filtered]
    ablate(workspace, "run", "-m", *STUDY, *stores, *given)
    records = list_runs(workspace / "runs", "real")
    read = {
        (found := record.manifest.config)["source"]["synthetic_facts"]["max_documents"]: found[
            "stores"
        ]["synthetic_facts"]
        for record in records
    }
    assert len(records) == 4
    assert set(read) == {100, 300}
    assert read[100] != read[300]
    assert "tie" in ablate(workspace, "verdict", "study=real").lower()


def test_explored_runs_pause_and_a_later_study_uses_them(workspace: Path) -> None:
    low = (*STUDY, "search.fidelity.share=0.5", "search.strategy.baselines=[natural]")
    budget = ("search.budget.trials=8", "search.confirm.seeds=[0]")
    output = ablate(workspace, "run", "-m", *low, *budget)
    assert "runs unguarded" in output
    folder = workspace / "runs/real"
    rung = json.loads((folder / "rungs.json").read_text())
    assert rung["tokens"] == 1024.0
    records = {record.path.name: record for record in list_runs(workspace / "runs", "real")}
    paused = [name for name, record in records.items() if record.status == "paused"]
    assert len(paused) >= 4
    assert all(not (folder / name / "result.json").exists() for name in paused)
    went_on = [f"trial-{n:04d}-0" for n in (*rung["finalists"], *rung["picked"])]
    assert went_on
    assert {records[name].status for name in went_on} == {"done"}
    before = {name: (folder / name / "manifest.json").stat().st_mtime_ns for name in records}
    ablate(workspace, "run", "-m", *low, *budget)
    assert before == {n: (folder / n / "manifest.json").stat().st_mtime_ns for n in before}
    assert "paused at 50% of its tokens" in ablate(workspace, "ls", "study=real")
    refused = ablate(workspace, "run", "-m", *STUDY, *budget, code=2)
    assert "search.fidelity: not what the study was begun with" in refused

    later = ("search.evidence=[real]", "search.budget.trials=2", "search.confirm.finalists=0")
    output = ablate(workspace, "run", "-m", *STUDY, "study=later", *later)
    assert "runs of study 'real'" in output
    kept = json.loads((workspace / "runs/later/evidence.json").read_text())
    assert len(kept["runs"]) == sum(record.status == "done" for record in records.values())
    other = ("study=other", "training.peak_lr=0.5", *later)
    assert "differs in training.peak_lr" in ablate(workspace, "run", "-m", *STUDY, *other, code=2)
