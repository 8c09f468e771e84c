"""Read a published mixture of pictures, videos and text, in the form of SmolVLM2's training.

    datasets:
    - name: charts
      modality: image                  # text, image, multiimage or video
      category: Chart & Table
      json_path: /data/charts.json
      sampling_strategy: random:40%    # all, or first, end or random with a percentage or a number of rows
      _comment: '# 18,260 samples'     # or the same as a YAML comment inside the entry

The rows that an entry gives are those that SmolVLM2's loader takes (huggingface/smollm at a041759,
``vision/smolvlm2/smolvlm/datasets/dataset.py``): a percentage is rounded up and is one row at least, a
number beyond the data set is all of it. The loader also takes a whole data set, without a word, where it
does not know the strategy, and reads past 100%; both are refused here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import yaml

from ablations.errors import ConfigError, Problem

__all__ = [
    "MODALITIES",
    "DataSet",
    "PublishedMixture",
    "Share",
    "holds_pictures",
    "read_mixture",
    "rows_taken",
    "shares",
]

MODALITIES = {
    "text": "text",
    "image": "one picture",
    "multiimage": "several pictures",
    "video": "video",
}
"""Modality as a file names it → in words."""

_STRATEGY = re.compile(r"(first|end|random):(?:(\d+(?:\.\d+)?)%|(\d+))")
_COUNT = re.compile(r"(\d[\d,_]*) samples?\b")
_ALLOWED = "all, or first, end or random with :N% or :N"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set of a published mixture."""

    name: str
    modality: str
    category: str | None
    strategy: str
    samples: int | None
    """Rows that it has, as the file states them; None if it states none and the strategy is a number."""
    taken: int
    """Rows that an epoch reads."""
    file: str
    """Path of its rows on the publisher's machine."""
    folder: str
    """Folder of its media there; it names the collection."""
    line: int
    """Line of the entry, from 1."""

    @property
    def group(self) -> str:
        """Return modality and category."""
        return f"{MODALITIES[self.modality]}: {self.category or 'no category'}"


