"""fastText's training: the same text and seed give the same model, whatever the process's memory holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.data.quality.fasttext_training import train_fasttext, training_options
from ablations.errors import DataError

TRAIN = """
import sys
from pathlib import Path
from ablations.data.quality.fasttext_training import train_fasttext, training_options
train_fasttext(Path(sys.argv[1]), training_options(200, 3), Path(sys.argv[2]))
"""


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "train.txt"
    path.write_text("".join(f"__label__{n % 2} word{n % 7} x{n % 2} y\n" for n in range(200)))
    return path


def test_a_model_does_not_depend_on_what_the_memory_held(tmp_path: Path, lines: Path) -> None:
    """glibc fills each block that malloc returns where MALLOC_PERTURB_ asks for it."""
    models = []
    for name, fill in (("clean", {}), ("filled", {"MALLOC_PERTURB_": "165"})):
        out = tmp_path / f"{name}.bin"
        command = [sys.executable, "-c", TRAIN, str(lines), str(out)]
        subprocess.run(command, check=True, env={**os.environ, **fill})
        models.append(out.read_bytes())
    assert models[0] == models[1]


def test_a_training_that_diverges_at_every_rate_is_refused(tmp_path: Path, lines: Path) -> None:
    options = {**training_options(200, 0), "lr": 1e30}
    with pytest.raises(DataError, match=r"fastText diverges on them.*NaN.*kind=linear"):
        train_fasttext(lines, options, tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()


def test_a_training_that_dies_is_named_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its training died.*exit code 1.*nowhere\.txt"):
        train_fasttext(tmp_path / "nowhere.txt", training_options(9, 0), tmp_path / "model.bin")
