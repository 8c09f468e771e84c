"""Check that a run's sources are prepared with the tokenizer and settings of its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ablations.config.schema import RunConfig
from ablations.data.manifest import StoreManifest
from ablations.data.tokenizer import Tokenizer, open_tokenizer
from ablations.errors import DataError, Problem

__all__ = ["require_prepared", "tokenizer_folder"]


def tokenizer_folder(config: RunConfig) -> Path:
    """Return the folder of the run's tokenizer."""
    return Path(config.data_dir) / "tokenizers" / config.tokenizer.name


def require_prepared(config: RunConfig, prepared: Mapping[str, bool]) -> None:
    """Refuse a run whose sources are not prepared as its config describes them.

    Args:
        config: The run.
        prepared: Source → whether it has a token store.

    Raises:
        DataError: sources are not prepared, or were prepared with another tokenizer or other settings.
    """
    missing = [name for name, has_store in prepared.items() if not has_store]
    if missing:
        raise DataError(
            [
                Problem(
                    f"source.{name}",
                    "not prepared with this tokenizer",
                    found=f"no token store at {config.store_folder(name)}",
                    do="give the same overrides to `ablate prepare` first",
                )
                for name in missing
            ]
        )
    tokenizer = open_tokenizer(tokenizer_folder(config))
    foreign = [problem for name in prepared for problem in _foreign(config, name, tokenizer)]
    if foreign:
        raise DataError(foreign)


def _foreign(config: RunConfig, name: str, tokenizer: Tokenizer) -> Iterator[Problem]:
    """Yield each difference between an existing store and the one that the config describes."""
    manifest = StoreManifest.read(config.store_folder(name))
    if manifest.tokenizer_hash != tokenizer.hash:
        yield Problem(
            f"source.{name}",
            "prepared with another tokenizer than the run's",
            found=f"{manifest.tokenizer} {manifest.tokenizer_hash[:12]}",
            allowed=f"{tokenizer.name} {tokenizer.hash[:12]}",
            do="prepare it again with prepare.force=true",
        )
    if manifest.source_fingerprint not in ("", config.source[name].fingerprint()):
        yield Problem(
            f"source.{name}",
            "prepared from other settings of the source than the run's",
            found=f"the store at {config.store_folder(name)}",
            do="give the run the settings that it was prepared with, or prepare it again with "
            "prepare.force=true",
        )
