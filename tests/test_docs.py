"""Hold the pages to the code: generated references, links, commands."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from ablations.cli import COMMANDS
from ablations.config.config_docs import render
from ablations.config.option_docs import field_docs
from ablations.config.schema import RunConfig, conf_dir
from ablations.demo import STEPS, filled, skipped
from ablations.files import write_json
from tests.conftest import Ablate

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_config_reference_is_what_the_code_makes() -> None:
    assert (ROOT / "docs/config.md").read_text() == render()


def test_every_field_of_a_run_is_documented() -> None:
    assert set(field_docs(RunConfig)) == {field.name for field in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_options_that_a_page_shows_exist(page: Path) -> None:
    text = page.read_text()
    for command in re.findall(r"\bablate ([a-z]+)\b", text):
        assert command in COMMANDS, command
    for group, option in re.findall(
        r"\b(experiment|schedule|model|training|mixture|evaluation|full|search)=([a-z]\w+)", text
    ):
        # What a page has the reader write counts too, and what a promotion writes.
        shown = f"/{group}/{option}.yaml" in text or option in ("promoted", "baseline", "chain")
        assert shown or (conf_dir() / group / f"{option}.yaml").exists(), option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:benchmarks|conf|ablations|sweeps|analysis|tests)/[\w/.]+\.\w+)", page.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_the_demo_calls_commands_that_exist() -> None:
    assert {step.words[0] for step in STEPS} <= set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [step.words for step in STEPS if not any("{" in word for word in step.words)],
    ids=" ".join,
)
def test_what_the_demo_types_composes(words: tuple[str, ...], ablate: Ablate) -> None:
    arguments = [word for word in words if word != "-m"]
    answer = ablate(*arguments, "--cfg", "job")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("outcome", "picked", "runs_baseline"),
    [
        ("winner", "pick-12", True),
        ("tie", "today", False),
        ("keep-baseline", "today", False),
    ],
)
def test_the_demo_promotes_what_the_verdict_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: str,
    picked: str,
    runs_baseline: bool,
) -> None:
    """Nothing is tuned to win: where nobody won, the demo states it and trains the baseline."""
    monkeypatch.chdir(tmp_path)
    verdict = {"outcome": outcome, "pick": "pick-12", "baseline": "today"}
    (tmp_path / "runs/demo_ratio").mkdir(parents=True)
    write_json(tmp_path / "runs/demo_ratio/verdict.json", verdict)
    assert filled("promotion.pick={pick}") == f"promotion.pick={picked}"
    (second,) = [step for step in STEPS if step.only_winner]
    assert (skipped(second) is None) == runs_baseline
    assert runs_baseline or "no mixture won" in str(skipped(second))


def test_a_demo_that_goes_on_makes_no_second_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (once,) = [step for step in STEPS if step.once]
    assert skipped(once) is None
    (tmp_path / "promotions/demo_ratio-demo_full-001").mkdir(parents=True)
    assert "done before" in str(skipped(once))


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", (ROOT / "README.md").read_text())) <= targets


def _defined(name: str) -> bool:
    """Return whether a dotted name of ours is a module, a package, or defined at the top of a module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if file.exists():
            names = {
                node.name
                for node in ast.parse(file.read_text()).body
                if isinstance(node, ast.ClassDef | ast.FunctionDef)
            }
            return end == len(parts) or (end == len(parts) - 1 and parts[-1] in names)
    return False


def test_the_names_of_the_architecture_are_those_of_the_code() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    names = set(re.findall(r"\b(?:ablations|sweeps|analysis)(?:\.[A-Za-z_]\w*)+", text))
    assert len(names) > 30
    assert sorted(name for name in names if not _defined(name)) == []


def test_the_packages_of_the_architecture_are_those_of_the_tree() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for package, row in re.findall(
        r"^\| `(ablations|sweeps|analysis)` \|(.*)\|", text, re.MULTILINE
    ):
        listed = set(re.findall(r"`(\w+)`", row.rsplit("|", 1)[0]))
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert folders - listed <= {"commands", "synthetic"}, package
