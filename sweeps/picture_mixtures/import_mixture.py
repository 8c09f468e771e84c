"""Import a published mixture of pictures as configs of this platform.

mixture.yaml ─▶ imports/<name>/
    conf/mixture/<name>.yaml      the share of each data set
    conf/source/*.yaml            the data sets, with their place on the hub where it is known
    conf/schedule/<name>.yaml     one epoch, in rows
    conf/search/<name>.yaml       a search with a group for each modality
    conf/experiment/<name>.yaml   ablate plan --config-dir …/conf experiment=<name>
    published.json                the data sets as the file has them
    README.md                     shares, and what the file leaves open
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ablations.config.literal import literal
from ablations.data.catalogue import load_catalogue
from ablations.files import write_json, write_text
from ablations.markdown import escaped, in_code, one_line
from sweeps.nanotron_files.import_folder import new_import
from sweeps.nanotron_files.semantics import source_names
from sweeps.picture_mixtures.hub_places import place_of
from sweeps.picture_mixtures.published_file import (
    MODALITIES,
    DataSet,
    PublishedMixture,
    Share,
    shares,
)

__all__ = ["ImportedMixture", "import_mixture", "write_mixture"]

_DIGITS = 10
"""Digits of a share: of millions of rows, one changes the seventh."""

_MAX_TOKENS, _PICTURE_SIZE, _FRAMES, _MOST_PICTURES = 8192, 512, 64, 6
"""SmolVLM2's longest row, side of a picture and frames of a video (huggingface/smollm at a041759,
``vision/smolvlm2/scripts/train/multinode26-256M.sh``), and the pictures that its M4-Instruct and MAmmoTH
files are capped to by their names."""

_ROW_TOKENS = 400
"""Text tokens assumed of a row; no published file states any."""

_GROUPS = {
    "method": "smolvlm_256m",
    "tokenizer": "smolvlm",
    "model": "smolvlm_256m",
    "training": "smolvlm2",
    "evaluation": "heldout",
}
"""Groups of the experiment that a published mixture does not name: a preset stands in."""

_START = "HuggingFaceTB/SmolVLM-256M-Instruct"


@dataclass(frozen=True, kw_only=True)
class ImportedMixture:
    """Configs made from a published mixture."""

    name: str
    origin: str
    """Path of the file."""
    mixture: PublishedMixture
    configs: Mapping[str, Mapping[str, Any]]
    """``group/name`` → plain values of one of our config files."""
    remarks: tuple[str, ...]
    """Facts that the file leaves open, or that look odd."""

    @property
    def by_modality(self) -> list[Share]:
        """Return the shares of text, one picture, several pictures and video."""
        return shares(self.mixture, lambda one: MODALITIES[one.modality])

    @property
    def by_category(self) -> list[Share]:
        """Return the shares of modality and category, the largest first."""
        return sorted(shares(self.mixture, lambda one: one.group), key=lambda one: -one.share)


def import_mixture(mixture: PublishedMixture, origin: str, name: str) -> ImportedMixture:
    """Return the configs of a published mixture.

    Args:
        mixture: The data sets.
        origin: Path of their file.
        name: Name of the config groups.
    """
    names = _source_names(mixture, name)
    groups: dict[str, list[str]] = {}
    for one in mixture.datasets:
        groups.setdefault(one.modality, []).append(names[one.name])
    configs: dict[str, Mapping[str, Any]] = {
        f"mixture/{name}": {
            "weights": {
                names[one.name]: float(f"{one.taken / mixture.rows:.{_DIGITS}g}")
                for one in mixture.datasets
            },
            "normalize": False,
            "epoch_cap": 4.0,
            "audit_tolerance": 0.001,
        },
        f"schedule/{name}": {
            "total_tokens": None,
            "total_samples": mixture.rows,
            "stages": {"main": {"share": 1.0, "weights": None}},
        },
        f"search/{name}": _search(groups),
        f"experiment/{name}": {
            "defaults": [
                *({f"override /{group}": preset} for group, preset in _GROUPS.items()),
                *({f"override /{group}": name} for group in ("mixture", "schedule", "search")),
            ],
            "study": name,
            "warm_start": {"checkpoint": _START},
        },
        **{f"source/{names[one.name]}": _source(one) for one in mixture.datasets},
    }
    return ImportedMixture(
        name=name,
        origin=origin,
        mixture=mixture,
        configs=configs,
        remarks=(*mixture.remarks, *_open_facts(mixture)),
    )


def _source_names(mixture: PublishedMixture, name: str) -> dict[str, str]:
    """Return data set → source; a name that the catalogue has already gets the mixture's in front."""
    known = load_catalogue()
    made = source_names([one.name for one in mixture.datasets])
    return {
        dataset: f"{name}_{source}" if source in known else source
        for dataset, source in made.items()
    }


