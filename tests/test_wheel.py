"""An installed platform, without the checkout: everything that a command reads is in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"

READ_AT_RUN_TIME = {
    "ablations/conf": ROOT / "conf",
    "hydra_plugins": ROOT / "sweeps" / "plugins" / "hydra_plugins",
    "analysis/report/templates": ROOT / "analysis" / "report" / "templates",
    "sweeps/verdict/published": ROOT / "sweeps" / "verdict" / "published",
}
"""Folder of the wheel → folder of the checkout."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("inside", READ_AT_RUN_TIME)
def test_the_wheel_holds_what_is_read_at_run_time(unpacked: Path, inside: str) -> None:
    checkout = READ_AT_RUN_TIME[inside]
    files = [file for file in checkout.rglob("*") if file.is_file()]
    names = {str(file.relative_to(checkout)) for file in files if "__pycache__" not in file.parts}
    assert names
    assert {
        str(f.relative_to(unpacked / inside)) for f in (unpacked / inside).rglob("*.*")
    } >= names


def test_a_command_finds_its_configs_in_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    program = (
        "import ablations, hydra_plugins.ablations_sweeper as plugin; from ablations.cli import main; "
        "print(ablations.__file__, plugin.__file__); raise SystemExit(main(['plan']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].count(str(unpacked)) == 2
    assert "tokens per stage" in done.stdout
