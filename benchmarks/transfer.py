"""Differences between mixtures at two scales: slopes, and how many sealed 90% intervals hold.

    python benchmarks/transfer.py ../shared/data/swarms            # half a minute of one core

From the SlimPajama table (122M and 310M parameters, 2B to 20B tokens, 8 losses) and from RegMix (1M and
60M parameters, 13 losses). Twelve mixtures are drawn, the first is the baseline, the best by the mean
loss at the small scale is the pick: the choice that a study makes. Its difference to the baseline is
carried to the large scale by :mod:`sweeps.promotion.scale_transfer`, once with the prior alone, once with the
slope between the small runs' own checkpoints, once with a second horizon of the same proxy, once with a
second size, and held against what the large scale measured.

The noise of a run is inside both tables and not known, so the intervals count none: with real studies
they are wider. The prior's constants were set on these tables; other tables may hold less often.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from sweeps.promotion.scale_transfer import SCORE_SPREAD, Gap, Measured, carry, transfer_factor
from sweeps.promotion.slopes import slope_of

Floats = NDArray[np.float64]
Table = dict[str, list[float]]
"""Mixture → its losses."""

DRAWS = 150
MIXTURES = 12


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two scales with the mixtures that both have."""

    name: str
    gap: Gap
    small: Table
    large: Table
    early: tuple[float, Table] | None = None
    """Ratio of tokens to an earlier checkpoint of the small runs, and its losses."""
    second: tuple[float, Table] | None = None
    """Ratio of parameters to a second proxy size of the same tokens, and its losses."""


def slimpajama(path: Path) -> dict[tuple[float, float], Table]:
    """(Parameters, tokens) → table."""
    found: dict[tuple[float, float], Table] = {}
    with path.open() as stream:
        for row in csv.DictReader(stream):
            mixture = "|".join(f"{float(v):.6f}" for k, v in row.items() if k.startswith("weight_"))
            losses = [float(v) if v else np.nan for k, v in row.items() if k.endswith("_loss")]
            key = float(row["model_size"]), float(row["n_tokens"])
            if np.isfinite(losses).all():
                found.setdefault(key, {})[mixture] = losses
    return found


def pairs(folder: Path) -> Iterator[Pair]:
    tables = slimpajama(folder / "two_sizes.csv")
    tokens = sorted({key[1] for key in tables})
    sizes = sorted({key[0] for key in tables})
    for size in sizes:
        for large_size in (s for s in sizes if s >= size):
            for few in (tokens[0], tokens[1], tokens[2], tokens[4], tokens[-1]):
                for many in (tokens[4], tokens[-1]):
                    if many < few or (size, few) == (large_size, many):
                        continue
                    second = large_size > size and many > few
                    before = [t for t in tokens if 0.1 <= t / few <= 0.7]
                    near = min(before, key=lambda t: abs(t / few - 1.0 / 3.0), default=None)
                    yield Pair(
                        name=f"{size / 1e6:.0f}M {few / 1e9:.0f}B to "
                        f"{large_size / 1e6:.0f}M {many / 1e9:.0f}B",
                        gap=Gap(tokens=many / few, parameters=large_size / size),
                        small=tables[size, few],
                        large=tables[large_size, many],
                        early=None if near is None else (few / near, tables[size, near]),
                        second=(large_size / size, tables[large_size, few]) if second else None,
                    )
    one, sixty = (_losses(folder / "regmix" / f"test_pile_loss_{n}.csv") for n in ("1m", "60m"))
    yield Pair(
        name="RegMix 1M to 60M", gap=Gap(tokens=1.0, parameters=60.0), small=one, large=sixty
    )


def _losses(path: Path) -> Table:
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    return {row["index"]: [float(v) for k, v in row.items() if k != "index"] for row in rows}


def columns(table: Table, mixtures: Sequence[str]) -> Floats:
    """Losses of the mixtures, their mean as the last column."""
    values = np.array([table[mixture] for mixture in mixtures])
    return np.column_stack([values, values.mean(axis=1)])


def own_checkpoints(pair: Pair, chosen: Sequence[str], pick: int) -> list[Measured]:
    """The slope between two checkpoints of pick and baseline."""
    if pair.early is None:
        return []
    ratio, table = pair.early
    early, last = (columns(t, chosen)[:, :-1] for t in (table, pair.small))
    return _measured(early[:1] - early[pick], last[:1] - last[pick], ratio)


