"""Epoch caps apply at every position of a searched stage boundary."""

from __future__ import annotations

import pytest

from ablations.mixture.specs import ScheduleSpec, StageSpec
from sweeps.search.space import ParameterSpec, SearchSpaceSpec, SimplexSpec
from sweeps.study.resources import boundaries, resources_of
from tests.test_plan import composed_plain

SHARE = "schedule.stages.decay.share"
DECAY = SimplexSpec(sources=("synthetic_facts", "synthetic_junk"))
RANGE = ParameterSpec(kind="float", low=0.05, high=0.4)
STAGES = (
    "~schedule.stages.main",
    "+schedule.stages={stable:{share:rest},decay:{share:0.1,weights:{synthetic_facts:1.0}}}",
    "schedule.total_tokens=20480",
)


def test_a_searched_boundary_lies_at_either_end_of_its_range() -> None:
    schedule = ScheduleSpec(
        total_tokens=1000,
        stages={"stable": StageSpec(share="rest"), "decay": StageSpec(share=0.1)},
    )
    space = SearchSpaceSpec(mixtures={"mixture.weights": DECAY}, parameters={SHARE: RANGE})
    found = [one.budgets() for one in boundaries(schedule, space)]
    assert found == [{"stable": 950.0, "decay": 50.0}, {"stable": 600.0, "decay": 400.0}]
    fixed = SearchSpaceSpec(mixtures={"mixture.weights": DECAY})
    assert boundaries(schedule, fixed) == [schedule]


def test_shares_that_never_add_up_leave_the_schedule_as_it_is() -> None:
    schedule = ScheduleSpec(
        total_tokens=1000, stages={"stable": StageSpec(share=0.9), "decay": StageSpec(share=0.1)}
    )
    space = SearchSpaceSpec(parameters={SHARE: RANGE})
    assert boundaries(schedule, space) == [schedule]


def test_caps_count_the_longest_that_each_stage_can_be() -> None:
    space = SearchSpaceSpec(
        mixtures={"schedule.stages.decay.weights": DECAY}, parameters={SHARE: RANGE}
    )
    resources = resources_of(composed_plain(*STAGES, "data_dir=nowhere"), space)
    assert resources.caps is not None
    assert resources.caps.shares == {"schedule.stages.decay.weights": pytest.approx(0.4)}
    # The stable stage is 0.9 of the tokens as it stands, 0.95 at most; facts are 0.6 of its mixture.
    assert resources.caps.outside["synthetic_facts"] == pytest.approx(0.6 * 0.95)
