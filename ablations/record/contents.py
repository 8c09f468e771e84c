"""Read a run record whole, each of its files once, and name what of it is damaged or lacking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ablations.errors import UserError
from ablations.record.run_record import Manifest, RunRecord

__all__ = ["Contents", "read_contents"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Files of a record as they were read."""

    manifest: Manifest | None
    """None if it is missing or damaged."""
    result: Mapping[str, Any] | None
    """None if there is none yet, or if it is damaged."""
    scores: Sequence[Mapping[str, Any]]
    """One row for each scored checkpoint, in order of steps; empty if they are damaged."""
    ailments: tuple[str, ...]
    """Damaged or missing files, one text for each; empty if all is well."""


def read_contents(record: RunRecord, *, judged: bool = False) -> Contents:
    """Return the contents of a record.

    Args:
        record: The record.
        judged: Leave out what no verdict reads, audit and config as composed, and a result that is
            missing, which a verdict calls not finished.
    """
    found: list[str] = []
    manifest = _kept(lambda: record.manifest, found)
    result = _kept(record.result, found)
    scores = _kept(record.scores, found) or []
    audit = None if judged else _kept(record.audit, found)
    if not found:
        held = len(scores)
        asked = (result or {}).get("scored") or 0
        if held < asked:
            found.append(f"{record.path / 'scores.jsonl'}: holds {held} of {asked} rows")
        if not judged:
            found += _missing(record, manifest, result or {}, audit)
    return Contents(manifest=manifest, result=result, scores=scores, ailments=tuple(found))


def _kept(read: Callable[[], T], faults: list[str]) -> T | None:
    """Return what ``read`` returns; None, with its message added to ``faults``, if it is refused."""
    try:
        return read()
    except UserError as error:
        faults.append(str(error))
        return None


def _missing(
    record: RunRecord,
    manifest: Manifest | None,
    result: Mapping[str, Any],
    audit: Mapping[str, Any] | None,
) -> Iterator[str]:
    if not result and manifest is not None and manifest.status == "done":
        yield f"{record.path / 'result.json'}: missing"
    if result.get("audit_ok") is not None and audit is None:
        yield f"{record.path / 'audit.json'}: missing"
    if not (record.path / "config.yaml").is_file():
        yield f"{record.path / 'config.yaml'}: missing, so no command to repeat the run"
