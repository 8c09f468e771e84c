"""Options of the commands of ``sweeps`` that no other dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator

from ablations.config.schema import validate
from ablations.ranges import Interval, Limit
from ablations.validation import one_or_many
from sweeps.study.listing import ListedStatus, SortKey

__all__ = [
    "CompareOptions",
    "DiffOptions",
    "ExportOptions",
    "FitSubject",
    "GcOptions",
    "ImportOptions",
    "LsOptions",
    "RepeatsOptions",
    "StopOptions",
    "VerdictSubject",
    "read_options",
]

T = TypeVar("T")

_FORBID: dict[str, Any] = {"extra": "forbid"}


def read_options(kind: type[T], config: Mapping[str, Any], *, alone: bool = False) -> T:
    """Check the keys of ``kind`` in a composed config.

    Args:
        kind: The dataclass of the keys.
        config: The composed config.
        alone: Refuse all other keys: no other dataclass reads them.

    Raises:
        ConfigError: every problem found.
    """
    own = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    taken = {
        key: value
        for key, value in config.items()
        if key in own or (alone and key not in ("config_dirs", "hydra"))
    }
    return validate(kind, taken)


@dataclass(frozen=True, kw_only=True)
class LsOptions:
    """Keys of ``ablate ls``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    runs_dir: str = "runs"
    """Folder of all studies."""
    study: str | None = None
    """Folder under ``runs_dir``; null = all studies."""
    status: Annotated[tuple[ListedStatus, ...], BeforeValidator(one_or_many)] = ()
    """List runs of these alone, one or several; empty = all."""
    match: str = "*"
    """Pattern of ``study/trial-seed``, or of ``trial-seed`` alone, with ``*`` and ``?``."""
    sort: SortKey = "run"
    """Order: the best score first, the largest step, tokens or time first, or by run or status."""
    reverse: bool = False
    """Turn the order round."""
    limit: Limit | None = None
    """Most runs to list; null = all."""
    verbose: bool = False
    """Print each reason whole."""
    json: bool = False
    """Print one JSON document in place of the table (docs/json.md)."""


@dataclass(frozen=True, kw_only=True)
class DiffOptions:
    """Keys of ``ablate diff``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    a: str
    """A study, a run as ``study/trial-seed``, or the path of such a folder."""
    b: str
    """Other side of the comparison: the same kinds."""
    runs_dir: str = "runs"
    """Folder of all studies."""
    verbose: bool = False
    """Print every setting that differs, not the first 30 alone."""


@dataclass(frozen=True, kw_only=True)
class GcOptions:
    """Keys of ``ablate gc``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    runs_dir: str = "runs"
    """Folder of all studies."""
    study: str | None = None
    """Look at this study alone; null = all."""
    promotions: str = "promotions"
    """Parent folder of the promotions: what they name is kept."""
    apply: bool = False
    """Remove what is listed; false = only list it."""
    verbose: bool = False
    """Print each folder that can go, and why the others stay."""


@dataclass(frozen=True, kw_only=True)
class RepeatsOptions:
    """Keys of ``ablate repeats``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    study: str
    """Folder under ``runs_dir``."""
    runs_dir: str = "runs"
    """Folder of all studies."""
    metric: str | None = None
    """``task/metric`` that is fitted; null = the study's objective."""


@dataclass(frozen=True, kw_only=True)
class StopOptions:
    """Keys of ``ablate stop``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    study: str
    """Folder under ``runs_dir``."""
    runs_dir: str = "runs"
    """Folder of all studies."""
    wait_seconds: Annotated[float, Interval(ge=0, le=86_400)] = 30.0
    """Longest time to wait until the processes are gone."""


@dataclass(frozen=True, kw_only=True)
class VerdictSubject:
    """Keys of ``ablate verdict`` that choose the study and the output."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    study: str | None = None
    """Folder under ``runs_dir``; or ``table``."""
    runs_dir: str = "runs"
    """Folder of all studies."""
    table: str | None = None
    """A published table, or a CSV of the same form."""
    objective: str | None = None
    """One of the study's objectives; null = its first."""
    write: bool = True
    """Write the verdict beside the runs."""
    json: bool = False
    """Print one JSON document in place of the text (docs/json.md)."""
    verbose: bool = False
    """Also print tasks, noise, caveats and the rule."""


@dataclass(frozen=True, kw_only=True)
class FitSubject:
    """Keys of ``ablate fit`` that choose the swarm and the output."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    study: str | None = None
    """Folder under ``runs_dir``; or tables."""
    runs_dir: str = "runs"
    """Folder of all studies."""
    ratios: str | tuple[str, ...] | None = None
    """A table of mixtures; a list of them, one for each of ``sizes``."""
    metrics: str | tuple[str, ...] | None = None
    """The table of their runs' metrics; a list of them, one for each of ``sizes``."""
    sizes: tuple[float, ...] = ()
    """Parameters of the models of each pair of tables, for a fit over sizes."""
    trained_tokens: tuple[float, ...] = ()
    """Trained tokens of each pair of tables; empty = the same for all."""
    table: str | None = None
    """One table of mixtures and metrics with columns for size and tokens, for a fit over sizes."""
    size: str = "model_size"
    """Column of ``table`` with the parameters of the model."""
    tokens: str = "n_tokens"
    """Column of ``table`` with the trained tokens."""
    weights: tuple[str, ...] = ("weight_*", "train_*")
    """Patterns of the columns of ``table`` with the mixture."""
    bad_rows: Literal["refuse", "leave_out"] = "refuse"
    """Treatment of rows whose weights are not a mixture."""
    out: str | None = None
    """Folder of the fit; null = ``runs_dir/study/fit``, or ``fit``."""
    json: bool = False
    """Print one JSON document in place of the text (docs/json.md)."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Keys of ``ablate import``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    file: str
    """The YAML file."""
    name: str | None = None
    """Name of the configs; null = the file's own."""
    nanotron: str = "main"
    """Branch whose defaults apply to keys that the file does not set."""
    out: str = "imports"
    """Parent of the import's folder."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Keys of ``ablate promote`` that compare."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    compare: str | None = None
    """A promotion folder: compare its full run with its proxies."""
    runs_dir: str = "runs"
    """Folder of all studies."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Keys of ``ablate export`` besides those of a run."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    format: str
    """Name of the trainer whose files are written."""
    promotion: str | None = None
    """A promotion folder: export its full run."""
    run: str | None = None
    """The folder of a recorded run."""
    out: str = "exports"
    """Parent of the export's folder."""
    tokens: str | None = None
    """``copy``, ``link``, ``none``, or null = ``copy`` if the format has tokens."""
    root: str | None = None
    """Folder from which the trainer will read the export."""
