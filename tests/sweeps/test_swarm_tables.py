"""A table that was changed after its fit is noted by the next reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sweeps.swarm.fit_swarm import FitOptions, fit_swarm, write_fit
from sweeps.swarm.fitted_tables import FIT_FILE
from sweeps.swarm.swarm_tables import Swarm, read_pair


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    weights = np.random.default_rng(0).dirichlet([1.0, 1.0], 24)
    swarm = Swarm(
        runs=tuple(f"run-{n}" for n in range(24)),
        sources=("web", "code"),
        weights=weights,
        metrics=("loss",),
        values=2.0 + weights[:, :1],
    )
    write_fit(folder, swarm, fit_swarm(swarm, FitOptions(families=("linear",), resamples=2)))
    return folder


def notes(folder: Path) -> str:
    return "; ".join(read_pair(folder / "ratios.csv", folder / "metrics.csv").notes)


def test_tables_as_written_bring_no_note_and_a_changed_one_is_named(fitted: Path) -> None:
    assert notes(fitted) == ""
    table = fitted / "metrics.csv"
    whole = table.read_text()
    table.write_text(whole.replace("2.", "3.", 1))
    assert (
        notes(fitted) == f"metrics.csv: changed since it was written with {FIT_FILE}; read as it is"
    )
    table.write_text(whole)


def test_a_damaged_fit_is_noted_and_a_missing_one_is_not(fitted: Path) -> None:
    record = fitted / FIT_FILE
    whole = record.read_text()
    record.write_text(whole.replace('"direction"', '"directiom"').replace('"tables"', '"tablez"'))
    assert "ratios.csv: cannot be compared with what was written" in notes(fitted)
    record.unlink()
    assert notes(fitted) == ""
    record.write_text(whole)
