"""Write only the schedule, as YAML and as JSON: ``weights.yaml``, ``weights.json``."""

from __future__ import annotations

from pathlib import Path

import yaml

from ablations.files import write_json, write_text
from sweeps.exporters.export_plan import Export

__all__ = ["usage", "write"]


def write(export: Export, folder: Path) -> None:
    """Write both files, with the same content."""
    plain = export.plain()
    kept = ("sequence_length", "batch_size", "total_steps", "total_tokens", "learning_rate")
    content = {
        "name": export.plan.name,
        **{key: plain[key] for key in kept},
        "stages": plain["stages"],
        "sources": {
            name: {"tokens": row["tokens"], "epochs": row["epochs"]}
            for name, row in plain["sources"].items()
        },
    }
    write_json(folder / "weights.json", content)
    write_text(folder / "weights.yaml", yaml.safe_dump(content, sort_keys=False, width=100))
    (folder / "stages").rmdir()


def usage(export: Export) -> str:
    """Return a description of the files."""
    del export
    return (
        "`weights.yaml` and `weights.json` hold the same: stages in order, with their steps, samples, "
        "tokens and weights. A weight is a share of the stage's tokens; the weights of a stage sum "
        "to 1."
    )