def second_horizon(pair: Pair, chosen: Sequence[str], pick: int) -> list[Measured]:
    """The slope of all mixtures between two horizons, as if a study had run both."""
    del pick
    if pair.early is None:
        return []
    ratio, table = pair.early
    early, last = (columns(t, chosen)[:, :-1] for t in (table, pair.small))
    return _measured(early - early.mean(axis=0), last - last.mean(axis=0), ratio)


def second_size(pair: Pair, chosen: Sequence[str], pick: int) -> list[Measured]:
    """The slope of all mixtures between two sizes at the proxies' tokens."""
    del pick
    if pair.second is None:
        return []
    ratio, table = pair.second
    small, large = (columns(t, chosen)[:, :-1] for t in (pair.small, table))
    return _measured(small - small.mean(axis=0), large - large.mean(axis=0), 1.0, ratio)


def _measured(
    small: Floats, large: Floats, tokens: float, parameters: float = 1.0
) -> list[Measured]:
    found = slope_of(small, large, np.full_like(small, 1e-3))
    if found is None:
        return []
    return [
        Measured(
            where="the table",
            tokens=tokens,
            parameters=parameters,
            slope=found[0],
            error=found[1],
        )
    ]


Evidence = Callable[[Pair, Sequence[str], int], list[Measured]]


def holds(pair: Pair, evidence: Evidence | None) -> tuple[Floats, Floats, Floats]:
    """Return whether each interval held, its half width and the slope, ``[draws, losses and their mean]``."""
    rng = np.random.default_rng(0)
    others = [found[1] for found in (pair.early, pair.second) if found is not None]
    tables = [pair.small, pair.large, *others]
    shared = [mixture for mixture in pair.small if all(mixture in table for table in tables)]
    rows = []
    for _ in range(DRAWS):
        chosen = [shared[k] for k in rng.choice(len(shared), MIXTURES, replace=False)]
        small, large = columns(pair.small, chosen), columns(pair.large, chosen)
        pick = 1 + int(small[1:, -1].argmin())
        factor = transfer_factor(pair.gap, evidence(pair, chosen, pick) if evidence else [])
        spread = small.std(axis=0, ddof=1)
        spread[-1] *= SCORE_SPREAD
        before, after = small[0] - small[pick], large[0] - large[pick]
        row = []
        for seen, real, own in zip(before, after, spread, strict=True):
            found = carry(
                seen,
                error=0.0,
                df=np.inf,
                spread=own,
                run_sd=0.0,
                run_df=np.inf,
                factor=factor,
                gap=pair.gap,
            )
            row.append(
                (found.low <= real <= found.high, (found.high - found.low) / 2.0, real / seen)
            )
        rows.append(row)
    held, width, slope = np.moveaxis(np.array(rows, dtype=np.float64), 2, 0)
    return held, width, slope


def main() -> None:
    """Print slopes and shares that held, one pair of scales a line, and their means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("swarms", type=Path)
    asked = parser.parse_args()
    ways: dict[str, Evidence | None] = {
        "prior": None,
        "own checkpoints": own_checkpoints,
        "second horizon": second_horizon,
        "second size": second_size,
    }
    print(f"{'':<28} {'median slope':>13}   90% intervals that held: losses / mean loss")
    print(f"{'':<28} {'losses':>6} {'mean':>6}   " + " ".join(f"{name:>16}" for name in ways))
    total: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for pair in pairs(asked.swarms):
        widths: dict[str, float] = {}
        cells, slopes = [], (0.0, 0.0)
        for name, evidence in ways.items():
            held, width, slope = holds(pair, evidence)
            slopes = float(np.median(slope[:, :-1])), float(np.median(slope[:, -1]))
            widths[name] = float(width.mean())
            total[name].append(
                (held[:, :-1].mean(), held[:, -1].mean(), widths[name] / widths["prior"])
            )
            cells.append(f"{held[:, :-1].mean():.2f} / {held[:, -1].mean():.2f}")
        told = " ".join(f"{cell:>16}" for cell in cells)
        print(f"{pair.name:<28} {slopes[0]:>6.2f} {slopes[1]:>6.2f}   {told}", flush=True)
    for name, rows in total.items():
        losses, score, width = np.mean(rows, axis=0)
        print(f"{name}: held {losses:.3f} / {score:.3f}; width {width:.2f} of the prior's")


if __name__ == "__main__":
    main()