@dataclass(frozen=True, kw_only=True)
class PublishedMixture:
    """Data sets of a published mixture, in the order of the file."""

    datasets: tuple[DataSet, ...]
    remarks: tuple[str, ...] = ()
    """Facts that the file leaves open, or that look odd."""

    @property
    def rows(self) -> int:
        """Return the rows of one epoch."""
        return sum(one.taken for one in self.datasets)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Part of a mixture."""

    label: str
    datasets: int
    rows: int
    share: float
    """Share of the rows of one epoch, 0 to 1."""


@dataclass
class _Reading:
    """Faults and remarks that are gathered while a file is read."""

    where: str
    lines: Sequence[str]
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def fault(self, node: yaml.Node, what: str, **more: object) -> None:
        """Add a problem at the place of a node."""
        mark = node.start_mark
        place = f"{self.where}:{mark.line + 1}:{mark.column + 1}"
        self.problems.append(Problem(place, what, **more))  # type: ignore[arg-type]


def holds_pictures(root: yaml.Node | None) -> bool:
    """Return whether a YAML file is such a mixture: lists of data sets, each with the path of its rows."""
    if isinstance(root, yaml.MappingNode) and any(
        key.value == "datasets" and isinstance(value, yaml.SequenceNode)
        for key, value in root.value
    ):
        return True
    return any(
        isinstance(entry, yaml.MappingNode)
        and any(key.value == "json_path" for key, _ in entry.value)
        for part in _lists(root)
        for entry in part.value
    )


def read_mixture(root: yaml.Node | None, text: str, where: str) -> PublishedMixture:
    """Return the data sets of a file.

    Args:
        root: Root of its nodes.
        text: Its text, whose comments may hold counts.
        where: Its path, for errors.

    Raises:
        ConfigError: every entry that cannot be read, with its line and column.
    """
    reading = _Reading(where, text.splitlines())
    parts = list(_lists(root))
    if isinstance(root, yaml.SequenceNode):
        reading.remarks.append(
            "the file is a bare list; SmolVLM2's loader reads lists under a key, such as datasets:"
        )
    found = [
        one
        for part in parts
        for entry in part.value
        if (one := _data_set(entry, reading)) is not None
    ]
    if not found and not reading.problems:
        reading.problems.append(
            Problem(where, "no data set in it", allowed="datasets: [{name: …}]")
        )
    _require_apart(found, reading)
    if reading.problems:
        raise ConfigError(reading.problems)
    return PublishedMixture(datasets=tuple(found), remarks=tuple(reading.remarks))


def rows_taken(strategy: str, samples: int | None) -> int | None:
    """Return the rows that SmolVLM2's loader takes of a data set; None if that depends on its rows.

    >>> rows_taken("random:33.3%", 10), rows_taken("first:5", 10), rows_taken("all", 10)
    (4, 5, 10)

    Args:
        strategy: A sampling strategy.
        samples: Rows of the data set; None if unknown.

    Raises:
        ValueError: no strategy that the loader knows, more than 100%, or no row.
    """
    if strategy == "all":
        return samples
    match = _STRATEGY.fullmatch(strategy)
    if match is None:
        raise ValueError("an unknown strategy, for which SmolVLM2's loader reads every row")
    if match[2] is None:
        number = int(match[3])
        if not number:
            raise ValueError("takes no row")
        return number if samples is None else min(number, samples)
    percent = float(match[2])
    if percent > 100:
        raise ValueError("more than 100%")
    return None if samples is None else max(1, math.ceil(samples * percent / 100.0))


def shares(mixture: PublishedMixture, label_of: Callable[[DataSet], str]) -> list[Share]:
    """Return the shares of a mixture by a label, in the order of the file; "All" and "all" are one."""
    parts: dict[str, list[DataSet]] = {}
    for one in mixture.datasets:
        parts.setdefault(label_of(one).casefold(), []).append(one)
    return [
        Share(
            label=label_of(members[0]),
            datasets=len(members),
            rows=(rows := sum(one.taken for one in members)),
            share=rows / mixture.rows,
        )
        for members in parts.values()
    ]


def _lists(root: yaml.Node | None) -> Iterator[yaml.SequenceNode]:
    """Yield the lists of a file: itself, or the values of its keys."""
    if isinstance(root, yaml.SequenceNode):
        yield root
    elif isinstance(root, yaml.MappingNode):
        for _, value in root.value:
            if isinstance(value, yaml.SequenceNode):
                yield value


def _data_set(entry: yaml.Node, reading: _Reading) -> DataSet | None:
    """Return the data set of an entry; None after a fault."""
    before = len(reading.problems)
    if not isinstance(entry, yaml.MappingNode):
        reading.fault(entry, "not a data set", allowed="name, modality, json_path, …")
        return None
    fields = _fields(entry, reading)
    for key in ("name", "modality", "json_path"):
        if key not in fields:
            reading.fault(entry, f"a data set without {key}")
    if len(reading.problems) > before:
        return None
    name, modality = fields["name"].value, fields["modality"].value
    if modality not in MODALITIES:
        reading.fault(
            fields["modality"],
            f"unknown modality of {name!r}",
            found=modality,
            allowed=", ".join(MODALITIES),
        )
    samples = _samples(entry, fields, name, reading)
    strategy, taken = _taken(entry, fields, samples, reading)
    if taken is None or len(reading.problems) > before:
        return None
    category = fields["category"].value if "category" in fields else None
    return DataSet(
        name=name,
        modality=modality,
        category=category,
        strategy=strategy,
        samples=samples,
        taken=taken,
        file=fields["json_path"].value,
        folder=fields["path"].value if "path" in fields else "",
        line=entry.start_mark.line + 1,
    )


def _fields(entry: yaml.MappingNode, reading: _Reading) -> dict[str, yaml.ScalarNode]:
    """Return the plain fields of an entry that have a value."""
    seen: set[str] = set()
    fields: dict[str, yaml.ScalarNode] = {}
    for key, value in entry.value:
        if not isinstance(key, yaml.ScalarNode):
            reading.fault(key, "a key that is a list or a mapping")
            continue
        if key.value in seen:
            reading.fault(key, f"the key {key.value!r} occurs twice")
        seen.add(key.value)
        if isinstance(value, yaml.ScalarNode) and value.tag != _NULL and value.value.strip():
            fields[key.value] = value
    return fields


def _samples(
    entry: yaml.MappingNode, fields: dict[str, yaml.ScalarNode], name: str, reading: _Reading
) -> int | None:
    """Return the rows that an entry states; None if it states none."""
    match = _COUNT.search(fields["_comment"].value) if "_comment" in fields else None
    if match is None:
        # Lines of a block end before the next entry, those of {…} with its brace.
        end = entry.end_mark.line + bool(entry.flow_style)
        for line in reading.lines[entry.start_mark.line : end]:
            match = _COUNT.search(line.partition("#")[2])
            if match is not None:
                break
    if match is None:
        return None
    count = int(match[1].replace(",", "").replace("_", ""))
    if not 0 < count < 10**15:
        reading.fault(entry, f"{name!r} states no number of rows", found=match[1], allowed=">= 1")
        return None
    return count


def _taken(
    entry: yaml.Node,
    fields: dict[str, yaml.ScalarNode],
    samples: int | None,
    reading: _Reading,
) -> tuple[str, int | None]:
    """Return the strategy of an entry and the rows that it takes; None after a fault."""
    name = fields["name"].value
    node = fields.get("sampling_strategy")
    strategy = "all" if node is None else node.value
    try:
        taken = rows_taken(strategy, samples)
    except ValueError as error:
        reading.fault(node or entry, f"{name!r}: {error}", found=strategy[:60], allowed=_ALLOWED)
        return strategy, None
    if taken is None:
        reading.fault(
            entry,
            f"the number of rows of {name!r} is not stated",
            found=f"sampling_strategy {strategy}",
            do="add _comment: '# N samples', as SmolVLM2's files have it",
        )
    elif samples is None:
        reading.remarks.append(f"{name}: its rows are not stated; {strategy} is taken at its word")
    elif strategy != "all" and not strategy.endswith("%") and int(strategy.split(":")[1]) > samples:
        reading.remarks.append(f"{name}: {strategy} of {samples:,} rows takes all of them")
    return strategy, taken


def _require_apart(found: list[DataSet], reading: _Reading) -> None:
    """Add a problem for each name that several data sets have: their shares could not be told apart."""
    lines: dict[str, list[int]] = {}
    for one in found:
        lines.setdefault(one.name, []).append(one.line)
    for name, places in lines.items():
        if len(places) > 1:
            reading.problems.append(
                Problem(
                    f"{reading.where}:{places[1]}",
                    f"the name {name!r} occurs {len(places)} times",
                    found="lines " + ", ".join(map(str, places)),
                    do="give each data set its own name",
                )
            )
