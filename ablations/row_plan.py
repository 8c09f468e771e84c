"""The rows of a post-training before it starts: how many there are, how long, what a mixture reads of them.

A source that is not prepared counts with the rows and tokens that its config states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ablations.config.schema import RunConfig
from ablations.data.manifest import StoreManifest
from ablations.errors import DataError, Problem
from ablations.mixture.constraints import broken_caps
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import Schedule

__all__ = ["RowFacts", "RowParts", "guard_problems", "in_samples", "row_facts", "row_parts"]

_REFERENCE_SHARE = 1 / 3
"""A forward pass of the reference costs a third of forward and backward."""


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """Rows of one source."""

    rows: float
    """Conversations or pairs; 0 if neither the store nor the config states them."""
    tokens: float
    """Mean tokens of a row, of a pair those of both answers."""
    counted: float
    """Mean tokens of a row that the loss counts."""


@dataclass(frozen=True, kw_only=True)
class RowParts:
    """Parts of a plan that differ for a run whose samples are rows."""

    available: Mapping[str, float]
    """Source → rows that a run can read."""
    epochs: Mapping[str, float]
    flops: float
    problems: list[Problem]
    """Epoch caps that would be broken."""


def row_parts(
    config: RunConfig, schedule: Schedule, manifests: Mapping[str, StoreManifest]
) -> RowParts:
    """Return what a schedule in samples reads and costs.

    Args:
        config: A run with method=sft or dpo.
        schedule: Its schedule.
        manifests: Source → manifest of its store, if it is prepared.
    """
    facts = row_facts(config, manifests)
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
    )


def row_facts(config: RunConfig, manifests: Mapping[str, StoreManifest]) -> dict[str, RowFacts]:
    """Return the facts of each source of a schedule.

    Args:
        config: A run with method=sft or dpo.
        manifests: Source → manifest of its store, if it is prepared.
    """
    facts = {}
    for name in config.build_schedule().sources:
        spec, manifest = config.source[name], manifests.get(name)
        if manifest is not None and manifest.rows is not None:
            rows, tokens = manifest.rows.rows, manifest.tokens
            counted = manifest.rows.supervised_tokens
        else:
            rows = (spec.rows.available if spec.rows else None) or 0
            tokens = counted = spec.tokens_available
        if not config.method.supervises_answers:
            counted = tokens
        each = max(1, rows)
        facts[name] = RowFacts(rows=rows, tokens=tokens / each, counted=counted / each)
    return facts


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
    total = 0.0
    for name, rows in schedule.tokens().items():
        length = facts[name].tokens / (2 if config.method.kind == "dpo" else 1)
        each = config.model.flops_per_token(max(1, round(length)))
        total += rows * facts[name].tokens * each
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
