"""Stages, weights, tokens and model size from a resolved config.

The config is read as the plain mapping in the manifest, not through `ablations.config.schema`: checking
10,000 configs would take longer than everything else, and a record can be read even if today's
schema would refuse it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "PlannedSource",
    "PlannedTask",
    "parameters",
    "planned_sources",
    "planned_tasks",
    "sources_of",
    "total_tokens",
    "varied_parameters",
]

DEFAULT_EPOCH_CAP = 4.0
"""Epoch cap of a config that does not state one (design.md)."""


_HELDOUT_FORMS = {
    "conversations": ("generative", "bpb"),
    "preferences": ("preference", "margin"),
    "pictures": ("picture", "bpb"),
}
"""Kind of a source's rows → form and main metric of its held-out task."""


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """Requested share and tokens of one source in one stage."""

    stage: str
    source: str
    domain: str | None
    weight: float
    tokens: float
    available: float | None
    epoch_cap: float
    exemption: str | None
    """Reason in ``mixture.epoch_cap_exempt`` why the source may exceed the cap; None if it may not."""


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """Evaluation set of the suite."""

    task: str
    domain: str | None
    form: str | None
    metric: str | None
    """First metric in the config: the task's main one."""


def planned_tasks(config: Mapping[str, Any]) -> Iterator[PlannedTask]:
    """Yield the tasks of the suite, then the held-out task of every source."""
    for name, spec in _mapping(_mapping(config, "evaluation"), "tasks").items():
        if isinstance(spec, Mapping):
            metrics = spec.get("metrics") or [None]
            yield PlannedTask(
                task=name, domain=spec.get("domain"), form=spec.get("form"), metric=metrics[0]
            )
    for source, about in sources_of(config).items():
        kind = str(_mapping(about, "rows").get("kind"))
        form, metric = _HELDOUT_FORMS.get(kind, ("rolling", "bpb"))
        yield PlannedTask(
            task=f"heldout_{source}",
            domain=about.get("domain") or source,
            form=form,
            metric=metric,
        )


def total_tokens(config: Mapping[str, Any]) -> float | None:
    """Return the requested tokens (sft, dpo: samples) of a schedule; None if they are not stated."""
    schedule = _mapping(config, "schedule")
    stated = _number(schedule.get("total_tokens"))
    if stated is None:
        stated = _number(schedule.get("total_samples"))
    if stated is not None:
        return stated
    budgets = [_number(stage.get("tokens")) for stage in _stages(config).values()]
    known = [budget for budget in budgets if budget is not None]
    return sum(known) if known else None


def sources_of(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the config of each source: source → its section."""
    found = _mapping(config, "source")
    return {name: spec for name, spec in found.items() if isinstance(spec, Mapping)}


def planned_sources(config: Mapping[str, Any]) -> Iterator[PlannedSource]:
    """Yield the plan of every stage for every source with a weight, in the config's order."""
    mixture = _mapping(config, "mixture")
    cap = _number(mixture.get("epoch_cap")) or DEFAULT_EPOCH_CAP
    exempt = _mapping(mixture, "epoch_cap_exempt")
    catalogue = sources_of(config)
    total = total_tokens(config) or 0.0
    for stage, spec in _stages(config).items():
        budget = _number(spec.get("tokens"))
        if budget is None:
            share = _number(spec.get("share"))
            budget = total * (1.0 if share is None else share)
        for source, weight in _weights(spec.get("weights") or mixture.get("weights")).items():
            about = catalogue.get(source, {})
            yield PlannedSource(
                stage=stage,
                source=source,
                domain=about.get("domain"),
                weight=weight,
                tokens=weight * budget,
                available=_number(about.get("tokens_available", about.get("tokens"))),
                epoch_cap=cap,
                exemption=exempt.get(source),
            )


def _stages(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    stages = _mapping(config, "schedule").get("stages")
    if isinstance(stages, Mapping) and stages:
        return {name: spec or {} for name, spec in stages.items()}
    return {"main": {}}


def _weights(weights: Any) -> dict[str, float]:
    """Return weights that sum to 1, even if the config does not normalise them."""
    if not isinstance(weights, Mapping):
        return {}
    found = {name: _number(weight) or 0.0 for name, weight in weights.items()}
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()} if total > 0 else {}


def parameters(config: Mapping[str, Any]) -> int | None:
    """Count the parameters of the config's Llama model, including embeddings; None if unknown."""
    model = _mapping(config, "model")
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = [_number(model.get(name)) for name in (*needed, "vocab_size")]
    if any(size is None for size in sizes):
        return None
    hidden, layers, heads, inner, vocabulary = (int(size or 0) for size in sizes)
    kv_heads = int(_number(model.get("num_key_value_heads")) or heads)
    attention = 2 * hidden * hidden + 2 * hidden * (hidden // heads) * kv_heads
    block = attention + 3 * hidden * inner + 2 * hidden
    embeddings = vocabulary * hidden * (1 if model.get("tie_word_embeddings", True) else 2)
    return embeddings + layers * block + hidden


_PARAMETERS = ("model", "training", "schedule", "mixture", "method")
"""Sections of a config that a study may search over besides the weights."""


def varied_parameters(
    configs: Iterable[tuple[str, Mapping[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """Return the parameters that differ between trials: config path → trial → value.

    Weights of mixtures are left out, since they have columns of their own.

    Args:
        configs: (trial, config) of each run. Equal sections should be one object, as
            `analysis.records.scan` returns them: each is looked through once.
    """
    flat: dict[int, tuple[object, dict[str, Any]]] = {}
    of_trial: dict[str, list[dict[str, Any]]] = {}
    for trial, config in configs:
        sections = [(name, _mapping(config, name)) for name in _PARAMETERS]
        for name, section in sections:
            # The section is kept beside its leaves, so that no other object gets its id.
            flat.setdefault(id(section), (section, dict(_leaves(name, section))))
        of_trial.setdefault(trial, [flat[id(section)][1] for _, section in sections])
    varied: dict[str, dict[str, Any]] = {}
    for place in range(len(_PARAMETERS)):
        parts = {id(leaves[place]): leaves[place] for leaves in of_trial.values()}
        for path in dict.fromkeys(path for part in parts.values() for path in part):
            if len({repr(part.get(path)) for part in parts.values()}) > 1:
                varied[path] = {trial: of[place].get(path) for trial, of in of_trial.items()}
    return varied


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (config path, value) of each value that is no mapping, without the weights of mixtures."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        if key != "weights":
            yield from _leaves(f"{path}.{key}", inner)


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
