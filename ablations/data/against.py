"""Sources that are compared with others: the order of their preparation, and the versions of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ablations.data.executors import Work, against_key
from ablations.data.manifest import StoreManifest, store_folder
from ablations.errors import ConfigError, Problem

__all__ = ["in_order", "other_versions"]


def other_versions(work: Work, manifest: StoreManifest) -> list[Problem]:
    """Return a problem for each source whose text is not the one that duplicates were sought in.

    A source that is gone is no problem: a store that is whole needs it no more.
    """
    return [
        Problem(
            str(work.folder),
            f"its duplicates were sought in another version of {other!r}",
            do="prepare with prepare.force=true to replace it",
        )
        for other, folder in work.against.items()
        if folder.exists() and work.content(other) != manifest.versions.get(against_key(other))
    ]


def in_order(works: Mapping[str, Work]) -> list[Work]:
    """Return the work of each source with its ``against``, those first that keep duplicates of others.

    Raises:
        ConfigError: two sources that leave their duplicates to each other.
    """
    named = {name: _against(work) for name, work in works.items()}
    inside = {name: [other for other in found if other in works] for name, found in named.items()}
    try:
        order = list(TopologicalSorter(inside).static_order())
    except CycleError as error:
        raise ConfigError(
            Problem(
                "source.duplicates.against",
                "each of these sources leaves its duplicates to the next",
                found=" → ".join(reversed(error.args[1])),
                do="leave one of them out: the source that is named keeps its documents",
            )
        ) from error
    return [
        replace(
            works[name],
            against={other: _folder(other, works[name], works) for other in named[name]},
        )
        for name in order
    ]


def _against(work: Work) -> tuple[str, ...]:
    return work.spec.duplicates.against if work.spec.duplicates else ()


def _folder(other: str, work: Work, works: Mapping[str, Work]) -> Path:
    if other in works:
        return works[other].folder
    return store_folder(work.data_dir, work.tokenizer.name, other)
