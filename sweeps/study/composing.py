"""Compose many configs that differ in values alone: the config files are read once.

Hydra takes 0.13 s to compose a run's config, nearly all of it for reading some thirty files; the
trials of a study share the files and differ in values (measured 2026-11-26, docs/decisions/study.md).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

__all__ = ["Composer"]


class Composer:
    """Compose jobs' configs of overrides, as plain values; what Hydra itself would compose.

    Args:
        loader: Reads the config files.
        config: The multirun's own config.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader, self._config = loader, config
        self._parsed: dict[str, Override] = {}
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the config of a job with these task overrides, Hydra's own part left out.

        Raises:
            HydraException: the overrides do not compose.
        """
        from omegaconf import OmegaConf, open_dict

        # Values of Hydra's own part differ between jobs and are left out of what is returned.
        own = [line for line in overrides if not line.lstrip("+~").startswith("hydra.")]
        parsed = [(line, self._parse(line)) for line in own]
        # Hydra goes through values and deletions in order: what a deletion follows belongs to its base.
        deleting = [n for n, (_, o) in enumerate(parsed) if o.is_delete() or o.is_list_extend()]
        after = deleting[-1] if deleting else -1
        late = [n > after and self._is_value(override) for n, (_, override) in enumerate(parsed)]
        values = [override for (_, override), last in zip(parsed, late, strict=True) if last]
        files = tuple(line for (line, _), last in zip(parsed, late, strict=True) if not last)
        composed = copy.deepcopy(self._base(files))
        if any(not _fits(composed, override) for override in values):
            composed = self._load(tuple(overrides))  # Hydra raises, in its own words
            values = []
        with open_dict(composed):
            for override in values:
                key = str(override.key_or_group)
                OmegaConf.update(composed, key, override.value(), merge=True, force_add=True)
        plain = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def _base(self, files: tuple[str, ...]) -> DictConfig:
        if files not in self._bases:
            self._bases[files] = self._load(files)
        return self._bases[files]

    def _load(self, overrides: tuple[str, ...]) -> DictConfig:
        from omegaconf import open_dict

        composed = self._loader.load_sweep_config(self._config, list(overrides))
        with open_dict(composed):
            del composed["hydra"]
        return composed

    def _parse(self, line: str) -> Override:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        if line not in self._parsed:
            (self._parsed[line],) = OverridesParser.create().parse_overrides([line])
        return self._parsed[line]

    def _is_value(self, override: Override) -> bool:
        """Return whether the override changes a value of the task's config, and no file, nor Hydra."""
        key = str(override.key_or_group)
        if override.is_delete() or override.is_list_extend():
            return False
        if override.package is not None or "/" in key:
            return False
        return not self._loader.list_groups(key.replace(".", "/")) and not self._options(key)

    def _options(self, key: str) -> list[str]:
        return self._loader.get_group_options(key.replace(".", "/"))


def _fits(composed: DictConfig, override: Override) -> bool:
    """Return whether a plain ``key=value`` finds its key, and ``+key=value`` none."""
    from omegaconf import OmegaConf

    if override.is_force_add():
        return True
    missing = object()
    there = OmegaConf.select(composed, str(override.key_or_group), default=missing) is not missing
    return there != override.is_add()
