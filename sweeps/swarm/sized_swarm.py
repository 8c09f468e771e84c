"""Swarms over several model sizes: one table with columns for size and tokens, or a pair for each size.

    table.csv      weight_web, weight_code, …, model_size, n_tokens, arxiv_loss, …     one row per checkpoint

Each size keeps two horizons: its most tokens, and the checkpoint nearest to 30% of them. Neighbouring
checkpoints of a run repeat each other, so that more of them cost fits and add little.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, DataError, Problem
from sweeps.search.space import Floats
from sweeps.swarm.csv_table import (
    BadRows,
    CsvTable,
    is_bookkeeping,
    mixtures_of,
    numbers,
    require_columns,
)
from sweeps.swarm.swarm_tables import Swarm

__all__ = ["EARLY_SHARE", "SizedSwarm", "join_sizes", "read_sizes"]

EARLY_SHARE = 0.3
"""Share of a size's tokens whose nearest checkpoint is kept beside the last one."""


@dataclass(frozen=True, kw_only=True)
class SizedSwarm:
    """Swarm whose runs have a model size and a number of trained tokens."""

    swarm: Swarm
    sizes: Floats
    """Parameters of each row's model, ``[n]``."""
    tokens: Floats
    """Trained tokens of each row, ``[n]``."""

    @property
    def levels(self) -> tuple[float, ...]:
        """Return the sizes, the smallest first."""
        return tuple(sorted(set(self.sizes.tolist())))

    def ends(self, size: float) -> NDArray[np.bool_]:
        """Return a mask of the rows of a size at its most tokens."""
        own = self.sizes == size
        return np.asarray(own & (self.tokens == self.tokens[own].max()))

    def rungs(self, size: float) -> Floats:
        """Return the rung ``[n, 2]`` of each row relative to a size at its most tokens.

        The columns are the decimal logarithm of the ratio of sizes, and the logarithm of the ratio of
        tokens over that of ``1 / EARLY_SHARE``.
        """
        most = self.tokens[self.sizes == size].max()
        columns = np.stack(
            [
                np.log10(size / self.sizes),
                np.log(most / self.tokens) / np.log(1.0 / EARLY_SHARE),
            ],
            axis=1,
        )
        return np.where(np.abs(columns) < 1e-12, 0.0, columns)

    def of(self, rows: NDArray[np.bool_]) -> SizedSwarm:
        """Return the swarm of some rows."""
        kept = replace(
            self.swarm,
            runs=tuple(name for name, chosen in zip(self.swarm.runs, rows, strict=True) if chosen),
            weights=self.swarm.weights[rows],
            values=self.swarm.values[rows],
        )
        return SizedSwarm(swarm=kept, sizes=self.sizes[rows], tokens=self.tokens[rows])


def read_sizes(
    table: Path,
    *,
    size: str,
    tokens: str,
    weights: Sequence[str],
    bad_rows: BadRows = "refuse",
) -> SizedSwarm:
    """Return the swarm of one table with columns for size and tokens.

    Args:
        table: The table.
        size: Column of the parameters of each row's model.
        tokens: Column of the trained tokens.
        weights: Patterns of the columns of the mixture.
        bad_rows: ``refuse`` rows whose weights are not a mixture, or ``leave_out`` them with a note.

    Raises:
        ConfigError: a column that the table does not have.
        DataError: a table that cannot be read, or a size or number of tokens that is not above zero.
    """
    read = _read_table(table, bad_rows, weights=weights, besides=(size, tokens))
    lacking = [name for name in (size, tokens) if name not in read.besides]
    if lacking:
        raise ConfigError(
            Problem(
                "size" if size in lacking else "tokens",
                f"no such column in {table}",
                found=", ".join(lacking),
                allowed=", ".join(read.header[:12]),
            )
        )
    sizes, trained = read.besides[size], read.besides[tokens]
    for name, values in ((size, sizes), (tokens, trained)):
        if not (np.isfinite(values) & (values > 0.0)).all():
            bad = int(np.flatnonzero(~(np.isfinite(values) & (values > 0.0)))[0])
            raise DataError(
                Problem(
                    str(table),
                    f"{name!r} is not a number above zero",
                    found=f"{values[bad]} in {read.swarm.runs[bad]}",
                )
            )
    return _two_horizons(SizedSwarm(swarm=read.swarm, sizes=sizes, tokens=trained))


