"""Read exports with the other trainer's own loader: tokens are equal, shares within 0.1%.

The loaders have a separate environment, ``.venv-exports`` (``make exports-env``).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.exporters.export_folder import write_export
from sweeps.exporters.export_plan import ExportPlan
from tests.sweeps.exporters.conftest import (
    EOS,
    LENGTH,
    SOURCES,
    STAGES,
    shares_of,
    sources_of,
    stored_files,
    stored_windows,
)

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-exports/bin/python"
STEMS = {"1_stable": "stable", "2_decay": "decay"}
TOLERANCE = 1e-3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / ".venv-exports/.installed").exists(),
        reason="no environment of the loaders: run `make exports-env`",
    ),
]

Plans = Callable[[int], ExportPlan]
Read = tuple[ExportPlan, Any]


def loaded(script: str, format_name: str, plans: Plans, out: Path, *modes: str) -> list[Read]:
    """Export once for each width of a token, and read the exports in the loaders' environment.

    Two exports share a process, because importing the loader takes long.
    """
    found, words = [], []
    for token_bytes, mode in zip((2, 4), modes, strict=False):
        plan = plans(token_bytes)
        here = out / str(token_bytes)
        folder, _ = write_export(plan, format_name, out=here, tokens=mode)
        words += [folder, here / "read.npz"]
        found.append((plan, here / "read.npz"))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "hf")}
    done = subprocess.run(
        [PYTHON, "-W", "ignore", Path(__file__).parent / "loaders" / script, *words],
        capture_output=True,
        text=True,
        env=env,
        cwd=out,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [(plan, np.load(path)) for plan, path in found]


def assert_shares(found: dict[str, float], stem: str) -> None:
    asked = STAGES[STEMS[stem]][1]
    for source in SOURCES:
        assert found.get(source, 0.0) == pytest.approx(asked[source], abs=TOLERANCE), (stem, source)


def test_megatron(made_plan: Plans, tmp_path: Path) -> None:
    for plan, read in loaded("read_megatron.py", "megatron", made_plan, tmp_path, "copy", "link"):
        for source in SOURCES:
            for number, expected in enumerate(stored_files(plan, source)):
                part = f"{source}/{number:05d}"
                np.testing.assert_array_equal(read[f"tokens/{part}"], expected)
                lengths = np.diff(np.flatnonzero(expected == EOS), prepend=-1)
                np.testing.assert_array_equal(read[f"lengths/{part}"], lengths)
                documents = np.arange(len(lengths) + 1)
                np.testing.assert_array_equal(read[f"documents/{part}"], documents)
        for stem, stage in zip(STEMS, plan.stages, strict=True):
            rows = read[f"samples/{stem}"]
            assert rows.shape == (stage.samples, LENGTH)
            assert_shares(shares_of(rows), stem)


def test_olmo_core(made_plan: Plans, tmp_path: Path) -> None:
    for plan, read in loaded("read_olmo_core.py", "olmo-core", made_plan, tmp_path, "link", "copy"):
        for source in SOURCES:
            for number, expected in enumerate(stored_files(plan, source)):
                whole = len(expected) // LENGTH * LENGTH
                instances = read[f"tokens/{source}/{number:05d}"]
                np.testing.assert_array_equal(instances.ravel(), expected[:whole])
        for stem, stage in zip(STEMS, plan.stages, strict=True):
            rows = read[f"samples/{stem}"]
            assert len(rows) == pytest.approx(stage.samples, rel=TOLERANCE)
            assert_shares(shares_of(rows), stem)


def test_litdata(made_plan: Plans, tmp_path: Path) -> None:
    for plan, read in loaded("read_litdata.py", "litdata", made_plan, tmp_path, "copy", "copy"):
        for source in SOURCES:
            np.testing.assert_array_equal(read[f"tokens/{source}"], stored_windows(plan, source))
        for stem in STEMS:
            sources_of(read[f"samples/{stem}"])  # every sample is of one source
            assert_shares(json.loads(str(read[f"shares/{stem}"])), stem)


def test_mosaicml(made_plan: Plans, tmp_path: Path) -> None:
    for plan, read in loaded("read_mosaicml.py", "mosaicml", made_plan, tmp_path, "copy", "copy"):
        for source in SOURCES:
            np.testing.assert_array_equal(read[f"tokens/{source}"], stored_windows(plan, source))
        for stem, stage in zip(STEMS, plan.stages, strict=True):
            rows = read[f"samples/{stem}"]
            assert rows.shape == (stage.samples, LENGTH + 1)
            assert_shares(shares_of(rows), stem)


def test_torchtitan(made_plan: Plans, tmp_path: Path) -> None:
    for plan, read in loaded(
        "read_torchtitan.py", "torchtitan", made_plan, tmp_path, "copy", "link"
    ):
        for source in SOURCES:
            expected = np.concatenate(stored_files(plan, source))
            np.testing.assert_array_equal(read[f"tokens/{source}"], expected)
        for stem in STEMS:
            rows = read[f"samples/{stem}"]
            assert rows.shape[1] == LENGTH
            # The loader draws its sources as the million draws do, whose shares are compared.
            order = [SOURCES.index(str(name)) for name in read[f"order/{stem}"]]
            np.testing.assert_array_equal(sources_of(rows), order)
            assert_shares(json.loads(str(read[f"shares/{stem}"])), stem)


def test_litgpt(made_plan: Plans, tmp_path: Path) -> None:
    asked = subprocess.run([PYTHON, "-c", "import lightning"], capture_output=True)
    if asked.returncode:
        pytest.skip("litgpt is not in the environment of the loaders: run `make test-exports`")
    for plan, read in loaded("read_litgpt.py", "litgpt", made_plan, tmp_path, "copy", "copy"):
        for source in SOURCES:
            np.testing.assert_array_equal(read[f"tokens/{source}"], stored_windows(plan, source))
