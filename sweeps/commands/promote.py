"""``ablate promote``: freeze the winner of a study into a full run, or compare a full run with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Promote, or with ``compare=<promotion folder>`` compare what came of a promotion."""
    folder = config.get("compare")
    if folder is not None:
        return _compare(config, Path(folder))
    # Imported here: `--help` and `--cfg` need no statistics.
    from sweeps.promotion.promote import promote

    plain = {key: value for key, value in config.items() if key != "compare"}
    dirs = tuple(Path(path) for path in config.get("config_dirs", ()))
    promoted = promote(plain, dirs)
    record = promoted.record
    print(f"{promoted.folder}: {record['candidate']['name']} → {record['full']['name']}")
    for gate in promoted.gates:
        noted = " (overridden)" if gate.override else ""
        print(f"  {gate.state + noted:<22} {gate.name}: {gate.sentence}")
    print(
        f"  {record['cost']['device_hours']:,.1f} device-hours, {record['cost']['usd']:,.0f} dollars "
        f"(assumptions in card.md)"
    )
    print(f"next: ablate run --config-dir {promoted.folder}/conf experiment=promoted")
    return 0


def _compare(config: Mapping[str, Any], folder: Path) -> int:
    from sweeps.promotion.compare import compare, write_comparison

    if not (folder / "promotion.json").is_file():
        raise ConfigError(Problem("compare", "not a promotion folder", found=str(folder)))
    comparison = compare(folder, Path(config["runs_dir"]))
    print(comparison.text())
    write_comparison(folder, comparison)
    return 0
