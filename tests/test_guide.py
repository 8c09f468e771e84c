"""The pages that a reader copies from: each block byte for byte, in a fresh folder, on small text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ablations.data.synthetic import Skill, documents
from tests.tools.pages import ROOT, blocks, follow

GUIDE = ROOT / "docs/guide.md"
CLUSTER = ROOT / "docs/cluster.md"
README = ROOT / "README.md"

COPIED = (GUIDE, CLUSTER, README)


def write_corpora(folder: Path) -> None:
    """The reader's own text: all that the guide does not give."""
    skills: dict[str, Skill] = {"manuals": "facts", "programs": "code"}
    for name, skill in skills.items():
        target = folder / "corpora" / name / "part-0.jsonl"
        target.parent.mkdir(parents=True)
        rows = [{"text": written.text} for written in documents(skill, 2000, seed=0)]
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("page", COPIED, ids=lambda page: page.name)
def test_each_block_is_a_file_with_its_path_above_it_or_commands(page: Path) -> None:
    found = blocks(page)
    assert found
    assert page.read_text().count("\n```") == 2 * len(found), "a block is not closed"
    for block in found:
        # "text" is shown and never copied.
        assert (block.path is not None) == (block.language == "yaml"), block.text
        assert block.language in ("yaml", "sh", "text"), block.text
        # A path inside a block would stand before the package line, which Hydra then ignores.
        assert not block.text.startswith(("# mine/", "# conf/")), block.text


def test_the_guide_shows_a_whole_config_folder() -> None:
    groups = {Path(block.path).parent.name for block in blocks(GUIDE) if block.path}
    assert groups == {"source", "mixture", "tokenizer", "experiment", "full"}


@pytest.mark.slow
def test_the_guide_can_be_followed(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    follow(GUIDE, tmp_path)
    assert (tmp_path / "runs/mine/report.html").exists()
    comparison = tmp_path / "promotions/mine-mine_full-001/comparison.md"
    assert "| heldout_manuals | bpb |" in comparison.read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_readme_s_commands_are_known_to_make(tmp_path: Path) -> None:
    # Both make and run everything there is, so make is asked what it would do.
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (printed,) = follow(README, tmp_path, {"MAKEFLAGS": "n"})
    assert "python -m ablations.demo" in printed
    assert "python -m pytest" in printed
