"""The rows of a post-training before it starts: how many there are, how long, what a mixture reads of them.

A source that is not prepared counts with the rows and tokens that its config states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.config.schema import RunConfig
from ablations.config.vision_part import vision_of
from ablations.data.catalogue import SourceSpec
from ablations.data.manifest import StoreManifest
from ablations.errors import DataError, Problem
from ablations.mixture.constraints import broken_caps
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import Schedule
from ablations.training.vision import VisionLoad

__all__ = [
    "RowFacts",
    "RowParts",
    "guard_problems",
    "in_samples",
    "row_facts",
    "row_parts",
    "too_long_with_pictures",
]

_REFERENCE_SHARE = 1 / 3
"""A forward pass of the reference costs a third of forward and backward."""


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """Rows of one source."""

    rows: float
    """Conversations or pairs; 0 if neither the store nor the config states them."""
    tokens: float
    """Mean tokens of a row, of a pair those of both answers; with those that the model makes of pictures."""
    counted: float
    """Mean tokens of a row that the loss counts."""
    pictures: float = 0.0
    """Mean pictures of a row."""


@dataclass(frozen=True, kw_only=True)
class RowParts:
    """Parts of a plan that differ for a run whose samples are rows."""

    available: Mapping[str, float]
    """Source → rows that a run can read."""
    epochs: Mapping[str, float]
    flops: float
    problems: list[Problem]
    """Epoch caps that would be broken."""
    vision: VisionLoad | None = None
    """Vision part, with the pictures of the row with the most of them; None for other methods."""


def row_parts(
    config: RunConfig, schedule: Schedule, manifests: Mapping[str, StoreManifest]
) -> RowParts:
    """Return what a schedule in samples reads and costs.

    Args:
        config: A run with a method on rows.
        schedule: Its schedule.
        manifests: Source → manifest of its store, if it is prepared.
    """
    facts = row_facts(config, manifests)
    vision = vision_of(config)
    sampled = in_samples(schedule, facts) if config.method.unit == "tokens" else schedule
    available = {name: float(fact.rows) for name, fact in facts.items()}
    mixture = config.mixture
    return RowParts(
        available=available,
        epochs=sampled.epochs(available),
        flops=row_flops(config, sampled, facts),
        problems=broken_caps(
            sampled, available, epoch_cap=mixture.epoch_cap, exempt=mixture.epoch_cap_exempt
        ),
        vision=None
        if vision is None
        else VisionLoad(
            vision=vision,
            text_width=config.model.hidden_size,
            pictures=_most_pictures(config, manifests),
        ),
    )


def row_facts(config: RunConfig, manifests: Mapping[str, StoreManifest]) -> dict[str, RowFacts]:
    """Return the facts of each source of a schedule.

    Args:
        config: A run with a method on rows.
        manifests: Source → manifest of its store, if it is prepared.
    """
    vision = vision_of(config)
    added = vision.block_tokens - 1 if vision else 0
    facts = {}
    for name in config.build_schedule().sources:
        spec, manifest = config.source[name], manifests.get(name)
        if spec.rows is None:
            facts[name] = _text_facts(config, spec, manifest)
            continue
        if manifest is not None and manifest.rows is not None:
            rows, tokens = manifest.rows.rows, manifest.tokens
            counted, pictures = manifest.rows.supervised_tokens, manifest.rows.pictures
        else:
            rows = spec.rows.available or 0
            tokens = counted = spec.tokens_available
            shown = spec.rows.kind == "pictures"
            pictures = rows * (spec.rows.frames or 1) if shown else 0
        if not config.method.supervises_answers:
            counted = tokens - pictures
        each = max(1, rows)
        facts[name] = RowFacts(
            rows=rows,
            tokens=(tokens + added * pictures) / each,
            counted=counted / each,
            pictures=pictures / each,
        )
    return facts


def _text_facts(config: RunConfig, spec: SourceSpec, manifest: StoreManifest | None) -> RowFacts:
    """Return the facts of plain text, whose rows are windows of ``training.sequence_length`` tokens."""
    length = config.training.sequence_length
    files = [file.tokens for file in manifest.files] if manifest else [spec.tokens_available]
    return RowFacts(
        rows=sum(int(tokens) // length for tokens in files), tokens=length, counted=length - 1
    )


def _most_pictures(config: RunConfig, manifests: Mapping[str, StoreManifest]) -> int:
    """Return the pictures of the row with the most of them; of a source without a store, those it allows."""
    found = [0]
    for name in config.build_schedule().sources:
        rows, manifest = config.source[name].rows, manifests.get(name)
        if manifest is not None and manifest.rows is not None:
            found.append(manifest.rows.most_pictures)
        elif rows is not None and rows.kind == "pictures":
            found.append(rows.frames or rows.max_pictures)
    return max(found)


def too_long_with_pictures(config: RunConfig, folders: Mapping[str, Path]) -> list[Problem]:
    """Return a problem for each prepared source with a row that its pictures make too long.

    Args:
        config: A run with a method on rows.
        folders: Source → its store, if it is prepared.
    """
    vision, length = vision_of(config), config.training.sequence_length
    problems = []
    for name, folder in folders.items() if vision else ():
        assert vision is not None
        rows = config.source[name].rows
        if rows is None or rows.kind != "pictures":
            continue
        # Imported here because numpy takes a fifth of the time of a plan without prepared sources.
        from ablations.data.rows.row_store import RowStore
        from ablations.training.vlm.picture_inputs import longest_row

        if (longest := longest_row(RowStore.open(folder), vision)) > length:
            problems.append(
                Problem(
                    "training.sequence_length",
                    f"shorter than the longest row of {name!r} with its pictures",
                    found=length,
                    allowed=f">= {longest}",
                    do="raise it, or lower source.rows.max_tokens or max_pictures",
                )
            )
    return problems


def in_samples(schedule: Schedule, facts: Mapping[str, RowFacts]) -> Schedule:
    """Return a schedule whose weights are shares of counted tokens with those of samples, about."""
    stages = []
    for stage in schedule.stages:
        raw = {
            name: weight / max(1e-9, facts[name].counted) for name, weight in stage.mixture.items()
        }
        total = sum(raw.values())
        weights = {name: weight / total for name, weight in raw.items()}
        stages.append(replace(stage, mixture=Mixture(weights, normalize=True)))
    return replace(schedule, stages=tuple(stages))


def row_flops(config: RunConfig, schedule: Schedule, facts: Mapping[str, RowFacts]) -> float:
    """Return the training FLOPs of a schedule in samples; DPO's reference reads each pair once more."""
    vision, total = vision_of(config), 0.0
    a_picture = vision.flops_per_picture(config.model.hidden_size) if vision else 0
    for name, rows in schedule.tokens().items():
        length = facts[name].tokens / (2 if config.method.kind == "dpo" else 1)
        each = config.model.flops_per_token(max(1, round(length)))
        total += rows * (facts[name].tokens * each + facts[name].pictures * a_picture)
    return total * (1 + _REFERENCE_SHARE) if config.method.kind == "dpo" else total


def guard_problems(config: RunConfig) -> list[Problem]:
    """Return a problem for each guard whose held-out text is not prepared with the base's tokenizer."""
    problems = []
    for name in config.evaluation.guards:
        folder = config.guard_folder(name)
        try:
            kept = StoreManifest.read(folder).rows is None
        except DataError:
            kept = False
        if not kept:
            problems.append(
                Problem(
                    f"evaluation.guards.{name}",
                    "no held-out text of that source",
                    found=f"no store of text at {folder}",
                    do="run `ablate prepare` with the same overrides, or leave the guard out",
                )
            )
    return problems
