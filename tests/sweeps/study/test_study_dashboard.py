"""Optuna and optuna-dashboard read the journal of a study."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.search.space import SearchSpaceSpec, SimplexSpec
from sweeps.search.space.specs import ParameterSpec
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import ConfirmSpec, ObjectiveSpec
from sweeps.study.study_state import StudyState
from tests.sweeps.study.builders import SOURCES, all_runs, spec, strategy, study

PARAMETERS = {
    "training.peak_lr": ParameterSpec(kind="log", low=1e-4, high=1e-2),
    "training.batch_size": ParameterSpec(kind="int", low=4, high=16),
    "model": ParameterSpec(kind="choice", choices=("proxy_1m", "proxy_4m")),
}
OBJECTIVES = {
    "loss": ObjectiveSpec(direction="minimize"),
    "web": ObjectiveSpec(metrics=("web/bpb",), direction="minimize"),
}


@pytest.fixture
def ended(tmp_path: Path) -> StudyState:
    """A study of two objectives whose space has a mixture and a parameter of every kind."""
    mixtures = {"mixture.weights": SimplexSpec(sources=SOURCES)}
    space = SearchSpaceSpec(mixtures=mixtures, parameters=PARAMETERS)
    search = spec(space=space, objectives=OBJECTIVES, confirm=ConfirmSpec(finalists=0))
    state = study(tmp_path, search)
    scheduler = SearchScheduler(strategy(search), pick=None)
    all_runs(state, lambda s, busy, free_workers: scheduler.next_runs(s, busy, free_workers))
    return study(tmp_path, search)


def test_optuna_sees_every_parameter_and_the_names_of_the_objectives(ended: StudyState) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(ended.folder / "journal.log")))
    loaded = optuna.load_study(study_name="s", storage=storage)
    assert storage.get_study_system_attrs(0)["study:metric_names"] == ["loss", "web"]
    for mine, theirs in zip(ended.trials, loaded.trials, strict=True):
        assert set(theirs.params) == {*(f"mixture.weights.{s}" for s in SOURCES), *PARAMETERS}
        assert {p: theirs.params[p] for p in PARAMETERS} == {
            p: mine.spec.point[p] for p in PARAMETERS
        }
    assert loaded.trials[0].distributions["training.peak_lr"].log  # type: ignore[attr-defined]


@pytest.fixture
def served(ended: StudyState) -> Iterator[str]:
    """Start the dashboard and return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(sys.executable).with_name("optuna-dashboard")
    command = [str(script), "--port", str(port), str(ended.folder / "journal.log")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def fetched(address: str) -> bytes:
    """Return a page, requested until the server answers."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(address) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.URLError:
            time.sleep(0.25)
    raise TimeoutError(address)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("optuna_dashboard") is None,
    reason="the extra `dashboard` is not installed",
)
def test_the_dashboard_serves_a_study_by_one_command(served: str, ended: StudyState) -> None:
    study_id = json.loads(fetched(f"{served}/api/studies"))["study_summaries"][0]["study_id"]
    shown: dict[str, Any] = json.loads(fetched(f"{served}/api/studies/{study_id}"))
    assert shown["objective_names"] == ["loss", "web"]
    assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * len(ended.trials)
    values = [trial["values"] for trial in shown["trials"]]
    assert values == [list(ended.history().values(trial) or ()) for trial in ended.trials]
    assert b"Optuna Dashboard" in fetched(f"{served}/dashboard")
