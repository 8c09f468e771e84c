"""The rule's error rate on simulated studies: small and seeded here, whole in benchmarks/."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeps.verdict.simulate import Setting, rates

STUDIES = 150
# 14 or more of 150 happen once in a hundred at a true rate of 5%.
MOST = 13 / STUDIES


@pytest.mark.parametrize(
    "setting",
    [
        Setting(candidates=2, seeds=2),
        Setting(candidates=2, seeds=1),
        Setting(candidates=5, seeds=3),
        Setting(candidates=5, seeds=3, baseline=False),
        Setting(candidates=12, seeds=3),
        Setting(candidates=12, seeds=1, whole_run=0.5),
    ],
    ids=lambda s: f"{s.candidates}-{s.seeds}-{s.baseline}-{s.whole_run}",
)
def test_equal_candidates_rarely_make_a_winner(setting: Setting) -> None:
    assert rates(setting, STUDIES, seed=1).wrong <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("design", ["search", "confirm"])
def test_choosing_the_best_of_a_search_makes_no_false_winners(design: str) -> None:
    setting = Setting(candidates=13, design=design)  # type: ignore[arg-type]
    found = rates(setting, STUDIES, seed=1)
    assert found.wrong <= MOST
    assert found.naive > 0.4


def test_power_grows_with_the_effect() -> None:
    setting = Setting(candidates=5, seeds=5)
    found = [rates(replace(setting, effect=e), 40, seed=2).right for e in (1.0, 2.0, 3.0)]
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.6
