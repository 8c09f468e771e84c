"""Every notebook runs from top to bottom in a kernel of its own, without a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "analysis" / "notebooks"
REGMIX = ROOT.parent / "shared" / "data" / "swarms" / "regmix"

# The kernel's own machinery, not ours: zmq and asyncio warn when a loop closes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

OFFLINE = """
import socket
class Offline(socket.socket):
    def connect(self, address):
        if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a notebook asked for the network: {address}")
        return super().connect(address)
socket.socket = Offline
"""


def execute(name: str, folder: Path) -> list[Any]:
    """Outputs of the notebook's cells."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(NOTEBOOKS / name)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(OFFLINE))
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(outputs: list[Any]) -> str:
    return "".join(o.get("text", "") for o in outputs if o.get("output_type") == "stream")


def drawn(outputs: list[Any]) -> int:
    kinds = [o.get("data", {}) for o in outputs]
    return sum("application/vnd.plotly.v1+json" in data for data in kinds)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Path:
    fixtures = Path(__file__).parent / "fixtures" / "runs"
    monkeypatch.setenv("ABLATIONS_RUNS", str(fixtures))
    monkeypatch.setenv("ABLATIONS_STUDY", "demo_ratio")
    monkeypatch.setenv("PYTHONPATH", str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    return fixtures


def test_a_study_is_read_from_first_look_to_promotion(runs: Path, tmp_path: Path) -> None:
    outputs = execute("reading_a_study.py", tmp_path)
    assert "What would settle it:" in printed(outputs)
    assert drawn(outputs) == 5


def test_the_published_table_is_a_tie(runs: Path, tmp_path: Path) -> None:
    outputs = execute("fineweb_edu_or_dclm.py", tmp_path)
    assert "Tie: fineweb_edu 60%, dclm 40% (60/40) is 0.433 ahead of" in printed(outputs)
    assert "chance alone gives as much in 26% of draws" in printed(outputs)
    assert drawn(outputs) == 2


def test_rankings_transfer_as_far_as_noise_lets_them(runs: Path, tmp_path: Path) -> None:
    outputs = execute("proxy_to_full.py", tmp_path)
    assert drawn(outputs) == 2


def test_a_study_of_fine_tuning_is_read_to_its_verdict(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABLATIONS_RUNS", str(runs.parent / "post"))
    monkeypatch.setenv("ABLATIONS_STUDY", "demo_sft_ratio")
    outputs = execute("fine_tuning_shares.py", tmp_path)
    said = printed(outputs)
    assert "ratios differ by 0.103, seeds of a ratio by at most 0.013" in said
    assert "at most 0 of 640 conversations off" in said
    assert "Winner: chat_turns 50%, code_tasks 50%" in said
    assert drawn(outputs) == 1


@pytest.mark.shared
def test_the_public_runs_are_refitted(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not REGMIX.is_dir():
        pytest.skip(f"RegMix's tables are not at {REGMIX}")
    monkeypatch.setenv("ABLATIONS_REGMIX", str(REGMIX))
    outputs = execute("regmix_refitted.py", tmp_path)
    assert "512 runs to fit on, 256 to test on, 17 domains" in printed(outputs)
    assert drawn(outputs) == 2


def test_every_notebook_is_run() -> None:
    text = Path(__file__).read_text()
    for notebook in NOTEBOOKS.glob("*.py"):
        assert f'execute("{notebook.name}"' in text
        assert notebook.name in (NOTEBOOKS / "README.md").read_text()
