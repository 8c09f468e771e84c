"""The rule's error rate on simulated studies: small and seeded here, whole in benchmarks/."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.error_rates import Setting, rates

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


QUIET = (1.0,) * 11
# Kinds of study in which the pooled noise alone names a winner too often, and how often (1,000 studies).
NOT_IDEAL = {
    "clusters": Setting(cluster=5, liked=1.0),
    "wild baseline": Setting(candidates=12, sds=(25.0, *QUIET)),
    "noisy with few seeds": Setting(candidates=6, runs=(5, 5, 5, 2, 2, 2), sds=(1, 1, 1, 3, 3, 3)),
    "smooth checkpoints": Setting(candidates=5, seeds=1, correlation=0.95),
}


@pytest.mark.parametrize("setting", NOT_IDEAL.values(), ids=NOT_IDEAL)
def test_noise_that_is_not_ideal_rarely_makes_a_winner(setting: Setting) -> None:
    found = rates(setting, STUDIES, seed=1).wrong
    assert found <= MOST
    assert rates(setting, STUDIES, seed=1, plain=True).wrong > max(found, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        Setting(candidates=13, design="search"),
        Setting(candidates=41, design="confirm", liked=1.0, seeds=5),
        Setting(candidates=12, sds=(3.0, *QUIET)),
        Setting(candidates=12, sds=(*QUIET, 25.0)),
        Setting(candidates=12, runs=(5,) * 6 + (2,) * 6, sds=(1.0,) * 6 + (3.0,) * 6),
        Setting(candidates=12, seeds=1, correlation=0.8, whole_run=0.5),
        Setting(candidates=40, tails="t3"),
        Setting(candidates=40, sd_spread=0.7),
    ],
    ids=["search", "confirm", "baseline", "wild", "few seeds", "hidden", "t3", "lognormal"],
)
def test_many_studies_of_each_kind_rarely_make_a_winner(setting: Setting) -> None:
    # 26 or more of 300 happen once in two hundred at a true rate of 5%.
    assert rates(setting, 300, seed=2).wrong <= 25 / 300


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
