"""Where a low rung is off by itself, and where runs pause."""

from __future__ import annotations

from typing import Any

import pytest

from ablations.config.schema import RunConfig
from sweeps.search.space import SearchSpaceSpec, SimplexSpec
from sweeps.search.space.specs import ParameterSpec
from sweeps.study.rungs import rung_of
from sweeps.study.specs import FidelitySpec, SearchSpec, StrategySpec
from tests.sweeps.study.builders import spec
from tests.test_plan import composed

SOURCES = ("synthetic_facts", "synthetic_arithmetic", "synthetic_junk")
PATH = "mixture.weights"


def run(*overrides: str) -> RunConfig:
    """Return a run of 40 steps of 256 tokens: warm-up of 2 steps, decay over the last 8."""
    return composed("experiment=synthetic", "schedule.total_tokens=10240", *overrides)


def search(share: float | None = 0.3, path: str = PATH, **space: Any) -> SearchSpec:
    mixtures = {path: SimplexSpec(sources=SOURCES)}
    return spec(
        strategy=StrategySpec(),
        space=SearchSpaceSpec(mixtures=mixtures, **space),
        fidelity=FidelitySpec(share=share),
    )


def test_runs_pause_at_a_whole_step_that_is_a_checkpoint_of_all_runs() -> None:
    rung = rung_of(search(), run("training.checkpoints=2"), None, 3)
    assert rung is not None
    assert rung.used
    assert (rung.share, rung.tokens) == (0.3, 12 * 256)
    assert rung.checkpoints == (12 * 256, 20 * 256, 40 * 256)
    assert rung.overrides == ["training.checkpoints=[3072,5120,10240]"]


def test_a_checkpoint_that_runs_have_anyway_changes_nothing() -> None:
    rung = rung_of(search(0.5), run("training.checkpoints=2"), None, 3)
    assert rung is not None
    assert rung.overrides == []


def test_a_search_without_a_share_has_no_rung() -> None:
    assert rung_of(search(None), run(), None, 3) is None


@pytest.mark.parametrize(
    ("share", "overrides", "units", "reason"),
    [
        pytest.param(0.9, (), None, "not on the plateau", id="in the decay"),
        pytest.param(0.02, (), None, "not on the plateau", id="in the warm-up"),
        pytest.param(0.3, (), 40.0, "full runs are as good", id="many full runs"),
        pytest.param(0.3, ("warm_start.checkpoint=x",), None, "do not pause", id="warm start"),
    ],
)
def test_a_rung_that_does_not_pay_is_off_with_its_reason(
    share: float, overrides: tuple[str, ...], units: float | None, reason: str
) -> None:
    rung = rung_of(search(share), run(*overrides), units, 3)
    assert rung is not None
    assert not rung.used
    assert reason in rung.off
    assert rung.distance is None
    assert rung.overrides == []


@pytest.mark.parametrize(("share", "used"), [(0.3, False), (0.75, True)])
def test_a_stage_that_begins_after_the_pause_needs_full_runs(share: float, used: bool) -> None:
    stages = (
        "schedule.stages.main.share=0.7",
        "+schedule.stages.late={share:0.3,weights:{"
        + ",".join(f"{name}:{1 / 3}" for name in SOURCES)
        + "}}",
    )
    rung = rung_of(search(share, "schedule.stages.late.weights"), run(*stages), None, 3)
    assert rung is not None
    assert rung.used is used
    assert used or "the searched stage late begins after step 12" in rung.off


def test_a_searched_schedule_is_off() -> None:
    parameter = ParameterSpec(kind="float", low=0.1, high=0.3)
    rung = rung_of(search(parameters={"schedule.lr.decay_share": parameter}), run(), None, 3)
    assert rung is not None
    assert "schedule.lr.decay_share changes the schedule" in rung.off
