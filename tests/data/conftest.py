"""A prepared pair of synthetic sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.data.prepare import Prepared
from tests.oracles.skills import prepare_skills


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def skills(data_dir: Path) -> dict[str, Prepared]:
    """``synthetic_facts`` and ``synthetic_arithmetic``, prepared; never to be changed."""
    return prepare_skills(data_dir, documents=300)
