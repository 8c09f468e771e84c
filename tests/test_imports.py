"""Imports go one way, and the commands that only look import nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HEAVY = (
    "torch",
    "transformers",
    "lighteval",
    "datatrove",
    "datasets",
    "optuna",
    "pandas",
    "plotly",
)


def test_the_import_contract_holds() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", [["--help"], ["ls"], ["plan"]], ids=" ".join)
def test_commands_that_only_look_import_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from ablations.cli import main\n"
        f"code = main({command!r})\n"
        f"heavy = sorted(set(sys.modules) & set({HEAVY!r}))\n"
        "sys.exit(f'exit {code}, imported {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
