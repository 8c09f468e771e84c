"""Buckets in the config of a run: ``web-b3`` as a source, and ``web`` as a selection of its buckets.

    mixture.weights: {web: 0.7, wiki: 0.3}            mixture.weights: {web-b2: 0.5, web-b3: 0.2,
    source.web.select.min_bucket: 2             ─▶                      wiki: 0.3}

A run is planned, recorded and audited with the weights of the buckets, so that its record reads without
the store. Buckets without text are left out. A bucket's share is that of its tokens in the prepared
store, or as ``source.web.buckets.shares`` states it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.data.buckets import (
    PartSpec,
    SelectSpec,
    bucket_name,
    parent_and_bucket,
    selection_shares,
)
from ablations.data.catalogue import SourceSpec
from ablations.data.manifest import MANIFEST, store_folder
from ablations.errors import AblationError, ConfigError, Problem
from ablations.files import read_json
from ablations.mixture.specs import MixtureSpec, ScheduleSpec

__all__ = ["Stores", "bucket_tokens", "expand", "least_tokens", "parents_of"]


@dataclass(frozen=True)
class Stores:
    """Place of the prepared token stores."""

    data_dir: Path
    tokenizer: str

    def folder(self, name: str, spec: SourceSpec) -> Path:
        """Return the folder of the store of the whole source ``name``."""
        return store_folder(self.data_dir, self.tokenizer, spec.store or name)


def parents_of(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return bucket → its source, for each name that is no source itself but a bucket of one."""
    there = set(known)
    found = {}
    for name in names:
        part = parent_and_bucket(name)
        if name not in there and part is not None and part[0] in there:
            found[name] = part[0]
    return found


def bucket_tokens(name: str, spec: SourceSpec, stores: Stores) -> tuple[tuple[float, ...], bool]:
    """Return the tokens of each bucket of ``name``, and whether they were counted in its store."""
    assert spec.buckets is not None
    try:
        manifest = read_json(stores.folder(name, spec) / MANIFEST)
        if manifest["source_fingerprint"] == spec.fingerprint():
            return tuple(float(count) for count in manifest["buckets"]["tokens"]), True
    except (OSError, ValueError, LookupError, TypeError, AblationError):
        pass  # not prepared, or a store that opening it refuses with the reason
    return tuple(share * spec.tokens_available for share in spec.buckets.stated_shares), False


def least_tokens(name: str, spec: SourceSpec, stores: Stores, thresholds: Iterable[int]) -> float:
    """Return the tokens that limit how much a mixture can read of ``name`` as a whole.

    Reading ``w`` tokens of the source reads ``w × share`` of each bucket. The bucket that is read most
    often sets the epochs, so it stands for all: the result is the smallest tokens / share of a bucket.

    Args:
        name: Source with buckets.
        spec: Its config.
        stores: Place of its store.
        thresholds: Values of ``select.min_bucket`` that may be read; the least result of all counts.
    """
    tokens, _ = bucket_tokens(name, spec, stores)
    select = spec.select or SelectSpec()
    least = math.inf
    for threshold in thresholds:
        shares = selection_shares(replace(select, min_bucket=threshold), tokens)
        found = [count / share for count, share in zip(tokens, shares, strict=True) if share > 0.0]
        least = min(least, *found)
    return least


def expand(
    source: Mapping[str, SourceSpec], mixture: MixtureSpec, schedule: ScheduleSpec, stores: Stores
) -> tuple[dict[str, SourceSpec], MixtureSpec, ScheduleSpec]:
    """Return sources, mixture and schedule with the weights of buckets.

    Raises:
        ConfigError: a bucket that its source does not have, a selection of no text, or a source that is
            weighted both as a whole and by its buckets.
    """
    every = dict(source)
    weights = [mixture.weights, *(s.weights for s in schedule.stages.values() if s.weights)]
    named = dict.fromkeys(name for one in weights for name in one)
    if not any(_has_buckets(name, source) for name in named):
        return every, mixture, schedule
    shares: dict[str, dict[str, float]] = {}
    for name in named:
        spec = source.get(name)
        if spec is None:
            _add_bucket(name, every, stores)
        elif spec.buckets is not None and spec.part is None:
            shares[name] = _add_all(name, spec, every, stores)
    exempt = dict(mixture.epoch_cap_exempt)
    for name, reason in mixture.epoch_cap_exempt.items():
        exempt |= dict.fromkeys(shares.get(name, ()), reason)
    stages = {
        name: stage
        if stage.weights is None
        else replace(stage, weights=_spread(stage.weights, shares))
        for name, stage in schedule.stages.items()
    }
    mixed = replace(mixture, weights=_spread(mixture.weights, shares), epoch_cap_exempt=exempt)
    return every, mixed, replace(schedule, stages=stages)


def _has_buckets(name: str, source: Mapping[str, SourceSpec]) -> bool:
    spec = source.get(name)
    return spec is None or (spec.buckets is not None and spec.part is None)


def _spread(
    weights: Mapping[str, float], shares: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    spread: dict[str, float] = {}
    for name, weight in weights.items():
        parts = shares.get(name)
        if parts is None:
            parts = {name: 1.0}
        for part, share in parts.items():
            if part in spread or (part != name and part in weights):
                raise ConfigError(
                    Problem(
                        f"mixture.weights.{part}",
                        "weighted twice: as a bucket, and in the weight of its source",
                        do=f"leave one of {part!r} and {name!r} out",
                    )
                )
            spread[part] = weight * share
    return spread


def _add_all(
    name: str, spec: SourceSpec, every: dict[str, SourceSpec], stores: Stores
) -> dict[str, float]:
    """Add every bucket with text to the sources; return its share of the source as selected."""
    tokens, counted = bucket_tokens(name, spec, stores)
    shares = selection_shares(spec.select or SelectSpec(), tokens)
    found = {}
    for bucket, (count, share) in enumerate(zip(tokens, shares, strict=True)):
        if count > 0:
            own = bucket_name(name, bucket)
            every[own] = _bucket_spec(name, spec, bucket, count / sum(tokens), counted=counted)
            found[own] = share
    return found


def _add_bucket(name: str, every: dict[str, SourceSpec], stores: Stores) -> None:
    found = parent_and_bucket(name)
    parent = None if found is None else every.get(found[0])
    if found is None or parent is None:
        return  # a source that is unknown: reported where sources are looked up
    if parent.buckets is None or found[1] >= parent.buckets.count:
        count = 0 if parent.buckets is None else parent.buckets.count
        raise ConfigError(
            Problem(
                f"mixture.weights.{name}",
                f"the source {found[0]!r} has no such bucket",
                allowed=f"0 to {count - 1}" if count else f"source.{found[0]}.buckets is not set",
            )
        )
    tokens, counted = bucket_tokens(found[0], parent, stores)
    share = tokens[found[1]] / sum(tokens)
    every[name] = _bucket_spec(found[0], parent, found[1], share, counted=counted)


def _bucket_spec(
    name: str, spec: SourceSpec, bucket: int, share: float, *, counted: bool
) -> SourceSpec:
    assert spec.buckets is not None
    note = spec.note
    if not counted and not spec.buckets.shares:
        note = f"{note} Assumed: buckets of equal size.".strip()
    return replace(
        spec,
        tokens_available=max(1, round(spec.tokens_available * share)),
        select=None,
        part=PartSpec(of=name, bucket=bucket),
        note=note,
    )
