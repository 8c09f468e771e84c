"""Thresholds of sources with buckets: the tokens that each leaves, and the epochs that it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from ablations.quantities import byte_size, count, device_time
from sweeps.search.space.specs import ParameterSpec, SearchSpaceSpec

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig
    from ablations.plan import Plan

__all__ = ["Threshold", "least_of", "threshold_table", "thresholds_of"]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One value of ``source.<name>.select.min_bucket``."""

    source: str
    bucket: int
    """Lowest bucket that is read."""
    searched: bool
    """True if the study searches it."""
    read: float
    """Tokens that the full run reads of the source at the config's weight."""
    available: float
    """Tokens that limit the epochs: all tokens of the buckets that are read, unless a tilt reads one of
    them more often."""
    disk: float | None
    """Bytes of the source's store, which holds every bucket; None if it is there already."""
    hours: float
    """Device-hours of one run that this source's tokens take, in proportion."""
    usd: float | None
    """Their price; None for devices without one."""

    @property
    def epochs(self) -> float:
        """Return the epochs of the full run at the config's weight."""
        return self.read / self.available


def thresholds_of(run: RunConfig, plan: Plan, space: SearchSpaceSpec) -> tuple[Threshold, ...]:
    """Return every threshold of each source with buckets; the config's own where none is searched."""
    # Imported here: studies of other applications have no schema.
    from ablations.config.bucket_sources import least_tokens
    from ablations.data.expected import whole_stores

    stores = whole_stores(run.source, plan.to_prepare)
    full = run.schedule.full_tokens or float(plan.schedule.total_tokens)
    stretch = full / plan.schedule.total_tokens
    tokens = plan.schedule.tokens()
    found = []
    for name, spec in run.whole_sources.items():
        if spec.buckets is None:
            continue
        parts = [n for n, s in run.source.items() if s.part is not None and s.part.of == name]
        own_tokens = sum(tokens.get(part, 0.0) for part in parts)
        share = _trained_share(plan, parts)
        disk = stores[name].store_bytes if name in stores else None
        searched = _levels(space.parameters.get(f"source.{name}.select.min_bucket"))
        own = 0 if spec.select is None else spec.select.min_bucket
        found += [
            Threshold(
                source=name,
                bucket=level,
                searched=bool(searched),
                read=stretch * own_tokens,
                available=least_tokens(name, spec, run.stores, [level]),
                disk=disk,
                hours=share * plan.cost.device_hours,
                usd=None if plan.cost.usd is None else share * plan.cost.usd,
            )
            for level in searched or [own]
        ]
    return tuple(found)


def _trained_share(plan: Plan, parts: Iterable[str]) -> float:
    """Return the share of ``parts`` in the tokens that a run trains on, those of a warm start left out."""
    names = tuple(parts)
    every = own = first = 0.0
    for stage in plan.schedule.stages:
        steps = max(0.0, first + stage.steps - max(first, plan.first_step))
        first += stage.steps
        every += steps
        own += steps * sum(stage.mixture.get(name, 0.0) for name in names)
    return own / every if every else 0.0


def least_of(thresholds: Iterable[Threshold]) -> dict[str, float]:
    """Return source → tokens at its tightest threshold: one upper bound has to hold for all of them."""
    least: dict[str, float] = {}
    for one in thresholds:
        least[one.source] = min(one.available, least.get(one.source, one.available))
    return least


def threshold_table(thresholds: Iterable[Threshold]) -> Table | None:
    """Return the searched thresholds for a terminal; None if there are none."""
    searched = [one for one in thresholds if one.searched]
    if not searched:
        return None
    table = Table(title="thresholds searched, at the config's weights", title_justify="left")
    table.add_column("source", no_wrap=True)
    for heading in ("on disk", "of a run", "lowest bucket", "tokens left", "tokens read", "epochs"):
        table.add_column(heading, justify="right")
    for before, one in zip([None, *searched], searched, strict=False):
        # The store and the price are those of the source, whatever its threshold is.
        first = before is None or before.source != one.source
        own = (one.source, _disk(one), _price(one)) if first else ("", "", "")
        left, read = count(one.available), count(one.read)
        table.add_row(*own, str(one.bucket), left, read, f"{one.epochs:.2f}")
    return table


def _disk(one: Threshold) -> str:
    return "there" if one.disk is None else byte_size(one.disk)


def _price(one: Threshold) -> str:
    """Return the part of a run's price that is the source's."""
    return device_time(one.hours) if one.usd is None else f"${one.usd:,.0f}"


def _levels(searched: ParameterSpec | None) -> list[int]:
    if searched is None:
        return []
    if searched.kind == "choice":
        return [int(value) for value in searched.choices]
    return list(range(int(searched.low or 0), int(searched.high or 0) + 1))
