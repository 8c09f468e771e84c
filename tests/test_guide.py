"""docs/guide.md is followed as a reader would: its files written, its commands run, on small text."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.data.synthetic import Skill, documents

GUIDE = (Path(__file__).resolve().parent.parent / "docs" / "guide.md").read_text()

SHORT = (
    "schedule.total_tokens=10240",
    "model.num_hidden_layers=1",
    "search.strategy.design_trials=2",
    "search.budget.trials=4",
    "search.confirm.finalists=1",
    "search.confirm.seeds=[0,1]",
    "evaluation.heldout_max_items=4",
    "hydra.launcher.slots=1",
    "hydra.launcher.threads=1",
)
"""What makes the guide's study one of seconds; its question stays."""

SHORT_FULL = ("promotion.full.total_tokens=51200", "evaluation.heldout_max_items=4")


def files() -> dict[str, str]:
    """Path → content of every YAML file that the guide shows."""
    blocks = re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", GUIDE, re.DOTALL)
    return dict(blocks)


def commands() -> list[list[str]]:
    """The words of every command that the guide types."""
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
        for line in block.splitlines()
    ]
    return [shlex.split(line) for line in lines]


def shortened(words: list[str]) -> list[str]:
    if words[0] == "run" and "-m" in words:
        return [*words, *SHORT]
    return [*words, *SHORT_FULL] if words[0] == "promote" else words


def follow(folder: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "ablations.cli", *shortened(words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)


def write_corpora(folder: Path) -> None:
    skills: dict[str, Skill] = {"manuals": "facts", "programs": "code"}
    for name, skill in skills.items():
        target = folder / "corpora" / name / "part-0.jsonl"
        target.parent.mkdir(parents=True)
        rows = [{"text": written.text} for written in documents(skill, 2000, seed=0)]
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_guide_shows_a_whole_config_folder() -> None:
    groups = {Path(name).parent.name for name in files()}
    assert groups == {"source", "mixture", "tokenizer", "experiment", "full"}
    assert {words[0] for words in commands()} == {"ablate"}


@pytest.mark.slow
def test_the_guide_can_be_followed(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    for name, content in files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for words in commands():
        follow(tmp_path, words[1:])
    assert (tmp_path / "runs/mine/report.html").exists()
    comparison = tmp_path / "promotions/mine-mine_full-001/comparison.md"
    assert "| heldout_manuals | bpb |" in comparison.read_text()
