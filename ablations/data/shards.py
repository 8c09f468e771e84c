"""Number of shards of a source whose config leaves it open and whose store may be there already."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ablations.data.catalogue import FilesOrigin, SourceSpec, shards_of
from ablations.data.file_rows import find_files
from ablations.data.manifest import MANIFEST, store_folder
from ablations.errors import AblationError
from ablations.files import read_json

__all__ = ["with_shards"]


def with_shards(
    sources: Mapping[str, SourceSpec], data_dir: Path, tokenizer: str
) -> dict[str, SourceSpec]:
    """Return sources with their number of shards: as configured, or that of the store, or by their size.

    A store that was made with another number of shards stays the source's: earlier versions made one shard
    where none was configured. The size of local files counts if it is less than what is stated: a token of
    plain text is four bytes, of packed text about one.

    Args:
        sources: Name → source.
        data_dir: Folder of the token stores, which need not exist.
        tokenizer: Name of the tokenizer.
    """
    return {
        name: replace(spec, shards=_settled(spec, data_dir, tokenizer, spec.store or name))
        for name, spec in sources.items()
    }


def _settled(spec: SourceSpec, data_dir: Path, tokenizer: str, store: str) -> int:
    count = spec.shard_count
    if spec.shards is not None or count == 1:
        return count
    try:
        manifest = read_json(store_folder(data_dir, tokenizer, store) / MANIFEST)
        made, files = manifest["source_fingerprint"], len(manifest["files"])
    except (OSError, ValueError, LookupError, TypeError, AblationError):
        made, files = None, 0  # not prepared, or a store that opening it refuses with the reason
    if isinstance(spec.origin, FilesOrigin):
        with contextlib.suppress(
            AblationError, OSError
        ):  # `prepare` reports what is wrong with them
            count = min(count, shards_of(sum(f.stat().st_size for f in find_files(spec.origin))))
    likely = (number for number in (count, files, 1) if number)
    return next((n for n in likely if replace(spec, shards=n).fingerprint() == made), count)
