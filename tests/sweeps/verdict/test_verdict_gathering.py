"""Runs that a verdict gathers from a study's folders, and its reasons for leaving runs out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.errors import ConfigError, UserError
from ablations.files import write_json
from sweeps.study.run_results import write_failure
from sweeps.verdict.decide import decide
from sweeps.verdict.study_observations import gather


def test_a_study_whose_every_run_was_refused_is_known_and_tells_why(tmp_path: Path) -> None:
    for number in range(2):
        run = tmp_path / f"s/trial-000{number}-0"
        run.mkdir(parents=True)
        write_json(run / "trial.json", {})
        write_failure(run, "no such source\nand more")
    observed = gather(tmp_path, "s")
    assert dict(observed.left_out) == {
        f"trial-000{number}-0": "failed: no such source" for number in range(2)
    }
    with pytest.raises(UserError, match="trial-0001-0: failed: no such source"):
        decide(observed)


def test_a_study_of_which_nothing_is_known_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown study"):
        gather(tmp_path, "s")
