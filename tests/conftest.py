"""Fixtures that several packages' tests share: a prepared workspace, and the command line in this process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# One thread a process: tests run side by side, and the number of threads changes the last bits of a loss.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The first example of a property pays for the imports, and tests run side by side: 674 ms were seen of
# one that took 38 ms when it was tried again. How long an example takes is no property of the code.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

TINY = (
    "experiment=synthetic",
    "schedule.total_tokens=2048",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "training.sequence_length=32",
    "training.checkpoints=2",
    "execution.threads=1",
    "evaluation.max_items=8",
    "evaluation.heldout_max_items=4",
    "progress=false",
)
"""Overrides of a run that trains in a second: 8 steps of 8 × 32 tokens."""

SHORT_SOURCES = tuple(
    f"+source.synthetic_{skill}={{origin:{{kind:synthetic,skill:{skill},documents:400,seed:0}}}}"
    for skill in ("facts", "arithmetic", "junk")
)
"""Overrides that generate a fiftieth of each skill's text."""


@dataclass(frozen=True)
class Answer:
    """Output and exit code of a command."""

    code: int
    out: str
    err: str


Ablate = Callable[..., Answer]


@pytest.fixture
def ablate(capfd: pytest.CaptureFixture[str]) -> Ablate:
    """Call ``ablate`` in this process."""

    def call(*arguments: str) -> Answer:
        from hydra.core.global_hydra import GlobalHydra

        from ablations.cli import main

        GlobalHydra.instance().clear()
        capfd.readouterr()
        code = main(list(arguments))
        said = capfd.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A data folder with the synthetic sources prepared, shared by all test processes."""
    root = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        root = root.parent
    folder = root / "prepared"
    with FileLock(root / "prepared.lock"):
        if not folder.exists():
            _prepare(root / "preparing")
            (root / "preparing").rename(folder)
    return folder


def _prepare(folder: Path) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir, load
    from ablations.data.prepare import prepare

    with initialize_config_dir(str(conf_dir())):
        composed = compose("run", overrides=[*TINY, *SHORT_SOURCES])
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    run = load({str(key): value for key, value in plain.items()})
    prepare(run.source, run.tokenizer, folder)


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own with ``data/`` prepared, and the process inside it."""
    shutil.copytree(prepared, tmp_path / "data", copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    return tmp_path
