"""Folder of an import: written completely or not at all, never over another one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from ablations.files import sync_folder, write_text
from ablations.temporary import making_folder

__all__ = ["new_import"]


@contextlib.contextmanager
def new_import(
    out: Path,
    configs: Mapping[str, Mapping[str, Any]],
    text_of: Callable[[str, Mapping[str, Any]], str],
) -> Iterator[Path]:
    """Yield a folder with ``conf/`` in it, which becomes ``out`` at the end of the block.

    Args:
        out: The folder to write.
        configs: ``<group>/<name>`` → values.
        text_of: Function that returns the text of a config.

    Raises:
        ConfigError: ``out`` exists already.
    """
    if out.exists():
        raise ConfigError(
            Problem(str(out), "exists already; nothing is overwritten", do="give another out=")
        )
    with making_folder(out) as building:
        for key, values in configs.items():
            target = building / "conf" / f"{key}.yaml"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, text_of(key, values))
        yield building
        building.replace(out)
    sync_folder(out.parent)