def join_sizes(
    swarms: Sequence[Swarm], sizes: Sequence[float], tokens: Sequence[float]
) -> SizedSwarm:
    """Return the runs of one swarm for each size as one swarm.

    Args:
        swarms: One swarm for each size.
        sizes: Parameters of the model of each.
        tokens: Trained tokens of each.

    Raises:
        ConfigError: lists of other lengths, numbers that are not above zero, one size and number of
            tokens twice, or no metric that all swarms have.
    """
    if not len(swarms) == len(sizes) == len(tokens):
        raise ConfigError(
            Problem(
                "sizes",
                "not one size and one number of tokens for each pair of tables",
                found=f"{len(swarms)} pairs, sizes={list(sizes)}, trained_tokens={list(tokens)}",
            )
        )
    scales = list(zip(sizes, tokens, strict=True))
    if len(set(scales)) < len(scales) or min(min(pair) for pair in scales) <= 0:
        raise ConfigError(Problem("sizes", "not above zero, or twice the same", found=scales))
    metrics = [name for name in swarms[0].metrics if all(name in s.metrics for s in swarms)]
    if not metrics:
        raise ConfigError(Problem("metrics", "the tables share no metric"))
    sources = tuple(dict.fromkeys(name for swarm in swarms for name in swarm.sources))
    weights, values, runs = [], [], []
    for swarm, size in zip(swarms, sizes, strict=True):
        table = np.zeros((len(swarm.runs), len(sources)))
        table[:, [sources.index(name) for name in swarm.sources]] = swarm.weights
        weights.append(table)
        values.append(swarm.values[:, [swarm.metrics.index(name) for name in metrics]])
        runs += [f"{name} at {size:g}" for name in swarm.runs]
    counts = [len(swarm.runs) for swarm in swarms]
    return SizedSwarm(
        swarm=Swarm(
            runs=tuple(runs),
            sources=sources,
            weights=np.concatenate(weights),
            metrics=tuple(metrics),
            values=np.concatenate(values),
            notes=tuple(note for swarm in swarms for note in swarm.notes),
        ),
        sizes=np.repeat(np.asarray(sizes, dtype=np.float64), counts),
        tokens=np.repeat(np.asarray(tokens, dtype=np.float64), counts),
    )


@dataclass(frozen=True, kw_only=True)
class _WholeTable:
    """Swarm read from one table, with numeric columns that are neither sources nor metrics."""

    swarm: Swarm
    besides: Mapping[str, Floats]
    """Name → column ``[n]``, of those that were asked for and that the table has."""
    header: tuple[str, ...]


def _read_table(
    path: Path, bad_rows: BadRows, *, weights: Sequence[str], besides: Sequence[str]
) -> _WholeTable:
    """Return a swarm whose mixtures and metrics are columns of one table.

    Args:
        path: The table.
        bad_rows: As in :func:`read_pair`.
        weights: Patterns of the columns of the mixture; the part before their first ``*`` is cut off
            the sources' names.
        besides: Columns that are neither sources nor metrics.

    Raises:
        DataError: a table that cannot be read, no column of sources or metrics, or rows that are not
            mixtures.
    """
    table = CsvTable.read(path)
    aside = [name for name in besides if name in table.header]
    columns = [name for name in table.columns() if name not in aside]
    prefixes = {
        name: pattern.partition("*")[0]
        for pattern in reversed(weights)
        for name in columns
        if fnmatch.fnmatchcase(name, pattern)
    }
    sources = tuple(name for name in columns if name in prefixes)
    measured = tuple(name for name in columns if name not in prefixes and not is_bookkeeping(name))
    require_columns(table, sources, f"sources ({', '.join(weights)})")
    require_columns(table, measured, "metrics")
    label = next((name for name in ("name", "run") if name in table.header), None)
    names = [
        f"row {number}" if label is None else row[label] for number, row in enumerate(table.rows, 1)
    ]
    read = np.nan_to_num(numbers(table.rows, sources, path))
    mixtures, kept, notes = mixtures_of(read, names, path, bad_rows)
    rows = [table.rows[i] for i in kept]
    own = numbers(rows, aside, path)
    return _WholeTable(
        swarm=Swarm(
            runs=tuple(names[i] for i in kept),
            sources=tuple(name.removeprefix(prefixes[name]) for name in sources),
            weights=mixtures,
            metrics=tuple(name.removeprefix("metric/") for name in measured),
            values=numbers(rows, measured, path),
            notes=(*table.notes, *notes),
        ),
        besides={name: own[:, column] for column, name in enumerate(aside)},
        header=table.header,
    )


def _two_horizons(sized: SizedSwarm) -> SizedSwarm:
    """Return the rows of each size at its most tokens, and nearest to 30% of them."""
    kept = np.zeros(len(sized.sizes), dtype=bool)
    for size in sized.levels:
        own = np.unique(sized.tokens[sized.sizes == size])
        early = own[np.abs(own - EARLY_SHARE * own.max()).argmin()]
        kept |= (sized.sizes == size) & np.isin(sized.tokens, (early, own.max()))
    found = sized.of(kept)
    if (left := int((~kept).sum())) == 0:
        return found
    note = (
        f"{left} rows of other checkpoints are left out: each size keeps its most tokens and the "
        f"checkpoint nearest to {EARLY_SHARE:.0%} of them"
    )
    return replace(found, swarm=replace(found.swarm, notes=(*found.swarm.notes, note)))
