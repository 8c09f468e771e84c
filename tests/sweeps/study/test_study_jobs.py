"""Combinations of a command line, and overrides of a trial's runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import ConfigError
from ablations.terminal import quoted
from sweeps.study.job_overrides import identity, job_overrides, read_command
from sweeps.study.trial import TrialSpec


def parsed(override: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override).value()


@given(st.floats(0.0, 1.0))
def test_weights_keep_every_digit(weight: float) -> None:
    spec = TrialSpec(
        number=7, phase="design", point={"mixture.weights": {"web": weight, "math": 0.0}}
    )
    overrides = job_overrides(spec, 0, "s", [])
    assert parsed(overrides[0]) == weight
    assert overrides[1] == "++mixture.weights.math=0.0"


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=20))
def test_names_survive_the_override_grammar(text: str) -> None:
    value = parsed(f"key={quoted(text)}")
    assert value == text
    assert isinstance(value, str)


@pytest.mark.parametrize("value", [3, 0.25, 1e-05, True, False])
def test_values_survive_the_override_grammar(value: Any) -> None:
    assert parsed(f"key={quoted(value)}") == value


def test_a_run_gets_its_study_trial_and_seed() -> None:
    spec = TrialSpec(number=7, phase="search", name="60/40", point={"training.peak_lr": 0.001})
    overrides = job_overrides(spec, 2, "demo", ["model=small"])
    assert overrides == [
        "model=small",
        "training.peak_lr=0.001",
        "study=demo",
        "trial=trial-0007",
        "seed=2",
        "++labels.phase=search",
        "++labels.name='60/40'",
        "hydra.sweep.subdir=trial-0007-2",
    ]


def test_stages_get_their_own_weights() -> None:
    spec = TrialSpec(
        number=0, phase="search", point={"schedule.stages.decay.weights": {"web": 1.0}}
    )
    assert job_overrides(spec, 0, "s", [])[0] == "++schedule.stages.decay.weights.web=1.0"


def test_a_sweep_s_seeds_are_the_replicates_of_its_combinations() -> None:
    command = read_command(["a=1", "b=x,y", "seed=0,1", "c=range(2)"])
    assert command.fixed == ("a=1",)
    assert command.seeds == (0, 1)
    assert command.combinations == (("b=x", "c=0"), ("b=x", "c=1"), ("b=y", "c=0"), ("b=y", "c=1"))


def test_seeds_alone_sweep_nothing() -> None:
    assert not read_command(["seed=0,1", "a=1"]).sweeps


@pytest.mark.parametrize(
    "argument", ["peak_lr=interval(0,1)", "study=a,b", "trial=a,b", "seed=a,b", "seed=0,-1"]
)
def test_what_cannot_be_swept_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError):
        read_command([argument])


def test_where_a_run_happens_does_not_make_it_another_combination() -> None:
    first = identity(["model=a", "runs_dir=x", "++labels.x=1", "hydra.verbose=true"])
    assert first == identity(["search.workers=3", "model=a"])
    assert first != identity(["model=b"])
