"""Compare the sampler's arithmetic with numbers written down, and its edges with points on them."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.errors import ConfigError
from ablations.mixture import sampler as module
from ablations.mixture.mixture import Mixture
from ablations.mixture.sampler import Sampler
from ablations.mixture.schedule import Schedule, Stage

ONE = 1 << 60


def schedule_of(*weights: dict[str, float], samples: int = 8) -> Schedule:
    stages = tuple(
        Stage(name=f"s{number}", steps=samples, mixture=Mixture(own))
        for number, own in enumerate(weights)
    )
    return Schedule(stages=stages, sequence_length=8, batch_size=1)


def with_shift(monkeypatch: pytest.MonkeyPatch, shift: int, *weights: dict[str, float]) -> Sampler:
    """Return a sampler whose points are moved by ``shift``, not by one of the seed."""
    key = module._key
    monkeypatch.setattr(
        module, "_key", lambda *parts: shift if parts[1] == "shift" else key(*parts)
    )
    return Sampler(schedule_of(*weights), {"a": 50, "b": 50, "c": 50}, 0)


def sources_of(sampler: Sampler) -> str:
    return "".join(sampler.sources[k] for k in sampler.locate(np.arange(len(sampler))).source)


# ------------------------------------------------------------------------------ points and their edges


def test_an_index_is_mirrored_bit_by_bit() -> None:
    bits = np.concatenate(
        [np.arange(40), np.int64(1) << np.arange(60), np.random.default_rng(0).integers(0, ONE, 40)]
    )
    mirrored = [int(f"{value:060b}"[::-1], 2) for value in bits.tolist()]
    assert module._reverse(bits).tolist() == mirrored


def test_points_are_moved_around_the_circle() -> None:
    index, half, quarter = np.arange(4), ONE // 2, ONE // 4
    assert module._shifted(index, 3).tolist() == [3, half + 3, quarter + 3, half + quarter + 3]
    last = [ONE - 1, half - 1, quarter - 1, half + quarter - 1]
    assert module._shifted(index, ONE - 1).tolist() == last


@pytest.mark.parametrize(
    ("shift", "weights", "expected"),
    [
        # Points of eighths in the order 0 4 2 6 1 5 3 7; an edge belongs to the source above it.
        (0, {"a": 0.5, "b": 0.5}, "abababab"),
        (0, {"a": 0.25, "b": 0.75}, "abbbabbb"),
        (0, {"a": 0.125, "b": 0.375, "c": 0.5}, "acbcbcbc"),
        (ONE // 2, {"a": 0.5, "b": 0.5}, "babababa"),
        (ONE // 8, {"a": 0.25, "b": 0.75}, "abbbbbba"),
        (ONE - 1, {"a": 0.25, "b": 0.75}, "bbababbb"),
        (1, {"a": 0.25, "b": 0.75}, "abbbabbb"),
        (0, {"a": 0.0, "b": 0.5, "c": 0.5}, "bcbcbcbc"),
        (0, {"a": 0.5, "b": 0.5, "c": 0.0}, "abababab"),
        (ONE - 1, {"a": 0.5, "b": 0.5}, "baababab"),
    ],
)
def test_a_point_on_an_edge_is_the_upper_source_s_and_is_counted_there(
    monkeypatch: pytest.MonkeyPatch, shift: int, weights: dict[str, float], expected: str
) -> None:
    sampler = with_shift(monkeypatch, shift, weights)
    assert sources_of(sampler) == expected
    for stop in range(9):
        counts = {name: expected[:stop].count(name) for name in sampler.sources}
        assert sampler.counts(stop) == counts


def test_the_place_of_a_sample_goes_on_over_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}, {"b": 1.0}
    sampler = with_shift(monkeypatch, 0, *weights)
    assert sources_of(sampler) == "abababab" + "abbbabbb" + "bbbbbbbb"
    assert sampler.counts(8) == {"a": 4, "b": 4}
    assert sampler.counts(16) == {"a": 6, "b": 10}
    assert sampler.counts(24) == {"a": 6, "b": 18}
    placed = sampler.locate(np.arange(24))
    for number in (0, 1):
        mine = placed.source == number
        epochs, rows = sampler.rows_of(number, np.arange(mine.sum()))
        assert placed.epoch[mine].tolist() == epochs.tolist()
        assert placed.window[mine].tolist() == rows.tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 12, 100, 2**40 + 5])
def test_points_below_a_threshold_are_counted_to_the_point(n: int) -> None:
    few = np.arange(min(n, 128))
    points = module._reverse(few)
    thresholds = np.unique(np.concatenate([points, points + np.uint64(1), [ONE // 3, 0]]))
    found = module._count_below(n, thresholds.astype(np.int64))
    if n < 128:
        assert found.tolist() == [int((points < threshold).sum()) for threshold in thresholds]
    else:
        assert np.abs(found - n * (thresholds / ONE)).max() <= 42


def test_a_rank_counts_those_of_the_same_source_before() -> None:
    source = np.random.default_rng(1).integers(0, 3, 5000)
    start, seen, expected = [10, 0, 700], [0, 0, 0], []
    for one in source.tolist():
        expected.append(start[one] + seen[one])
        seen[one] += 1
    assert module._ranks(source, np.array(start)).tolist() == expected


# -------------------------------------------------------------------------------- order of windows


def test_windows_of_each_size_come_in_the_order_of_every_recorded_run() -> None:
    """A change here changes what every recorded run would read."""
    found = {}
    for size in ORDERS:
        sampler = Sampler(schedule_of({"web": 1.0}, samples=24), {"web": size}, 7)
        placed = sampler.locate(np.arange(24))
        assert placed.epoch.tolist() == [place // size for place in range(24)]
        for epoch in range(24 // size):
            assert sorted(placed.window[placed.epoch == epoch].tolist()) == list(range(size))
        found[size] = placed.window[:12].tolist()
    assert found == ORDERS


def test_a_slice_is_those_windows_of_every_recorded_run() -> None:
    sampler = Sampler(schedule_of({"web": 1.0}, samples=12), {"web": 64}, 7, {"web": 4})
    placed = sampler.locate(np.arange(12)).window.tolist()
    assert placed == SLICE
    assert [set(placed[start : start + 4]) for start in (0, 4, 8)] == [set(placed[:4])] * 3


ORDERS = {
    1: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    2: [0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0],
    3: [0, 2, 1, 2, 1, 0, 2, 1, 0, 0, 1, 2],
    4: [3, 2, 1, 0, 3, 1, 0, 2, 2, 1, 3, 0],
    5: [2, 4, 0, 3, 1, 0, 2, 1, 4, 3, 1, 0],
    15: [7, 6, 8, 3, 12, 4, 5, 11, 0, 14, 9, 2],
    16: [7, 6, 8, 3, 12, 4, 5, 11, 15, 14, 9, 2],
    17: [8, 4, 9, 11, 7, 16, 2, 10, 15, 3, 5, 0],
    64: [29, 47, 54, 11, 7, 43, 2, 10, 46, 41, 5, 53],
    65: [51, 27, 53, 56, 54, 29, 38, 61, 13, 35, 31, 23],
    256: [148, 152, 110, 195, 157, 135, 177, 112, 13, 204, 31, 114],
    300: [237, 199, 287, 32, 166, 186, 154, 220, 185, 171, 56, 151],
}
SLICE = [52, 31, 27, 17, 52, 27, 17, 31, 31, 27, 52, 17]

# ------------------------------------------------------------------------------------------- lookups


@pytest.mark.parametrize("block", [1, 5, 16])
def test_scattered_indices_are_located_in_whatever_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    weights = {"a": 0.7, "b": 0.3}, {"a": 0.1, "b": 0.9}
    sampler = Sampler(schedule_of(*weights, samples=30), {"a": 11, "b": 9}, 2)
    whole = sampler.locate(np.arange(60))
    monkeypatch.setattr(module, "_BLOCK", block)
    index = np.array([59, 0, 17, 17, 31, 30, 29, 4, 58])
    placed = sampler.locate(index)
    for name, part in vars(placed).items():
        assert part.tolist() == vars(whole)[name][index].tolist()


@pytest.mark.parametrize("index", [[-1], [8], [0, 8], [-1, 5], [3, 8, 2], [-1, 0, 1]])
def test_any_index_outside_the_schedule_is_refused(index: list[int]) -> None:
    sampler = Sampler(schedule_of({"a": 1.0}), {"a": 3}, 0)
    with pytest.raises(IndexError, match=r"sample index outside 0\.\.7"):
        sampler.locate(index)


def test_no_index_has_no_placement() -> None:
    placed = Sampler(schedule_of({"a": 1.0}), {"a": 3}, 0).locate([])
    assert [part.size for part in vars(placed).values()] == [0, 0, 0, 0]


def test_a_source_without_weight_needs_no_window() -> None:
    schedule = schedule_of({"a": 1.0, "b": 0.0})
    for windows in ({"a": 1}, {"a": 1, "b": 0}):
        sampler = Sampler(schedule, windows, 0)
        assert sampler.windows == {"a": 1, "b": 0}
        assert sampler.locate(np.arange(8)).window.tolist() == [0] * 8


def test_a_source_that_only_one_stage_reads_needs_a_window() -> None:
    schedule = schedule_of({"a": 1.0}, {"b": 1.0})
    assert Sampler(schedule, {"a": 1, "b": 1}, 0).windows == {"a": 1, "b": 1}
    with pytest.raises(ConfigError, match=r"source\.b: no window to read.*found: 0 windows of 9"):
        Sampler(schedule, {"a": 1, "b": 0}, 0)
    with pytest.raises(ConfigError) as caught:
        Sampler(schedule, {"a": 4, "b": 4}, 0, {"a": 0, "b": 0})
    assert [problem.where for problem in caught.value.problems] == ["source.a", "source.b"]
