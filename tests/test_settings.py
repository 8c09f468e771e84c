"""Settings that decide results are those before: thresholds of rules, and defaults of options.

A study that leaves an option out rests on its default, and a verdict on the thresholds of its rule. So none
of them changes by the way: a commit that changes one writes tests/golden/numbers/settings.json again (see
tests/pinned.py), says why, and the release notes name it. What a setting does is tested where it is used.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ablations.mixture
import sweeps.promotion
import sweeps.search
import sweeps.study
import sweeps.verdict
from tests.pinned import require_pinned

PACKAGES = (ablations.mixture, sweeps.promotion, sweeps.search, sweeps.study, sweeps.verdict)
MORE = (
    "ablations.data.contamination",
    "ablations.evaluation.picture_prompts",
    "ablations.evaluation.picture_scorer",
    "ablations.evaluation.prefix_packing",
    "ablations.evaluation.results",
    "ablations.evaluation.score_rule",
    "ablations.evaluation.scoring",
    "ablations.evaluation.specs",
    "ablations.plan",
    "ablations.training.loss_monitor",
    "ablations.training.resume",
    "ablations.training.specs",
    "sweeps.exporters.export_plan",
    "sweeps.exporters.litdata",
    "sweeps.exporters.megatron",
    "sweeps.exporters.mosaicml",
    "sweeps.nanotron_files.chain",
)
"""Modules of other packages."""

NO_RESULT = {
    "ablations.data.contamination._BATCH_DOCUMENTS",
    "ablations.data.contamination._EXAMPLES",
    "ablations.data.contamination._FILTER_BITS",
    "ablations.evaluation.picture_scorer._MOST_PICTURES",
    "ablations.evaluation.prefix_packing._PREFIX_COST",
    "sweeps.exporters.megatron._BLOCK",
    "ablations.mixture.reader._LOOK_AHEAD",
    "ablations.mixture.sampler._BLOCK",
    "sweeps.promotion.decision_card._SHOWN",
    "sweeps.study.study_state._LEDGER_SECONDS",
}
"""Settings that no result depends on: speed, the length of a text, how often a view is written."""


def modules() -> Iterator[ModuleType]:
    """Yield the modules of the packages."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)
    yield from map(importlib.import_module, MORE)


def is_plain(value: Any) -> bool:
    """Return whether a value is a number, or a group of numbers."""
    if isinstance(value, tuple):
        return bool(value) and all(map(is_plain, value))
    return isinstance(value, int | float)


def settings(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each constant and of each default of a dataclass of the module."""
    for name, value in vars(module).items():
        if name.strip("_").isupper() and is_plain(value):
            yield name, value
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
                if is_plain(field.default):
                    yield f"{name}.{field.name}", field.default


def test_settings_that_decide_results_are_those_before() -> None:
    found: dict[str, Any] = {}
    for module in modules():
        source = inspect.getsource(module)
        for name, value in settings(module):
            whole = f"{module.__name__}.{name}"
            own = "." in name or f"\n{name} = " in source or f"\n{name}: " in source
            if own and whole not in NO_RESULT:
                found[whole] = value
    assert len(found) > 100
    require_pinned("settings", found, relative=0.0, absolute=0.0)
