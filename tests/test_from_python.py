"""``import ablations``: studies, runs, configs and verdicts from Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ablations
from ablations.errors import ConfigError, DataError, UserError
from tests.conftest import SHORT_SOURCES, TINY

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests/analysis/fixtures/runs"


def test_the_import_itself_brings_nothing() -> None:
    code = (
        "import sys, ablations\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'sweeps', 'analysis', 'hydra', 'pydantic', 'pandas', 'torch'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "[]\n"


def test_every_name_is_there_and_documented() -> None:
    page = (ROOT / "docs/python.md").read_text()
    for name in ablations.__all__:
        assert getattr(ablations, name) is not None
        assert name in dir(ablations)
        if name != "__version__":
            assert re.search(rf"`{name}[`(]", page), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ablations.nothing  # type: ignore[attr-defined]


def test_a_study_has_runs_frames_question_and_verdict() -> None:
    study = ablations.load_study("demo_ratio", RECORDED)
    assert len(study.runs) == len(study.frames.runs) == 15
    assert study.question.startswith("Which ratio of encyclopedic text")
    assert study.definition is not None
    assert study.verdict is not None
    assert study.verdict.study == "demo_ratio"


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_run_is_found_by_its_name_or_its_folder(by_folder: bool) -> None:
    name = "demo_ratio/trial-0003-1"
    run = ablations.load_run(RECORDED / name) if by_folder else ablations.load_run(name, RECORDED)
    assert run.name == name
    assert run.status == "done"
    assert run.config.seed == 1
    assert run.result is not None
    (row,) = run.frames.runs.to_dict("records")
    assert row["seed"] == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ablations.load_study("demo_rato", RECORDED), "did you mean 'demo_ratio'"),
        (lambda: ablations.load_run("demo_ratio/trial-003-1", RECORDED), "did you mean"),
    ],
)
def test_what_is_not_there_gets_the_nearest_name(call: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        call()  # type: ignore[operator]


def test_a_verdict_is_stored_where_that_is_asked_for(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "runs")
    path = tmp_path / "runs/demo_ratio/verdict.json"
    path.unlink()
    decided = ablations.verdict("demo_ratio", tmp_path / "runs")
    assert not path.exists()
    ablations.verdict("demo_ratio", tmp_path / "runs", write=True)
    stored = ablations.load_study("demo_ratio", tmp_path / "runs").verdict
    assert stored is not None
    assert stored.sentence == decided.sentence
    assert ablations.verdict(table="smollm2_web_ratio").outcome == "tie"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "name a study, or a published table"),
        ({"table": "smollm2_web_ratio", "margn": 1.0}, "did you mean 'margin'"),
    ],
)
def test_a_wrong_verdict_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ablations.verdict(**options)  # type: ignore[arg-type]


def test_a_config_is_composed_again_and_again() -> None:
    for hidden in (384, 384):
        config = ablations.compose("model=proxy_11m", "training=proxy_11m")
        assert config.model.hidden_size == hidden


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=demi"], "did you mean 'demo'"),
        (["training.peak_lr=-1"], "training.peak_lr"),
        (["model=a,b"], "several values"),
        (["experiment=x"], r"x\.yaml:2:12: training\.peek_lr: unknown key"),
    ],
)
def test_a_wrong_config_is_one_problem(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ntraining: {peek_lr: 1}\n"
    (tmp_path / "experiment/x.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        ablations.compose(*words, config_dirs=[tmp_path])
    assert len(caught.value.problems) == 1


def test_hydra_of_the_callers_own_is_kept() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf")):
        ablations.compose()
        assert compose("ls").runs_dir == "runs"


@pytest.mark.slow
def test_a_run_is_trained_and_read_again(workspace: Path) -> None:
    config = ablations.compose(*TINY, *SHORT_SOURCES)
    finished = ablations.run(config)
    assert finished.result["status"] == "done"
    assert ablations.run(config).skipped
    run = ablations.load_run(finished.record.path)
    assert run.config == config
    assert run.frames.scores["value"].notna().all()
