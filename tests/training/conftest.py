"""Fixtures of the training tests; tests/oracles is importable from here on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.oracles.stores import write_stores  # noqa: E402


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small token stores, vocabulary 64."""
    return write_stores(tmp_path_factory.mktemp("stores"), vocab_size=64)
