"""Every mistake gets one message with all problems in it, exit code 2 and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.cli import COMMANDS
from ablations.files import read_json, write_sealed
from tests.conftest import SHORT_SOURCES, TINY, Ablate

MISTAKES = {
    "unknown command": (["runn"], "did you mean 'run'"),
    "unknown source": (["run", "+mixture.weights.wikki=0.0"], "did you mean 'wiki'"),
    "unknown weight": (["run", "mixture.weights.wikki=0.5"], "did you mean 'wiki'"),
    "weights that do not sum": (["run", "mixture.weights.wiki=0.9"], "found: sum 1.5"),
    "negative weight": (["run", "mixture.weights.wiki=-0.4"], "mixture.weights.wiki: not a weight"),
    "NaN weight": (["run", "mixture.weights.wiki=nan"], "found: nan"),
    "unknown option": (["run", "model=demi"], "did you mean 'demo'"),
    "unknown group": (["run", "modle=demo"], "did you mean 'model'"),
    "unknown key": (["run", "training.peek_lr=1"], "did you mean 'peak_lr'"),
    "unknown key in an unknown group": (["run", "trainin.peak_lr=1"], "did you mean 'training'"),
    "wrong type": (["run", "training.batch_size=abc"], "training.batch_size"),
    "not an override": (["run", "mixture.weights=[1"], "not an override"),
    "a study that is no folder": (["run", "study=../elsewhere"], "study: not a folder's name"),
    "a trial that is no folder": (["run", "trial=60/40"], "trial: not a folder's name"),
    "a search that is no folder": (
        ["run", "-m", "experiment=demo_ratio", "study=a/b"],
        "study: not a folder's name",
    ),
    "two actions": (["run", "-m", "--cfg", "job"], "--multirun --cfg: only one of them"),
    "missing value": (["score"], "checkpoint: missing"),
    "missing format": (["export"], "format: missing"),
    "unknown format": (["export", "format=megatorn"], "did you mean 'megatron'"),
    "missing checkpoint": (["score", "checkpoint=/nowhere"], "no such folder"),
    "missing warm start": (
        ["run", *TINY, *SHORT_SOURCES, "warm_start.checkpoint=/nowhere"],
        "warm_start.checkpoint",
    ),
    "batch not divisible": (["run", "execution.dp=3"], "not divisible"),
    "too long a sequence": (["run", "training.sequence_length=4096"], "longer than the model"),
    "too short a schedule": (["run", "schedule.total_tokens=100"], "shorter than one step"),
    "heads that do not divide": (["run", "model.num_attention_heads=5"], "model.num_attention"),
    "unprepared source": (["run"], "not prepared with this tokenizer"),
    "unknown task metric": (
        ["run", "evaluation.tasks.arc_easy.metrics=[accuracy]"],
        "no such metric",
    ),
    "cap broken": (["run", *TINY, *SHORT_SOURCES, "schedule.total_tokens=1e9"], "epoch_cap"),
    "vocabulary too small": (
        ["run", *TINY, *SHORT_SOURCES, "model.vocab_size=100"],
        "model.vocab_size",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_plainly(workspace: Path, ablate: Ablate, mistake: str) -> None:
    arguments, expected = MISTAKES[mistake]
    answer = ablate(*arguments)
    assert answer.code == 2, answer.err
    assert expected in answer.err
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    assert not (workspace / "runs").exists()


def test_all_problems_are_told_at_once(ablate: Ablate, workspace: Path) -> None:
    answer = ablate(
        "run",
        "mixture.weights.wiki=-0.4",
        "mixture.weights.chat=nan",
        "model.num_attention_heads=5",
        "training.peak_lr=-1",
    )
    assert answer.code == 2
    for part in ("weights.wiki", "num_attention_heads", "peak_lr"):
        assert part in answer.err, answer.err


def test_a_store_of_another_tokenizer_is_refused(workspace: Path, ablate: Ablate) -> None:
    manifest = workspace / "data/synthetic_bpe/synthetic_facts/manifest.json"
    made = read_json(manifest)
    manifest.unlink()  # linked to the shared copy
    write_sealed(manifest, {**made, "tokenizer_hash": "beef"})
    answer = ablate("run", *TINY, *SHORT_SOURCES)
    assert answer.code == 2
    assert "prepared with another tokenizer" in answer.err


def test_a_store_of_other_source_settings_is_refused(workspace: Path, ablate: Ablate) -> None:
    answer = ablate("run", *TINY, *SHORT_SOURCES, "+source.synthetic_facts.max_documents=10")
    assert answer.code == 2
    assert "synthetic_facts: prepared from other settings of the source" in answer.err
    assert not (workspace / "runs").exists()


def test_a_cut_token_file_is_refused_by_name(workspace: Path, ablate: Ablate) -> None:
    (file,) = (workspace / "data/synthetic_bpe/synthetic_facts/train").glob("*.ds")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-2])
    answer = ablate("run", *TINY, *SHORT_SOURCES)
    assert answer.code == 2
    assert file.name in answer.err


@pytest.mark.parametrize("words", [["ls"], ["ls", "json=true"]])
def test_ctrl_c_exits_as_shells_have_it(
    monkeypatch: pytest.MonkeyPatch, ablate: Ablate, words: list[str]
) -> None:
    def interrupted(config: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeps.commands.ls.main", interrupted)
    monkeypatch.setattr("sweeps.commands.ls.answer", interrupted)
    answer = ablate(*words)
    assert answer.code == 130
    assert answer.out == ""
    assert answer.err == "interrupted; the same command goes on from the last checkpoint\n"


def test_help_names_every_command(ablate: Ablate) -> None:
    answer = ablate("--help")
    assert answer.code == 0
    assert all(name in answer.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_config_that_composes(name: str, ablate: Ablate) -> None:
    answer = ablate(name, "--cfg", "job")
    assert answer.code == 0, answer.err


def test_the_plan_of_a_prepared_run_counts_its_tokens(workspace: Path, ablate: Ablate) -> None:
    answer = ablate("plan", *TINY, *SHORT_SOURCES)
    assert answer.code == 0, answer.err
    assert "2.048k in 8 steps" in answer.out
    assert not (workspace / "runs").exists()


def test_listing_an_unknown_study_names_the_nearest(workspace: Path, ablate: Ablate) -> None:
    (workspace / "runs/demo/a-0").mkdir(parents=True)
    (workspace / "runs/demo/a-0/manifest.json").write_text("{}")
    answer = ablate("ls", "study=dmo")
    assert answer.code == 2
    assert "did you mean 'demo'" in answer.err


def test_listing_nothing_says_so(workspace: Path, ablate: Ablate) -> None:
    answer = ablate("ls")
    assert answer.code == 0
    assert "no runs" in answer.out
