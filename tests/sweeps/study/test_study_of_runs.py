"""A study of real runs: trained, scored and harvested through the slots launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.runs import list_runs
from ablations.schema import conf_dir
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
    said = ablate(workspace, "run", "-m", *given, code=2)
    assert "config.source.synthetic_facts.origin.documents: not what the study was begun" in said


def test_a_source_s_filter_is_searched_beside_the_mixture(workspace: Path) -> None:
    path = "source.synthetic_facts.max_documents"
    stores = [f"+{path}=100", f"+source.synthetic_facts.store=facts_${{{path}}}"]
    for count in (100, 300):
        source = [*SHORT_SOURCES, *stores, f"{path}={count}", "contamination=false"]
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
