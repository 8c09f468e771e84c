"""The sampler is a pure function of (schedule, seed, index), exact over every prefix."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.errors import AuditError, ConfigError
from ablations.mixture.audit import WindowCounts, audit
from ablations.mixture.mixture import Mixture
from ablations.mixture.sampler import Placement, Sampler
from ablations.mixture.schedule import Schedule, Stage
from tests.oracles.counts import closed_counts

NAMES = ("web", "code", "math", "chat", "books")


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    stages = []
    for number in range(draw(st.integers(1, 3))):
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
        raw = {name: draw(st.floats(0.0, 1.0)) for name in names}
        raw[names[0]] += 0.01
        stages.append(
            Stage(
                name=f"stage{number}",
                steps=draw(st.integers(1, 120)),
                mixture=Mixture(raw, normalize=True),
            )
        )
    return Schedule(stages=tuple(stages), sequence_length=8, batch_size=draw(st.integers(1, 7)))


windows_of = st.fixed_dictionaries({name: st.integers(1, 60) for name in NAMES})
seeds = st.integers(0, 2**31)


def same(left: Placement, right: Placement) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("stage", "source", "epoch", "window")
    )


def rows(placement: Placement, which: object) -> Placement:
    return Placement(
        *(getattr(placement, n)[which] for n in ("stage", "source", "epoch", "window"))
    )


@given(schedules(), windows_of, seeds)
def test_every_prefix_holds_each_source_within_a_few_windows_of_its_weight(
    schedule: Schedule, windows: dict[str, int], seed: int
) -> None:
    sampler = Sampler(schedule, windows, seed)
    placement = sampler.locate(np.arange(len(sampler)))
    edge = 0
    for number, stage in enumerate(schedule.stages):
        inside = placement.source[placement.stage == number]
        position = np.arange(1, inside.size + 1)
        for index, name in enumerate(sampler.sources):
            gap = np.cumsum(inside == index) - stage.mixture.get(name, 0.0) * position
            assert np.all(np.abs(gap) <= np.log2(position) / 2 + 2)
        edge += inside.size
    assert edge == len(sampler)


@given(schedules(), windows_of, seeds, st.data())
def test_counts_are_what_locate_hands_out(
    schedule: Schedule, windows: dict[str, int], seed: int, data: st.DataObject
) -> None:
    sampler = Sampler(schedule, windows, seed)
    placement = sampler.locate(np.arange(len(sampler)))
    n = data.draw(st.integers(0, len(sampler)))
    counted = np.bincount(placement.source[:n], minlength=len(sampler.sources))
    assert sampler.counts(n) == dict(zip(sampler.sources, counted.tolist(), strict=True))


@given(schedules(), windows_of, seeds)
def test_an_epoch_reads_each_window_once_across_stages(
    schedule: Schedule, windows: dict[str, int], seed: int
) -> None:
    sampler = Sampler(schedule, windows, seed)
    placement = sampler.locate(np.arange(len(sampler)))
    for index, name in enumerate(sampler.sources):
        mine = placement.source == index
        epochs, read = placement.epoch[mine], placement.window[mine]
        assert np.all(np.diff(epochs) >= 0)
        for epoch in np.unique(epochs):
            turn = read[epochs == epoch]
            assert np.unique(turn).size == turn.size
            if epoch < epochs[-1]:
                assert turn.size == windows[name]
        assert np.all((read >= 0) & (read < windows[name]))


@given(schedules(), windows_of, seeds, st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_a_sample_does_not_depend_on_what_else_is_asked(
    schedule: Schedule, windows: dict[str, int], seed: int, wanted: list[int]
) -> None:
    indices = np.array(wanted) % len(Sampler(schedule, windows, seed))
    whole = Sampler(schedule, windows, seed).locate(np.arange(indices.max() + 1))
    assert same(Sampler(schedule, windows, seed).locate(indices), rows(whole, indices))


@given(schedules(), windows_of, seeds)
def test_a_source_keeps_its_order_whatever_else_is_in_the_mixture(
    schedule: Schedule, windows: dict[str, int], seed: int
) -> None:
    first = schedule.sources[0]
    alone = Schedule(
        stages=(Stage(name="alone", steps=schedule.total_samples, mixture=Mixture({first: 1.0})),),
        sequence_length=8,
        batch_size=1,
    )
    mixed = Sampler(schedule, windows, seed).locate(np.arange(schedule.total_samples))
    mine = mixed.window[mixed.source == 0]
    single = Sampler(alone, windows, seed).locate(np.arange(schedule.total_samples))
    assert np.array_equal(mine, single.window[: mine.size])


def test_a_batch_size_only_cuts_the_same_samples_differently() -> None:
    mixture = Mixture({"web": 0.7, "code": 0.3})

    def made(steps: int, batch_size: int) -> Placement:
        stage = Stage(name="a", steps=steps, mixture=mixture)
        schedule = Schedule(stages=(stage,), sequence_length=8, batch_size=batch_size)
        return Sampler(schedule, {"web": 50, "code": 50}, 3).locate(np.arange(240))

    assert same(made(60, 4), made(10, 24))


def test_seeds_and_epochs_change_the_order() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=200, mixture=Mixture({"web": 1.0})),),
        sequence_length=8,
        batch_size=1,
    )
    one = Sampler(schedule, {"web": 100}, 0).locate(np.arange(200)).window
    two = Sampler(schedule, {"web": 100}, 1).locate(np.arange(200)).window
    assert not np.array_equal(one[:100], two[:100])
    assert not np.array_equal(one[:100], one[100:])
    # Neighbours in the order are not neighbours in the store.
    assert np.mean(np.abs(np.diff(one[:100])) == 1) < 0.1


def test_a_slice_is_a_fixed_part_of_the_source() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=100, mixture=Mixture({"web": 1.0})),),
        sequence_length=8,
        batch_size=1,
    )
    sampler = Sampler(schedule, {"web": 1000}, 0, slices={"web": 25})
    placement = sampler.locate(np.arange(100))
    for epoch in range(4):
        assert np.unique(placement.window[placement.epoch == epoch]).size == 25
    assert np.unique(placement.window).size == 25
    assert placement.window.max() > 500  # spread over the source, not its head


def test_a_slice_larger_than_the_source_reads_what_is_there() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=100, mixture=Mixture({"web": 1.0})),),
        sequence_length=8,
        batch_size=1,
    )
    sampler = Sampler(schedule, {"web": 40}, seed=3, slices={"web": 10**6})
    assert sampler.windows == {"web": 40}
    placed = sampler.locate(np.arange(100))
    assert set(placed.window.tolist()) == set(range(40))
    assert placed.epoch.max() == 2


def eleven_trillion_tokens(sources: int = 60) -> tuple[Schedule, dict[str, int]]:
    rng = np.random.default_rng(0)
    names = [f"source{k}" for k in range(sources)]
    stages = tuple(
        Stage(
            name=f"stage{k}",
            steps=steps,
            mixture=Mixture(dict(zip(names, rng.dirichlet(np.ones(sources)), strict=True))),
        )
        for k, steps in enumerate((2_861_000, 954_000, 954_000, 477_000))
    )
    schedule = Schedule(stages=stages, sequence_length=2048, batch_size=1024)
    return schedule, dict.fromkeys(names, 10**8)


def test_sample_five_billion_needs_no_more_memory_than_sample_zero() -> None:
    schedule, windows = eleven_trillion_tokens()
    tracemalloc.start()
    sampler = Sampler(schedule, windows, 0)
    late = sampler.locate(np.arange(5_000_000_000, 5_000_001_024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert late.window.size == 1024
    assert peak < 5 * 2**20
    asked = schedule.stages[3].mixture
    counts = sampler.counts(len(sampler))
    before = sampler.counts(schedule.first_step(3) * 1024)
    total = schedule.stages[3].steps * 1024
    for name in sampler.sources:
        assert abs(counts[name] - before[name] - asked[name] * total) <= math.log2(total) / 2 + 2


@pytest.mark.parametrize("index", [-1, 8])
def test_an_index_outside_the_schedule_is_refused(index: int) -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=2, mixture=Mixture({"web": 1.0})),),
        sequence_length=8,
        batch_size=4,
    )
    with pytest.raises(IndexError, match=r"0\.\.7"):
        Sampler(schedule, {"web": 3}, 0).locate([index])


def test_a_weighted_source_without_a_window_is_refused() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=2, mixture=Mixture({"web": 0.5, "code": 0.5})),),
        sequence_length=8,
        batch_size=4,
    )
    with pytest.raises(ConfigError, match=r"source\.code: no window"):
        Sampler(schedule, {"web": 3}, 0)


def test_the_order_is_the_same_on_every_machine_and_version() -> None:
    # Golden values: a change here changes what every recorded run would read.
    schedule = Schedule(
        stages=(Stage(name="a", steps=4, mixture=Mixture({"web": 0.75, "code": 0.25})),),
        sequence_length=8,
        batch_size=4,
    )
    placement = Sampler(schedule, {"web": 100, "code": 7}, 42).locate(np.arange(16))
    assert placement.source.tolist() == GOLDEN_SOURCES
    assert placement.window.tolist() == GOLDEN_WINDOWS


GOLDEN_SOURCES = [1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]
GOLDEN_WINDOWS = [6, 56, 27, 46, 82, 52, 38, 1, 4, 49, 11, 92, 21, 60, 19, 0]


@settings(deadline=None)
@given(schedules(), windows_of, seeds)
def test_the_audit_of_what_was_read_agrees_with_the_closed_form(
    schedule: Schedule, windows: dict[str, int], seed: int
) -> None:
    sampler = Sampler(schedule, windows, seed)
    read = WindowCounts(schedule)
    for start in range(0, len(sampler), 50):
        read.add(sampler.locate(np.arange(start, min(start + 50, len(sampler)))))
    closed = closed_counts(sampler, len(sampler))
    assert np.array_equal(read.array, closed.array)
    assert audit(schedule, read.array, windows, tolerance=1e-3).ok


@pytest.mark.parametrize(
    ("asked", "realised"), [(0.5, 0.006), (0.5, 0.94)], ids=["wikipedia", "fifty-fifty"]
)
def test_the_two_documented_failures_of_others_fail_the_audit(
    asked: float, realised: float
) -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=10_000, mixture=Mixture({"wiki": asked, "web": 1 - asked})),),
        sequence_length=8,
        batch_size=10,
    )
    wiki = round(realised * 100_000)
    counts = np.array([[wiki, 100_000 - wiki]])
    result = audit(schedule, counts, {"wiki": 10, "web": 10}, tolerance=1e-3)
    assert not result.ok
    with pytest.raises(AuditError, match="asked was 50"):
        result.require()


def test_a_source_that_was_not_asked_for_fails_the_audit() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=1000, mixture=Mixture({"web": 1.0, "code": 0.0})),),
        sequence_length=8,
        batch_size=1,
    )
    assert not audit(schedule, np.array([[999, 1]]), {"web": 9, "code": 9}, tolerance=1e-3).ok


def one_stage(weights: dict[str, float], steps: int) -> Schedule:
    return Schedule(
        stages=(Stage(name="a", steps=steps, mixture=Mixture(weights)),),
        sequence_length=8,
        batch_size=1,
    )


@pytest.mark.parametrize("direction", [-1, 1], ids=["under", "over"])
def test_the_audit_draws_its_line_at_the_tolerance_and_the_samplers_bound(direction: int) -> None:
    total = 2**20
    schedule = one_stage({"web": 0.5, "code": 0.5}, total)
    # 1,048 windows are 0.1%; the sampler may be off by log2(2**20) / 2 + 2 = 12 more.
    for gap, ok in ((1060, True), (1061, False)):
        web = total // 2 + direction * gap
        counts = np.array([[web, total - web]])
        found = audit(schedule, counts, {"web": 9, "code": 9}, tolerance=1e-3)
        assert found.ok is ok, gap


def test_one_source_that_is_read_too_little_fails_though_no_other_is_read_too_much() -> None:
    names = [f"s{n}" for n in range(20)]
    total = 1_000_000
    schedule = one_stage(dict.fromkeys(names, 0.05), total)
    counts = np.full((1, 20), 50_500)  # 0.05% more than asked, within the tolerance
    counts[0, 7] = 50_000 - 19 * 500  # 0.95% less
    found = audit(schedule, counts, dict.fromkeys(names, 9), tolerance=1e-3)
    assert not found.ok
    assert found.worst.source == "s7"


@pytest.mark.parametrize("samples", [0, 1, 30, 59, 60, 61, 90, 120])
def test_the_closed_form_counts_no_sample_beyond_those_asked_for(samples: int) -> None:
    stages = tuple(
        Stage(name=name, steps=60, mixture=Mixture(weights))
        for name, weights in (("a", {"web": 0.7, "code": 0.3}), ("b", {"web": 0.2, "code": 0.8}))
    )
    schedule = Schedule(stages=stages, sequence_length=8, batch_size=1)
    sampler = Sampler(schedule, {"web": 7, "code": 9}, seed=1)
    read = WindowCounts(schedule)
    read.add(sampler.locate(np.arange(samples)))
    closed = closed_counts(sampler, samples)
    assert np.array_equal(closed.array, read.array)
    assert closed.array.sum() == samples
