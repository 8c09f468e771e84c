"""Run ``ablate export``: write a promotion, a run or a config as files that another trainer loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Write one export; print its stages, its tokens and its notes."""
    # Imported here: `--help` and `--cfg` need none of it.
    from sweeps.commands.command_options import ExportOptions, read_options
    from sweeps.exporters.export_folder import write_export
    from sweeps.exporters.formats import format_named
    from sweeps.exporters.origin import plan_of

    options = read_options(ExportOptions, config)
    name = options.format
    kind = format_named(name)
    folder, export = write_export(
        plan_of(config),
        name,
        out=Path(options.out),
        tokens=options.tokens,
        root=options.root,
    )
    print(f"{folder}: {kind.help}")
    for stage in export.plan.stages:
        weights = ", ".join(f"{source} {weight:.2%}" for source, weight in stage.weights.items())
        print(f"  {stage.name}: steps {stage.first_step:,} to {stage.last_step:,}, {weights}")
    along = {"copy": "copied", "link": "linked to the stores", "none": "not part of the export"}
    tokens = sum(source.tokens for source in export.sources.values())
    print(f"  {tokens:,.0f} tokens of {len(export.sources)} sources, {along[export.tokens]}")
    for note in export.plan.notes:
        print(f"  note: {note}")
    print(f"next: {folder}/README.md describes how it is loaded")
    return 0
