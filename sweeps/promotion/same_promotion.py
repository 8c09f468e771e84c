"""Find an identical earlier promotion, for a command that is repeated after it was killed at its end."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablations.files import read_json
from ablations.temporary import making_folder

__all__ = ["Build", "same_promotion"]

Build = Callable[[Path, Path, Mapping[str, Any]], dict[str, Any]]
"""(folder to fill, final folder, fixed provenance values) → the record."""

_VARYING = ("created", "host")


def same_promotion(name: Path, last: Path, build: Build) -> dict[str, Any] | None:
    """Return the record of the promotion in ``last`` if a new one would differ only in time and host.

    Args:
        name: Path that the temporary folder of the new one is named after.
        last: The latest promotion, if any; files that were added to it later do not count.
        build: Writes the new one.
    """
    try:
        before = read_json(last / "promotion.json")["provenance"]
        made = {key: before[key] for key in _VARYING}
    except (OSError, KeyError, TypeError, ValueError):
        return None
    with making_folder(name) as building:
        record = build(building, last, made)
        for path in building.rglob("*"):
            existing = last / path.relative_to(building)
            if path.is_file() and not (
                existing.is_file() and filecmp.cmp(path, existing, shallow=False)
            ):
                return None
    return record
