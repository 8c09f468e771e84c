"""Identity of a run: what its result depends on, and the names that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.config.schema import RunConfig, dump
from ablations.data.catalogue import ADDED_FILTERS
from ablations.data.manifest import StoreManifest
from ablations.data.rows.chat_template import CHAT_PICTURE_FIELDS
from ablations.data.rows.row_specs import PICTURE_FIELDS
from ablations.record.identity import fingerprint
from ablations.training.specs import PLACE_FIELDS

__all__ = [
    "identity",
    "items_of",
    "store_digests",
    "trial_name",
    "without_picture_fields",
    "yaml_of",
]


def identity(config: RunConfig) -> dict[str, Any]:
    """Return what defines the result of a run: its plain config, and digests of the prepared token stores."""
    plain = dump(config)
    for key in ("mirror", "batch_tokens"):  # the items' origin and batching do not count
        plain["evaluation"].pop(key)
    _leave_out_unused(plain)
    plain = without_picture_fields(plain)
    plain["stores"] = store_digests(config)
    return plain


def store_digests(config: RunConfig) -> dict[str, str]:
    """Return source → digest of its token store, for every source of the schedule."""
    names = config.build_schedule().sources
    return {name: _store_identity(config.store_folder(name)) for name in names}


def _leave_out_unused(plain: dict[str, Any]) -> None:
    """Leave out fields that were added after runs had been recorded, if they have no effect.

    An older record is then still that of the same run.
    """
    mixture, schedule = plain["mixture"], plain["schedule"]
    added = [
        *((plain["evaluation"], key) for key in ("dtype", "guards")),
        *((mixture, key) for key in ("epoch_cap_exempt", "repeats")),
        *((plain["tokenizer"], key) for key in ("base", "chat")),
        (schedule["lr"], "tail_steps"),
        (plain["training"], "float8"),
    ]
    added += [(task, "chat") for task in plain["evaluation"]["tasks"].values()]
    for section, key in added:
        if not section[key]:
            del section[key]
    for key in PLACE_FIELDS:
        del plain["execution"][key]
    if plain["execution"]["nodes"] == 1:
        del plain["execution"]["nodes"]
    if schedule["total_samples"] is None:
        del schedule["total_samples"]
    if plain["method"]["vision"] is None:
        del plain["method"]["vision"]
    if plain["method"]["kind"] == "pretrain":
        del plain["method"]
    for source in plain["source"].values():
        for key in ("size", "subsets"):  # published figures, for plans
            del source[key]
        for key in ADDED_FILTERS:
            if not source[key]:
                del source[key]


def without_picture_fields(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain config without the fields of pictures of sources and a tokenizer that have none.

    They were added after runs had been recorded and studies begun.
    """
    kept = dict(plain)
    if isinstance(sources := plain.get("source"), Mapping):
        kept["source"] = {
            name: _without(one, "rows", PICTURE_FIELDS) for name, one in sources.items()
        }
    if "tokenizer" in plain:
        kept["tokenizer"] = _without(plain["tokenizer"], "chat", CHAT_PICTURE_FIELDS)
    return kept


def _without(section: Any, key: str, fields: Sequence[str]) -> Any:
    """Return a section whose part ``key`` lacks some fields, unless that part is of pictures."""
    part = section.get(key) if isinstance(section, Mapping) else None
    if not isinstance(part, Mapping) or part.get("picture") or part.get("kind") == "pictures":
        return section
    return {**section, key: {name: value for name, value in part.items() if name not in fields}}


def items_of(config: RunConfig) -> dict[str, str]:
    """Return item file → SHA-256 of the items that the run is scored on; held-out documents are left out.

    Raises:
        DataError: an item file differs from the one that was prepared.
    """
    from ablations.evaluation.items import ItemSources, item_digests

    evaluation = config.evaluation
    sources = ItemSources(
        benchmarks=Path(config.data_dir) / "benchmarks",
        mirror=Path(evaluation.mirror) if evaluation.mirror else None,
        prefer_hub=evaluation.origin == "hub",
    )
    return item_digests(evaluation.tasks.values(), sources)


def trial_name(config: RunConfig, plain: Mapping[str, Any]) -> str:
    """Return the trial's name; without one, eight digits of the fingerprint without the seed."""
    if config.trial is not None:
        return config.trial
    return fingerprint({**plain, "seed": None})[:8]


def _store_identity(folder: Path) -> str:
    manifest = StoreManifest.read(folder)
    files = {file.name: file.sha256 for file in manifest.files}
    files |= {f"{f.name}.loss": f.loss_sha256 for f in manifest.files if f.loss_sha256}
    files |= {f"{f.name}.index": f.index_sha256 for f in manifest.files if f.loss_sha256}
    shown = [file for file in manifest.files if file.pictures_sha256]
    files |= {f"{f.name}.pictures": f.pictures_sha256 for f in shown}
    files |= {f"{f.name}.refs": f.refs_sha256 + f.refs_index_sha256 for f in shown}
    content = {"files": files, "heldout": manifest.heldout.sha256}
    if manifest.heldout.pictures_sha256:
        content["heldout pictures"] = manifest.heldout.pictures_sha256
    return fingerprint(content)[:16]


def yaml_of(plain: Mapping[str, Any]) -> str:
    """Return the text of ``config.yaml``."""
    import yaml

    return yaml.safe_dump(dict(plain), sort_keys=False)
