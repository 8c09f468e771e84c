"""Records, studies and token stores that an earlier version wrote are read, judged and continued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.store import TokenStore
from ablations.record.run_record import list_runs
from tests.conftest import Ablate

BEFORE = Path(__file__).parent / "fixtures" / "before"
TOKENS = {"facts": 10_156 // 2, "arithmetic": 25_092 // 2, "junk": 12_214 // 2}
SOURCES = tuple(
    f"+source.synthetic_{skill}={{origin:{{kind:synthetic,skill:{skill},documents:150,seed:0}}}}"
    for skill in TOKENS
)
RUN = (
    *("experiment=synthetic", "schedule.total_tokens=2048", "model.hidden_size=32"),
    *("model.intermediate_size=64", "training.sequence_length=32", "training.checkpoints=2"),
    *("execution.threads=1", "evaluation.max_items=8", "evaluation.heldout_max_items=4"),
    *("progress=false", *SOURCES),
)
STUDY = (
    *("run", "-m", *RUN, "study=search", "search=mixture", "search.strategy.design_trials=4"),
    *("search.budget.trials=6", "search.confirm.finalists=1", "search.confirm.seeds=[0,1]"),
    *("search.confirm.pick=false", "hydra.launcher.slots=1", "search.strategy.proposer=random"),
)
"""The command that began the study."""


@pytest.fixture
def before(workspace: Path) -> Path:
    """The workspace with what was written before."""
    for name in ("runs", "data"):
        shutil.rmtree(workspace / name, ignore_errors=True)
        shutil.copytree(BEFORE / name, workspace / name)
    return workspace


def verdict(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "runs/search/verdict.json").read_text())
    return {key: content[key] for key in ("outcome", "pick", "advantage", "candidates", "sentence")}


@pytest.mark.parametrize("skill", TOKENS)
def test_a_token_store_is_read(before: Path, skill: str) -> None:
    store = TokenStore.open(before / f"data/synthetic_bpe/synthetic_{skill}")
    assert store.num_tokens == TOKENS[skill]
    windows = store.read(np.arange(store.num_windows(32)), 32)
    assert windows.shape[1] == 33
    assert windows.max() < 512


def test_runs_are_listed_with_status_and_score(before: Path, ablate: Ablate) -> None:
    answer = ablate("ls")
    assert answer.code == 0, answer.err
    records = list_runs(before / "runs")
    assert len(records) == 8
    assert {record.status for record in records} == {"done"}
    for record in records:
        assert record.name in answer.out
    assert "0.3750  synthetic_facts=0 synthetic_arithmetic=0 synthetic_junk=1" in answer.out


def test_a_study_gets_the_verdict_that_it_got(before: Path, ablate: Ablate) -> None:
    stored = verdict(before)
    (before / "runs/search/verdict.json").unlink()
    answer = ablate("verdict", "study=search")
    assert answer.code == 0, answer.err
    assert verdict(before) == stored


def test_a_finished_study_is_not_begun_again(before: Path, ablate: Ablate) -> None:
    """Its definition holds the options of prepare where they were: they define no study."""
    records = {path: path.read_bytes() for path in before.glob("runs/search/trial-*/*.json*")}
    answer = ablate(*STUDY)
    assert answer.code == 0, answer.err
    assert {
        path: path.read_bytes() for path in before.glob("runs/search/trial-*/*.json*")
    } == records


@pytest.mark.slow
def test_a_study_is_extended(before: Path, ablate: Ablate) -> None:
    answer = ablate(*STUDY, "search.budget.trials=7")
    assert answer.code == 0, answer.err
    (added,) = {path.name for path in before.glob("runs/search/trial-0006-*")}
    assert json.loads((before / f"runs/search/{added}/result.json").read_text())["status"] == "done"
    assert not (before / f"runs/search/{added}/ask.json").exists()
