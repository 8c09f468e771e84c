"""A chain of experiments, run one after the other: a promoted full run and the stages after it.

    ablate run --config-dir promotions/X/conf experiment=chain
        experiment=promoted ──▶ experiment=sft ──▶ experiment=dpo

Each is an ordinary run: skipped if it is done, resumed if it was stopped, so the same command goes on.

    program:
      kind: chain
      experiments: [promoted, sft, dpo]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ablations.config.schema import RunConfig, validate
from ablations.errors import ConfigError, Problem
from sweeps.programs.subprocess_cli import Caller

__all__ = ["ChainSpec", "main", "show_plan"]


@dataclass(frozen=True, kw_only=True)
class ChainSpec:
    """Experiments in order."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Literal["chain"] = "chain"
    """Name of this program (:mod:`ablations.config.program_names`)."""
    experiments: tuple[str, ...]
    """Experiments of the config folders, in order; each begins from what the one before left."""

    def __post_init__(self) -> None:
        if not self.experiments:
            raise ConfigError(Problem("program.experiments", "names no experiment"))


def show_plan(config: Mapping[str, Any], run: RunConfig) -> None:
    """Print for ``ablate plan`` what follows the first run, whose cost is printed."""
    del run
    spec = validate(ChainSpec, config["program"])
    print(f"a chain of runs: {', then '.join(spec.experiments)}")


def main(config: Mapping[str, Any]) -> int:
    """Run each experiment of the chain with the user's other overrides."""
    spec = validate(ChainSpec, config["program"])
    caller = Caller.of_this_command(config)
    own = tuple(word for word in caller.overrides if not word.startswith("experiment="))
    for name in spec.experiments:
        replace(caller, overrides=(f"experiment={name}", *own)).run()
    return 0
