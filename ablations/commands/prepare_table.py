"""Results of preparations as a table: read, kept, held out, dropped by reason, duplicates, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from ablations.data.manifest import StoreManifest
from ablations.terminal import named_column

__all__ = ["counts_table", "remarks"]

_SHOWN_QUANTILES = ("0.05", "0.5", "0.95")


def counts_table(manifests: Mapping[str, StoreManifest]) -> Table:
    """Return one row for each source; – where a store of an older version has no figure."""
    table = Table(title="documents", title_justify="left")
    named_column(table, "source")
    headings = ("read", "kept", "held out", "dropped", "duplicates", "replaced")
    for heading in (*headings, "tokens", "tokens of a document\n5%, half, 95%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in manifests.items():
        lengths = [found.token_lengths.get(quantile) for quantile in _SHOWN_QUANTILES]
        rows = found.rows
        table.add_row(
            name,
            _number(found.documents_read),
            _number(found.documents if rows is None else rows.rows),
            _number(found.heldout.documents if rows is None else rows.heldout_rows),
            _number(sum(found.dropped.values())),
            _number(found.duplicates),
            _number(found.replaced_characters + found.replaced_bytes),
            _number(found.tokens),
            ", ".join(_number(length) for length in lengths) if found.token_lengths else "–",
        )
    return table


def remarks(manifests: Mapping[str, StoreManifest]) -> Iterator[str]:
    """Yield a line for each source that dropped documents, and for each one that ignored files."""
    for name, found in manifests.items():
        if found.dropped:
            ordered = sorted(found.dropped.items(), key=lambda item: (-item[1], item[0]))
            yield f"{name}: dropped " + ", ".join(f"{n:,} ({why})" for why, n in ordered)
        if found.ignored_files:
            listed = ", ".join(
                f"{n:,} {ending}" for ending, n in sorted(found.ignored_files.items())
            )
            yield f"{name}: files that are not read: {listed}"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
