"""The model that a run on rows began from, as every later step finds it."""

from __future__ import annotations

from pathlib import Path

from ablations.files import file_sha256
from ablations.record.checksums import listed
from ablations.record.identity import fingerprint

__all__ = ["EXPORTED", "STARTED", "start_digest", "started_from"]

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


def start_digest(named: str) -> str:
    """Return a digest of the weights of a model that runs begin from; of a name on the hub, the name.

    Args:
        named: The model as a run names it: a folder, or a name on the hub.
    """
    folder = Path(named)
    if not folder.is_dir():
        return named
    known = {name: sha for name, (_, sha) in listed(folder).items() if _is_weights(name)}
    if not known:  # another program wrote it
        files = [path for path in sorted(folder.iterdir()) if _is_weights(path.name)]
        known = {path.name: file_sha256(path) for path in files}
    return fingerprint(known)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") or name in ("config.json", "model_config.json")
