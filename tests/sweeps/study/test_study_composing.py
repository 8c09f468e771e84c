"""Configs composed from files read once equal those that Hydra composes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from ablations.config.schema import conf_dir
from sweeps.study.composing import Composer, plain_config
from tests.conftest import TINY

FILTER = (
    "+source.web={min_score:3}",
    "+source.web.store='web_min${source.web.min_score}'",
)


@pytest.fixture
def hydra() -> Iterator[tuple[Any, Any]]:
    """Return Hydra's loader and the config of a multirun."""
    from hydra.types import RunMode

    with initialize_config_dir(str(conf_dir())):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("run", [], run_mode=RunMode.MULTIRUN)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.peak_lr=0.01", "hydra.sweep.subdir=trial-0001-0", "trial=trial-0001"),
        ("++mixture.weights.synthetic_facts=0.25", "++mixture.weights.other=0.75"),
        (*FILTER, "source.web.min_score=4"),
        ("model=proxy_1m", "training.peak_lr=0.01"),
        ("~schedule.stages.main", "+schedule.stages.new={share:rest}"),
        ("++schedule.stages.two={share:rest}", "~schedule.stages.main", "trial=trial-0002"),
        ("++schedule.stages.two={share:rest}", "~schedule.stages.two", "training.peak_lr=0.01"),
        ("study='a, b'", "++labels.name=null", "schedule.lr.decay_share=main"),
    ],
)
def test_values_on_top_of_the_files_are_what_hydra_composes(
    hydra: tuple[Any, Any], overrides: tuple[str, ...]
) -> None:
    composer, given = Composer(*hydra), (*TINY, *overrides)
    composer(TINY)  # the files are read; what follows must not change them
    assert composer(given) == plain_config(*hydra, given)
    assert composer(TINY) == plain_config(*hydra, TINY)


def test_a_key_that_is_not_there_is_refused_as_hydra_refuses_it(hydra: tuple[Any, Any]) -> None:
    with pytest.raises(HydraException, match=r"training\.peek_lr"):
        Composer(*hydra)((*TINY, "training.peek_lr=1"))


def test_the_files_are_read_once(hydra: tuple[Any, Any], tmp_path: Path) -> None:
    loader, config = hydra
    read: list[list[str]] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(loader, name)

        def load_sweep_config(self, config: Any, overrides: list[str]) -> Any:
            read.append(overrides)
            return loader.load_sweep_config(config, overrides)

    composer = Composer(Counting(), config)  # type: ignore[arg-type]
    for seed in range(3):
        assert composer((*TINY, f"seed={seed}"))["seed"] == seed
    assert len(read) == 1
