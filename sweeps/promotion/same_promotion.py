"""Find a promotion that has been made before: a command that was killed at its very end is given again."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablations.files import read_json
from ablations.temporary import making_folder

__all__ = ["Build", "same_promotion"]

Build = Callable[[Path, Path, Mapping[str, Any]], dict[str, Any]]
"""(folder to fill, folder that it stands for, some of its provenance) → the record."""

_OF_THEIR_TIME = ("created", "host")


def same_promotion(name: Path, last: Path, build: Build) -> dict[str, Any] | None:
    """Return the record of the promotion in ``last`` if a new one would differ in time and host alone.

    Args:
        name: Names the temporary folder of the new one.
        last: The promotion that stands, if any; files that came to it later do not count.
        build: Writes the new one.
    """
    try:
        before = read_json(last / "promotion.json")["provenance"]
        made = {key: before[key] for key in _OF_THEIR_TIME}
    except (OSError, KeyError, TypeError, ValueError):
        return None
    with making_folder(name) as building:
        record = build(building, last, made)
        for path in building.rglob("*"):
            there = last / path.relative_to(building)
            if path.is_file() and not (there.is_file() and filecmp.cmp(path, there, shallow=False)):
                return None
    return record
