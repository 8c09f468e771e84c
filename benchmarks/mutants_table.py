"""The tables of benchmarks/mutants.py: which tests hold which module, and which changes change nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_HERE = Path(__file__).parent

MODULES: Mapping[str, tuple[str, ...]] = {
    glob: tuple(tests)
    for glob, tests in json.loads((_HERE / "mutants_modules.json").read_text()).items()
}
"""Glob of the modules that decide results → globs of the test files that hold them, the nearest first.

A module belongs to the first glob that it matches.
"""

SETTINGS = ("test_settings.py",)
"""Tests that compare constants and defaults: they reach no function, and hold each of these all the same."""

EQUIVALENT: Mapping[str, str] = json.loads((_HERE / "mutants_equivalent.json").read_text())
"""Changes that nothing but text, speed or the type checker could show, by their name, with the reason."""
