"""Overrides of Hydra jobs: make them for a trial, and read a sweep's combinations from a command line."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.errors import ConfigError, Problem
from ablations.record.identity import run_name
from ablations.terminal import quoted
from sweeps.study.trial import TrialSpec

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = ["Command", "identity", "job_overrides", "read_command"]

_NOT_A_TRIAL = (
    "trial",
    "seed",
    "study",
    "labels",
    "runs_dir",
    "data_dir",
    "progress",
    "json",
    "retry",
    "search",
    "hydra",
)
"""Keys of overrides that do not distinguish combinations."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Overrides of a command line, split into fixed and swept ones."""

    fixed: tuple[str, ...]
    """Overrides with one value."""
    combinations: tuple[tuple[str, ...], ...]
    """Product of the swept overrides without ``seed``; one empty combination if nothing is swept."""
    seeds: tuple[int, ...]
    """Values of a swept ``seed``: the seeds of every trial."""

    @property
    def sweeps(self) -> bool:
        """Return whether anything but the seed is swept."""
        return self.combinations != ((),)


def read_command(arguments: Sequence[str]) -> Command:
    """Split a multirun's task overrides into fixed and swept ones.

    Raises:
        ConfigError: a sweep without a list of values (``interval(…)``).
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    fixed: list[str] = []
    swept: list[list[str]] = []
    seeds: tuple[int, ...] = ()
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
            continue
        if not override.is_discrete_sweep():
            raise ConfigError(_continuous(override))
        key, values = override.get_key_element(), list(override.sweep_string_iterator())
        if key == "seed":
            seeds = _seeds(str(override.input_line), values)
        elif key in ("trial", "study"):
            raise ConfigError(Problem(key, "cannot be swept", found=str(override.input_line)))
        else:
            swept.append([f"{key}={value}" for value in values])
    return Command(fixed=tuple(fixed), combinations=tuple(itertools.product(*swept)), seeds=seeds)


def identity(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the sorted overrides that identify a combination, without those of place and execution."""
    kept = [o for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0] not in _NOT_A_TRIAL]
    return tuple(sorted(kept))


def job_overrides(
    spec: TrialSpec,
    seed: int,
    study: str,
    fixed: Sequence[str],
    *,
    pauses: bool = False,
    low: Sequence[str] = (),
    trunk_tokens: float | None = None,
) -> list[str]:
    """Return the task overrides of one run.

    Args:
        spec: Specification of the trial.
        seed: Seed of the run.
        study: Name of the study.
        fixed: Overrides that all trials of a search share; a sweep's combination has its own.
        pauses: Whether the run pauses at the low rung of its trial.
        low: Overrides of a run of the low rung.
        trunk_tokens: Tokens that the run shares with other runs of the study; None = it trains alone.
    """
    overrides = list(spec.overrides or fixed)
    for path, value in spec.point.items():
        if isinstance(value, Mapping):
            # All sources with all digits: Hydra merges mappings, so an omitted source would keep
            # its weight.
            overrides += [f"++{path}.{name}={float(w)!r}" for name, w in value.items()]
        else:
            overrides.append(f"{path}={quoted(value)}")
    return [
        *overrides,
        f"study={quoted(study)}",
        f"trial={spec.trial}",
        f"seed={seed}",
        f"++labels.phase={spec.phase}",
        f"++labels.name={quoted(spec.name)}",
        f"hydra.sweep.subdir={run_name(spec.trial, seed)}",
        *([f"++execution.stop_tokens={spec.rung!r}"] if pauses else []),
        *low,
        *([] if trunk_tokens is None else [f"++execution.trunk_tokens={trunk_tokens!r}"]),
    ]


def _seeds(override: str, values: Sequence[str]) -> tuple[int, ...]:
    if not all(value.isdecimal() for value in values):
        raise ConfigError(
            Problem(override, "not seeds", allowed="whole numbers from 0 on: seed=0,1,2")
        )
    return tuple(dict.fromkeys(int(value) for value in values))


def _continuous(override: Override) -> Problem:
    return Problem(
        str(override.input_line),
        "a plain sweep needs a list of values",
        allowed="key=a,b,c, range(…) or glob(…)",
        do="to search a range, put it under search.space.parameters",
    )
