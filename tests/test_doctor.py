"""``ablate doctor`` names what breaks the platform without saying so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from ablations.commands.doctor import examine

BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")\n'


@pytest.mark.parametrize(
    ("content", "verdict"), [(BROKEN, "missing"), ("", "ok")], ids=["foreign", "fits"]
)
def test_a_torchvision_that_does_not_fit_torch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, verdict: str
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    try:
        found = {one.what: one for one in examine(tmp_path, tmp_path)}
    finally:
        sys.modules.pop("torchvision", None)
    assert found["torchvision"].verdict == verdict
    if verdict == "missing":
        assert "nms does not exist" in found["torchvision"].found
        assert "pip uninstall torchvision" in found["torchvision"].do


def test_without_a_torchvision_nothing_is_said(tmp_path: Path) -> None:
    names = [one.what for one in examine(tmp_path, tmp_path)]
    assert "trl" in names
    assert "torchvision" not in names
