"""Run ``ablate promote``: freeze the winner of a study into a full run, or compare a full run with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from sweeps.commands.command_options import CompareOptions, read_options

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Promote, or with ``compare=<promotion folder>`` compare its full run with its prediction."""
    options = read_options(CompareOptions, config)
    if options.compare is not None:
        return _compare(options, Path(options.compare))
    if not isinstance(config.get("promotion"), Mapping):
        found = repr(config.get("promotion"))
        raise ConfigError(
            Problem("promotion", "not a section", found=found, allowed="promotion.KEY=VALUE")
        )
    # Imported here: `--help` and `--cfg` need no statistics.
    from sweeps.promotion.promote import promote

    plain = {key: value for key, value in config.items() if key != "compare"}
    dirs = tuple(Path(path) for path in config.get("config_dirs", ()))
    promoted = promote(plain, dirs)
    record = promoted.record
    print(f"{promoted.folder}: {record['candidate']['name']} → {record['full']['name']}")
    if promoted.stood:
        print("  the same promotion from the same evidence exists already: nothing was written")
    for gate in promoted.gates:
        noted = " (overridden)" if gate.override else ""
        print(f"  {gate.state + noted:<22} {gate.name}: {gate.sentence}")
    print(
        f"  {record['cost']['device_hours']:,.1f} device-hours, {record['cost']['usd']:,.0f} dollars "
        f"(assumptions in card.md)"
    )
    for line in _prediction(record):
        print(f"  {line}")
    conf = shlex.quote(f"{promoted.folder}/conf")
    print(f"next: ablate run --config-dir {conf} experiment=promoted")
    if "baseline" in record:
        print(
            f"      ablate run --config-dir {conf} experiment=baseline  # puts the prediction to the test"
        )
    return 0


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


def _compare(options: CompareOptions, folder: Path) -> int:
    from sweeps.promotion.compare import compare, write_comparison

    comparison = compare(folder, Path(options.runs_dir))
    print(comparison.text())
    write_comparison(folder, comparison)
    return 0
