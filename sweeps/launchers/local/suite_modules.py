"""Modules that the suite of a study imports beyond what every run imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.evaluation.specs import METRICS

__all__ = ["PRELOADED", "preload_of", "suite_modules"]

PRELOADED = {
    "sft": "ablations.preload_trl",
    "dpo": "ablations.preload_trl",
    "vlm": "ablations.preload_vlm",
}
"""Method → module that imports what its runs need beyond the others."""

_ANSWER_MATCHING = "ablations.evaluation.lighteval.answer_matching"
_INSTRUCTIONS = "ablations.evaluation.lighteval.instruction_checks"


def suite_modules(config: Any) -> list[str]:
    """Return the modules that a warm server imports for the tasks of a composed config.

    A config that no run could have is left to the runs, which report what is wrong with it.
    """
    from omegaconf import OmegaConf

    tasks = OmegaConf.select(config, "evaluation.tasks", throw_on_missing=False)
    if not OmegaConf.is_dict(tasks):
        return []
    plain = OmegaConf.to_container(tasks, resolve=False)
    assert isinstance(plain, Mapping)
    used = [task.get("metrics") for task in plain.values() if isinstance(task, Mapping)]
    metrics = {name for names in used for name in names or ()}
    # Held-out answers about pictures are matched too.
    heldout = OmegaConf.select(config, "evaluation.heldout", throw_on_missing=False)
    if heldout and OmegaConf.select(config, "method.kind", throw_on_missing=False) == "vlm":
        metrics |= set(METRICS["picture"])
    modules = [_ANSWER_MATCHING] if "exact_match" in metrics else []
    return [*modules, _INSTRUCTIONS] if metrics & set(METRICS["instructions"]) else modules


def preload_of(config: Mapping[str, Any]) -> list[str]:
    """Return what a job of several runs imports before the first of them, as slots do.

    Args:
        config: Composed config of a run, plain values; another application's has no model and needs nothing.
    """
    from omegaconf import OmegaConf

    if "model" not in config:
        return []
    method = config.get("method")
    kind = method.get("kind") if isinstance(method, Mapping) else None
    return [
        "hydra",
        "ablations.commands.run",
        "ablations.preload",
        *([PRELOADED[kind]] if kind in PRELOADED else []),
        *suite_modules(
            OmegaConf.create({name: config.get(name) for name in ("evaluation", "method")})
        ),
    ]
