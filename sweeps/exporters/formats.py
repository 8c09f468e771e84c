"""List the formats by name; a format's module is imported when the format is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ablations.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from sweeps.exporters.export_plan import Export, TokensMode

__all__ = ["FORMATS", "Format", "format_named"]


@dataclass(frozen=True)
class Format:
    """Format: its module, and its modes of tokens."""

    module: str
    """Module with ``write(export, folder) -> None`` and ``usage(export) -> str``."""
    help: str
    """One line for users."""
    modes: tuple[TokensMode, ...]
    """Values of ``tokens=``; the first is the default."""
    forbidden: str = ""
    """Characters that the loader does not read as part of a path."""

    def write(self, export: Export, folder: Path) -> None:
        """Write the files of the format into ``folder``, which is still temporary."""
        cast(
            "Callable[[Export, Path], None]",
            vars(importlib.import_module(self.module))["write"],
        )(export, folder)

    def usage(self, export: Export) -> str:
        """Return the section of the README on loading the files, as Markdown."""
        return cast("Callable[[Export], str]", vars(importlib.import_module(self.module))["usage"])(
            export
        )


FORMATS: dict[str, Format] = {
    "nanotron": Format(
        "sweeps.exporters.nanotron",
        "chain of YAML files for nanotron's main branch, and its token folders",
        ("copy", "link", "none"),
    ),
    "smollm3": Format(
        "sweeps.exporters.nanotron",
        "the same chain for the branch of nanotron that trained SmolLM3",
        ("copy", "link", "none"),
    ),
    "megatron": Format(
        "sweeps.exporters.megatron",
        "Megatron-LM: indexed dataset (.bin, .idx) and a blend for each stage",
        ("copy", "link", "none"),
        forbidden=" \t\n*?[]",  # a blend is split at white space, and a shell expands its arguments
    ),
    "olmo-core": Format(
        "sweeps.exporters.olmo_core",
        "OLMo-core: token files (.npy) and a source mixture for each stage",
        ("copy", "link", "none"),
        forbidden="*",
    ),
    "torchtitan": Format(
        "sweeps.exporters.torchtitan",
        "torchtitan: token files, and a module that registers them with weights",
        ("copy", "link", "none"),
    ),
    "litdata": Format(
        "sweeps.exporters.litdata",
        "LitData chunks, and weights for each stage; litgpt reads them",
        ("copy", "none"),
    ),
    "litgpt": Format(
        "sweeps.exporters.litdata",
        "the same files as litdata, which litgpt reads",
        ("copy", "none"),
    ),
    "mosaicml": Format(
        "sweeps.exporters.mosaicml",
        "MosaicML Streaming: MDS shards, and streams with proportions for each stage",
        ("copy", "none"),
    ),
    "weights": Format(
        "sweeps.exporters.weights", "the schedule alone, as YAML and as JSON", ("none",)
    ),
}


def format_named(name: str) -> Format:
    """Return the format ``name``.

    Raises:
        ConfigError: no such format.
    """
    if name not in FORMATS:
        raise ConfigError(unknown_name("format", "format", name, FORMATS))
    return FORMATS[name]
