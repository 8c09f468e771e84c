"""The model that a run of sft or dpo began from, as every later step finds it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["EXPORTED", "STARTED", "started_from"]

STARTED = "start"
"""Folder of a run: the model with rows for markers that its tokenizer had not."""

EXPORTED = "start_export"
"""Folder of a run: the export of the checkpoint that it began from."""


def started_from(directory: Path, named: str) -> Path:
    """Return the folder of the model that a run began from.

    Args:
        directory: Run folder.
        named: The model as the run names it: a folder, or a name on the hub.
    """
    for made in (STARTED, EXPORTED):
        if (directory / made).is_dir():
            return directory / made
    if Path(named).is_dir():
        return Path(named)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(named))
