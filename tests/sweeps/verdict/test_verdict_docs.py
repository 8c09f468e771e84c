"""Options of the command, its config and its page agree."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from sweeps.verdict.analysis_inputs import VerdictOptions

ROOT = Path(__file__).resolve().parents[3]


def test_every_option_is_in_the_config_and_on_the_page() -> None:
    config = yaml.safe_load((ROOT / "conf" / "verdict.yaml").read_text())
    options = set(config) - {"defaults", "hydra"}
    assert {field.name for field in fields(VerdictOptions)} <= options
    page = (ROOT / "docs" / "verdict.md").read_text()
    assert [name for name in options if name not in page] == []


def test_the_defaults_of_the_config_are_those_of_the_code() -> None:
    config = yaml.safe_load((ROOT / "conf" / "verdict.yaml").read_text())
    own = {field.name: config[field.name] for field in fields(VerdictOptions)}
    assert VerdictOptions(**own) == VerdictOptions()
