"""Compare the learning rate that is read from a file with one worked out by hand, at each boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from sweeps.nanotron_files import NanotronFile, load_yaml, parse
from sweeps.nanotron_files.learning_rates import decay_window, rate_config

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion" / "published"
TEXT = (GOLDEN / "two_stages.yaml").read_text()


def file_of(**scheduler: object) -> NanotronFile:
    """Return a file of 100 steps: 5 of warm-up, a peak of .001, a minimum of 0."""
    document = load_yaml(TEXT)
    own = ("learning_rate", "lr_warmup_steps", "lr_warmup_style", "min_decay_lr")
    rate = document["optimizer"]["learning_rate_scheduler"]
    rate = {key: rate[key] for key in own} | scheduler
    document["optimizer"]["learning_rate_scheduler"] = {
        key: value for key, value in rate.items() if value is not None
    }
    return parse(document)


@pytest.mark.parametrize(
    ("start", "steps", "window"),
    [
        (None, None, (5, 95)),  # right after the warm-up, all steps that are left
        (10, None, (10, 85)),  # 100 - 5 - 10
        (0, None, (0, 95)),
        (None, 7, (5, 7)),
        (61, 40, (61, 40)),
        (97, None, (97, -2)),
    ],
)
def test_the_window_of_the_decay_has_nanotrons_defaults(
    start: int | None, steps: int | None, window: tuple[int, int]
) -> None:
    file = file_of(lr_decay_starting_step=start, lr_decay_steps=steps)
    assert decay_window(file.optimizer.learning_rate_scheduler, 100) == window


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        pytest.param(
            {"lr_decay_starting_step": 61, "lr_decay_steps": 20, "min_decay_lr": 0.0002},
            (5, 20, 19, "linear", 0.2),
            id="a decay that ends 19 steps before the run",
        ),
        pytest.param(
            {"lr_decay_starting_step": 61, "lr_decay_steps": 60, "lr_decay_style": "1-sqrt"},
            (5, 60, -21, "1-sqrt", 0.0),
            id="a decay that the run ends within",
        ),
        pytest.param(
            {"lr_decay_starting_step": 99, "lr_decay_steps": 1},
            (5, 1, 0, "linear", 0.0),
            id="a decay in the last step",
        ),
        pytest.param(
            {"lr_decay_starting_step": 100, "lr_decay_steps": 10},
            (5, 0, 0, "linear", 0.0),
            id="a decay that begins with the step after the run",
        ),
        pytest.param(
            {"lr_decay_starting_step": 5, "lr_decay_steps": 10},
            (5, 10, 85, "linear", 0.0),
            id="a decay right after the warm-up",
        ),
        pytest.param(
            {"lr_decay_starting_step": 61, "lr_decay_steps": 20, "min_decay_lr": None},
            (5, 0, 0, "linear", 0.0),
            id="a minimum that is left out is the plateau",
        ),
        pytest.param(
            {"lr_decay_starting_step": 3, "lr_decay_steps": 0, "min_decay_lr": 0.001},
            (5, 0, 0, "linear", 0.0),
            id="where nothing falls no window is wrong",
        ),
        pytest.param(
            {"lr_decay_starting_step": 5, "lr_decay_steps": 10, "lr_warmup_style": "constant"},
            (0, 10, 85, "linear", 0.0),
            id="a constant warm-up is none",
        ),
        pytest.param(
            {"lr_warmup_steps": 0, "lr_decay_steps": 1, "lr_decay_style": "cosine"},
            (0, 1, 99, "cosine", 0.0),
            id="without a warm-up a decay of one step is told apart from none",
        ),
        pytest.param(
            {"lr_warmup_steps": 100, "lr_decay_steps": 1},
            (100, 0, 0, "linear", 0.0),
            id="a warm-up as long as the run",
        ),
    ],
)
def test_a_rate_is_read_with_its_warm_up_decay_tail_and_floor(
    scheduler: dict[str, Any], expected: tuple[int, int, int, str, float]
) -> None:
    warmup, decay, tail, shape, floor = expected
    found = rate_config(file_of(**scheduler))
    assert found == {
        "kind": "wsd",
        "warmup_steps": warmup,
        "decay_steps": decay,
        "tail_steps": tail,
        "shape": shape,
        "min_ratio": pytest.approx(floor),
    }


WHERE = "optimizer.learning_rate_scheduler"


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (
            {"lr_warmup_steps": 101, "lr_decay_steps": 3},
            [
                f"{WHERE}.lr_warmup_steps: the warm-up is longer than the run; found: 101; "
                "allowed: at most 100"
            ],
        ),
        (
            {"lr_decay_starting_step": 4, "lr_decay_steps": 10},
            [
                f"{WHERE}.lr_decay_starting_step: the decay begins inside the warm-up; found: 4; "
                "allowed: at least 5"
            ],
        ),
        (
            {"lr_decay_starting_step": 61, "lr_decay_steps": 0},
            [
                f"{WHERE}.lr_decay_steps: nanotron falls to min_decay_lr at step 61 at once; "
                "found: 0; allowed: >= 1 step"
            ],
        ),
        (
            {"lr_warmup_steps": 0, "lr_decay_steps": 0},
            [
                f"{WHERE}: without warm-up and without decay nanotron multiplies the rate by itself; "
                "leave lr_decay_steps out and set min_decay_lr to learning_rate"
            ],
        ),
        (
            {"lr_warmup_steps": 0, "lr_decay_steps": 0, "min_decay_lr": 0.001},
            [
                f"{WHERE}: without warm-up and without decay nanotron multiplies the rate by itself; "
                "leave lr_decay_steps out and set min_decay_lr to learning_rate"
            ],
        ),
        (
            {"lr_warmup_steps": 101, "lr_decay_starting_step": 7, "lr_decay_steps": 0},
            [
                f"{WHERE}.lr_warmup_steps: the warm-up is longer than the run; found: 101; "
                "allowed: at most 100",
                f"{WHERE}.lr_decay_steps: nanotron falls to min_decay_lr at step 7 at once; "
                "found: 0; allowed: >= 1 step",
                f"{WHERE}.lr_decay_starting_step: the decay begins inside the warm-up; found: 7; "
                "allowed: at least 101",
            ],
        ),
    ],
)
def test_all_reasons_against_a_rate_are_told_at_once(
    scheduler: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        rate_config(file_of(**scheduler))
    assert [str(problem) for problem in refused.value.problems] == expected
