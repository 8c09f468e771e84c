"""Run ``ablate gc``: list what can be removed, and how much it is; remove it with ``apply=true``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.quantities import byte_size
from sweeps.commands.command_options import GcOptions, read_options
from sweeps.promotion.unneeded import Unneeded, find_unneeded, remove

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Print the sum for each kind, and remove what was listed if that is asked for."""
    options = read_options(GcOptions, config, alone=True)
    found, kept = find_unneeded(Path(options.runs_dir), Path(options.promotions), options.study)
    for one in found if options.verbose else ():
        print(f"{byte_size(one.size):>10}  {one.path}")
    for name, reason in kept.items() if options.verbose else ():
        print(f"      kept  {name}: {reason}")
    for kind in ("checkpoints", "exports", "leftovers"):
        _print_sum(kind, [one for one in found if one.kind == kind])
    if kept:
        print(f"{len(kept)} runs keep theirs (verbose=true prints the reasons)")
    if not found:
        print("nothing can go")
    elif options.apply:
        for one in found:
            remove(one)
        print(f"removed {byte_size(sum(one.size for one in found))}")
    else:
        print("nothing was removed; apply=true removes it. Records and scores always stay.")
    return 0


def _print_sum(kind: str, found: list[Unneeded]) -> None:
    if found:
        print(f"{kind}: {len(found)}, {byte_size(sum(one.size for one in found))}")
