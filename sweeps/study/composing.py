"""Compose many configs that differ only in values, reading the config files once.

Hydra takes 0.13 s to compose a run's config, nearly all of it to read some thirty files. The trials
of a study share the files and differ in values (measured 2026-11-26, docs/decisions/study.md).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

__all__ = ["Composer", "plain_config"]


def plain_config(
    loader: ConfigLoader, config: DictConfig, overrides: Sequence[str]
) -> dict[str, Any]:
    """Return a job's config as plain values, without Hydra's own part.

    Args:
        loader: Hydra's loader of config files.
        config: Config of the multirun itself.
        overrides: Task overrides of the job.

    Raises:
        HydraException: the overrides do not compose.
    """
    return _plain(_job_config(loader, config, overrides))


class Composer:
    """Composer of jobs' configs from overrides, with the same result as Hydra's own.

    Args:
        loader: Hydra's loader of config files.
        config: Config of the multirun itself.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader, self._config = loader, config
        self._parsed: dict[str, Override] = {}
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the config of a job with these task overrides as plain values, without Hydra's part.

        Raises:
            HydraException: the overrides do not compose.
        """
        from omegaconf import OmegaConf, open_dict

        # Values of Hydra's own part differ between jobs and are not returned.
        own = [line for line in overrides if not line.lstrip("+~").startswith("hydra.")]
        parsed = [(line, self._parse(line)) for line in own]
        # Hydra applies values and deletions in order, so all overrides up to the last deletion go
        # into the base.
        deleting = [n for n, (_, o) in enumerate(parsed) if o.is_delete() or o.is_list_extend()]
        after = deleting[-1] if deleting else -1
        late = [n > after and self._is_value(override) for n, (_, override) in enumerate(parsed)]
        values = [override for (_, override), last in zip(parsed, late, strict=True) if last]
        files = tuple(line for (line, _), last in zip(parsed, late, strict=True) if not last)
        composed = copy.deepcopy(self._base(files))
        if any(not _fits(composed, override) for override in values):
            # Hydra raises its own error, or composes what plain values cannot express.
            composed, values = _job_config(self._loader, self._config, overrides), []
        with open_dict(composed):
            for override in values:
                key = str(override.key_or_group)
                OmegaConf.update(composed, key, override.value(), merge=True, force_add=True)
        return _plain(composed)

    def _base(self, files: tuple[str, ...]) -> DictConfig:
        if files not in self._bases:
            self._bases[files] = _job_config(self._loader, self._config, files)
        return self._bases[files]

    def _parse(self, line: str) -> Override:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        if line not in self._parsed:
            (self._parsed[line],) = OverridesParser.create().parse_overrides([line])
        return self._parsed[line]

    def _is_value(self, override: Override) -> bool:
        """Return whether the override changes a value of the task, not the choice of a file."""
        key = str(override.key_or_group)
        if override.is_delete() or override.is_list_extend():
            return False
        if override.package is not None or "/" in key:
            return False
        return not self._loader.list_groups(key.replace(".", "/")) and not self._options(key)

    def _options(self, key: str) -> list[str]:
        return self._loader.get_group_options(key.replace(".", "/"))


def _job_config(loader: ConfigLoader, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    from omegaconf import open_dict

    composed = loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _plain(composed: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _fits(composed: DictConfig, override: Override) -> bool:
    """Return whether ``key=value`` has an existing key, and ``+key=value`` a new one."""
    from omegaconf import OmegaConf

    if override.is_force_add():
        return True
    missing = object()
    exists = OmegaConf.select(composed, str(override.key_or_group), default=missing) is not missing
    return exists != override.is_add()
