"""Run ``ablate promote``: freeze the winner of a study into a full run, or compare a full run with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.documents import Answer
from ablations.errors import ConfigError, Problem
from ablations.quantities import device_time
from sweeps.commands.command_options import CompareOptions, read_options
from sweeps.promotion.compare import Comparison, compare, write_comparison
from sweeps.promotion.gates import GateResult
from sweeps.promotion.promote import Promoted, promote
from sweeps.promotion.sealed_prediction import Prediction, read_prediction

__all__ = ["PromoteResult", "PromotedRun", "answer", "main"]


@dataclass(frozen=True, kw_only=True)
class PromotedRun:
    """A promotion on disk."""

    folder: str
    stood: bool
    """True if the same promotion existed already, so that nothing was written."""
    candidate: str
    """Candidate that was promoted."""
    weights: Mapping[str, float]
    """Source → weight of its mixture."""
    full: str
    """Name of the full run."""
    gates: tuple[GateResult, ...]
    device_hours: float
    """Estimated hours of one device."""
    usd: float
    """Estimated price in dollars."""
    prediction: Prediction | None
    """Sealed prediction of the difference; None if the baseline itself was promoted."""
    next: tuple[str, ...]
    """Commands that train the full runs."""


@dataclass(frozen=True, kw_only=True)
class PromoteResult:
    """Either a promotion, or the comparison of its full run with its prediction."""

    promotion: PromotedRun | None
    comparison: Comparison | None


def main(config: Mapping[str, Any]) -> int:
    """Promote, or with ``compare=<promotion folder>`` compare its full run with its prediction."""
    options = read_options(CompareOptions, config)
    if options.compare is not None:
        print(_compare(options).text())
        return 0
    promoted = _promote(config)
    record = promoted.record
    print(f"{promoted.folder}: {record['candidate']['name']} → {record['full']['name']}")
    if (default := _default_full()) is not None:
        print(f"  the full run is full={default}, the default; full=NAME names another one")
    if promoted.stood:
        print("  the same promotion from the same evidence exists already: nothing was written")
    for gate in promoted.gates:
        noted = " (overridden)" if gate.override else ""
        print(f"  {gate.state + noted:<22} {gate.name}: {gate.sentence}")
    print(
        f"  {device_time(record['cost']['device_hours'])}, {record['cost']['usd']:,.0f} dollars "
        f"(assumptions in card.md)"
    )
    for line in _prediction(record):
        print(f"  {line}")
    first, *others = _next(promoted)
    print(f"next: {first}")
    for other in others:
        print(f"      {other}  # puts the prediction to the test")
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Promote or compare as :func:`main` does, and return the outcome for a program."""
    options = read_options(CompareOptions, config)
    if options.compare is not None:
        return Answer(result=PromoteResult(promotion=None, comparison=_compare(options)))
    promoted = _promote(config)
    record = promoted.record
    sealed = record.get("prediction")
    return Answer(
        result=PromoteResult(
            comparison=None,
            promotion=PromotedRun(
                folder=str(promoted.folder),
                stood=promoted.stood,
                candidate=record["candidate"]["name"],
                weights=record["candidate"]["weights"],
                full=record["full"]["name"],
                gates=promoted.gates,
                device_hours=record["cost"]["device_hours"],
                usd=record["cost"]["usd"],
                prediction=None if sealed is None else read_prediction(sealed),
                next=_next(promoted),
            ),
        )
    )


def _default_full() -> str | None:
    """Return the option of the group ``full`` if the command line did not choose it."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    given = any(word.lstrip("+").partition("=")[0] == "full" for word in hydra.overrides.task)
    return None if given else str(hydra.runtime.choices.get("full"))


def _promote(config: Mapping[str, Any]) -> Promoted:
    """Promote the study of the config."""
    if not isinstance(config.get("promotion"), Mapping):
        found = repr(config.get("promotion"))
        raise ConfigError(
            Problem("promotion", "not a section", found=found, allowed="promotion.KEY=VALUE")
        )
    plain = {key: value for key, value in config.items() if key != "compare"}
    return promote(plain, tuple(Path(path) for path in config.get("config_dirs", ())))


def _next(promoted: Promoted) -> tuple[str, ...]:
    """Return the commands that train the promoted run, and the baseline's full run if there is one."""
    conf = shlex.quote(f"{promoted.folder}/conf")
    named = ["promoted", *(["baseline"] if "baseline" in promoted.record else [])]
    return tuple(f"ablate run --config-dir {conf} experiment={name}" for name in named)


def _prediction(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line with the sealed prediction of the score, if there is one."""
    found = (record.get("prediction") or {}).get("score")
    if found is None:
        return
    interval = "no interval: the study shows no noise"
    if found["low"] is not None:
        interval = f"90% interval {found['low']:+.3g} to {found['high']:+.3g}"
    yield (
        f"sealed: score against {record['baseline']['name']} at full size {found['mean']:+.3g} "
        f"({interval}; positive = better)"
    )


def _compare(options: CompareOptions) -> Comparison:
    folder = Path(str(options.compare))
    comparison = compare(folder, Path(options.runs_dir))
    write_comparison(folder, comparison)
    return comparison