def _search(groups: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a search over the mixture: the weights of the modalities, and those inside each."""
    of_several = {
        kind: {"sources": members} for kind, members in groups.items() if len(members) > 1
    }
    weights = {"sources": [one for members in groups.values() for one in members]}
    return {
        "defaults": ["mixture", "_self_"],
        "question": "Which shares of text, pictures and video score best?",
        "space": {"mixtures": {"mixture.weights": {**weights, "groups": of_several}}},
    }


def _source(one: DataSet) -> dict[str, Any]:
    """Return the spec of a data set."""
    place = place_of(one)
    rows: dict[str, Any] = {
        "kind": "conversations" if one.modality == "text" else "pictures",
        "messages_column": "conversations",
        "max_tokens": _MAX_TOKENS,
        "available": one.samples or one.taken,
    }
    if one.modality != "text":
        rows |= {
            "pictures_column": "video" if one.modality == "video" else "image",
            "picture_size": _PICTURE_SIZE,
            "max_pictures": {"image": 1, "multiimage": _MOST_PICTURES}.get(one.modality, _FRAMES),
        }
    if one.modality == "video":
        rows["frames"] = _FRAMES
    category = one.category.lower() if one.category else "unknown"
    spec = {
        "domain": one.modality,
        "tokens_available": _ROW_TOKENS * (one.samples or one.taken),
        "origin": place.origin,
        "rows": rows,
        "id_column": None,
        "heldout_share": 0.02,
        "licence": place.licence,
        "url": place.url,
        "note": f"category {category}; published as {one.strategy} of "
        f"{'rows not counted' if one.samples is None else f'{one.samples:,} rows'}. {place.note}",
    }
    if one.strategy.startswith("first:"):
        spec["max_documents"] = one.taken
    return spec


def _open_facts(mixture: PublishedMixture) -> list[str]:
    """Return what a published mixture leaves open."""
    sets = mixture.datasets
    foreign = [one for one in sets if not place_of(one).on_hub]
    facts = [
        "rows are those that the file states; they were not counted in the data",
        f"tokens of a row are not stated: {_ROW_TOKENS} are assumed, of text alone",
        "model, tokenizer, batch and learning rate are not in the file: a preset stands in",
    ]
    if any(one.strategy.startswith("random:") for one in sets):
        facts.append(
            "random: is one draw (seed 42) that each epoch repeats; here each epoch goes on with other "
            "rows of the data set"
        )
    if ends := [one.name for one in sets if one.strategy.startswith("end:")]:
        facts.append(
            f"the last rows of {', '.join(ends)} are asked; here any rows of them are read"
        )
    if foreign:
        facts.append(
            f"{len(foreign)} of {len(sets)} data sets are files of the publisher's own, whose place on "
            "the hub the file does not give: set origin of their sources"
        )
    if any(one.modality == "video" for one in sets):
        facts.append(
            "videos are read as frames: make folders of frames of them, or a column of pictures; "
            f"{_FRAMES} frames are assumed"
        )
    return facts


def write_mixture(imported: ImportedMixture, out: Path) -> Path:
    """Write the folder ``out`` atomically and return it.

    Raises:
        ConfigError: ``out`` exists already.
    """
    with new_import(out, imported.configs, partial(_config_text, imported)) as building:
        sets = [asdict(one) for one in imported.mixture.datasets]
        write_json(
            building / "published.json", {"file": Path(imported.origin).name, "datasets": sets}
        )
        write_text(building / "README.md", _readme(imported, out))
    return out


def _config_text(imported: ImportedMixture, key: str, values: Mapping[str, Any]) -> str:
    head = f"# Imported from {one_line(Path(imported.origin).name)}; see README.md beside conf/.\n"
    if key.startswith("experiment/"):
        head = f"# @package _global_\n{head}"
    # Sources are read without Hydra; other groups are composed, which would resolve ${…}.
    plain = dict(values) if key.startswith("source/") else literal(values)
    return head + yaml.safe_dump(plain, sort_keys=False, width=100, allow_unicode=True)


def _readme(imported: ImportedMixture, out: Path) -> str:
    def table(label: str, parts: list[Share]) -> list[str]:
        return [
            f"| {label} | data sets | rows of an epoch | share |",
            "|---|---|---|---|",
            *(
                f"| {escaped(one.label)} | {one.datasets} | {one.rows:,} | {one.share:.2%} |"
                for one in parts
            ),
            "",
        ]

    lines = [
        f"# {imported.name}",
        "",
        f"Read from {in_code(Path(imported.origin).name)}: {len(imported.mixture.datasets)} data sets, "
        f"{imported.mixture.rows:,} rows of an epoch.",
        "",
        f"    ablate plan --config-dir {shlex.quote(f'{one_line(str(out))}/conf')} "
        f"experiment={imported.name}",
        "",
        *table("modality", imported.by_modality),
        *table("modality: category", imported.by_category),
        "## What the file leaves open",
        "",
        *(f"- {escaped(remark)}" for remark in imported.remarks),
    ]
    return "\n".join(lines) + "\n"
