"""Median rule of the pruner, and the studies that may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.slots_launcher.launcher import SlotsLauncher

from ablations.errors import ConfigError
from ablations.files import append_json_line, read_json
from sweeps.study.executor import Executor
from sweeps.study.pruning import Curve, Pruner, behind
from sweeps.study.run_results import outcome_of
from sweeps.study.specs import SearchSpec, StrategySpec
from sweeps.study.sweep import _pruner, read_request
from sweeps.study.trial import TrialSpec

STEPS = 60


def curve(level: float, until: int = STEPS) -> Curve:
    return {step: level + 1.0 / step for step in range(1, until + 1)}


FINISHED = [curve(level) for level in (1.0, 1.1, 1.2, 1.3, 1.4)]


@pytest.mark.parametrize(
    ("level", "until", "finished", "ends"),
    [
        (2.0, 30, FINISHED, True),
        (1.0, 30, FINISHED, False),
        (2.0, 10, FINISHED, False),
        (2.0, 30, FINISHED[:4], False),
        (2.0, STEPS, FINISHED, False),
        (2.0, 0, FINISHED, False),
    ],
)
def test_the_median_rule(level: float, until: int, finished: list[Curve], ends: bool) -> None:
    assert (behind(curve(level, until), finished) is not None) == ends


def test_a_pruned_run_has_its_reason_on_disk_before_it_is_ended(tmp_path: Path) -> None:
    folders = [tmp_path / f"trial-{i:04d}-0" for i in range(6)]
    for folder, losses in zip(folders, [*FINISHED, curve(2.0, 30)], strict=True):
        folder.mkdir()
        for step, loss in losses.items():
            append_json_line(folder / "metrics.jsonl", {"step": step, "loss": loss})
    pruner = Pruner()
    ended = pruner.look([folders[5]], folders[:5])
    assert list(ended) == [folders[5]]
    assert read_json(folders[5] / "pruned.json")["reason"] == ended[folders[5]]
    assert pruner.look([folders[5]], folders[:5]) == {}
    found = outcome_of(tmp_path, TrialSpec(number=5, phase="search"), 0)
    assert found is not None
    assert (found.status, found.reason) == ("pruned", ended[folders[5]])


def test_mixtures_are_not_pruned_by_loss() -> None:
    search: dict[str, Any] = {
        "space": {"mixtures": {"mixture.weights": {"sources": ["a", "b"]}}},
        "strategy": {"pruner": "median"},
        "objectives": {"score": {"direction": "minimize"}},
        "budget": {"trials": 3},
    }
    with pytest.raises(ConfigError, match="do not compare between mixtures"):
        read_request({"search": search}, [])


def test_a_launcher_that_cannot_end_a_run_cannot_prune() -> None:
    asked = SearchSpec(strategy=StrategySpec(pruner="median"))
    with pytest.raises(ConfigError, match="hydra/launcher=slots"):
        _pruner(asked, Executor(object(), "thread", 1))


def test_a_launcher_of_slots_can_prune() -> None:
    launcher = SlotsLauncher(slots=1, threads=1, devices_per_slot=1, preload=[])
    launching = Executor(launcher, "thread", 1)
    assert launching.can_end
    asked = SearchSpec(strategy=StrategySpec(pruner="median"))
    assert isinstance(_pruner(asked, launching), Pruner)
