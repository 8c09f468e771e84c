"""Build one archive for a machine with a GPU and no network: project, packages that it lacks, demo's text.

    python benchmarks/gpu_bundle.py [--out build/ablations-gpu.tar.xz] [--python /path/to/python3.12]

Run by `make gpu-bundle` on a machine with a network. The other one is taken to have Python 3.12 on 64-bit
Linux with torch, transformers and what commonly stands beside them (gpu_bundle.toml); the other packages come
along in the versions of requirements.lock, without the bulk that is never imported. Two checks follow, on the
archive as it is unpacked. Every requirement of every package, and every module that the project's code
names, is in the archive or on the machine. And with ``--python``, a Python 3.12 that has what such a machine
has, each of those modules is imported.

On the machine:  tar xf ablations-gpu.tar.xz && bash ablations-gpu/gpu_session.sh MINUTES
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 60_000_000
NAME = "ablations-gpu"

LISTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
"""Packages that come along, and their parts that do not; gpu_bundle.toml gives the reasons."""

PACKAGES: list[str] = [name for group in LISTS["packages"].values() for name in group]
MACHINE, NEVER_IMPORTED, OPTIONAL = (
    frozenset(LISTS[name]) for name in ("machine", "never_imported", "optional")
)

PROJECT = ("ablations", "sweeps", "conf", "benchmarks", "tests/__init__.py", "tests/oracles")
FILES = ("pyproject.toml", "requirements.lock", "README.md", "gpu_session.sh", "docs/gpu.md")
DATA = ("demo_bpe", "tokenizers", "benchmarks")
"""Folders of ``data/`` that a run of the demo reads."""


class BundleError(Exception):
    """The archive would not work, or not fit."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / f"{NAME}.tar.xz")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data", help="what `ablate prepare` wrote"
    )
    parser.add_argument("--python", type=Path, help="a Python 3.12 to import every module with")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-bundle-") as scratch:
        bundle = Path(scratch) / NAME
        try:
            project(bundle)
            text(arguments.data, bundle / "data")
            packages(bundle / "site", Path(scratch) / "wheels")
            size = pack(bundle, arguments.out)
            shutil.rmtree(bundle)
            with tarfile.open(arguments.out) as archive:
                archive.extractall(scratch, filter="data")
            require_complete(bundle)
            count = imported(bundle, arguments.python) if arguments.python else 0
        except BundleError as error:
            print(error, file=sys.stderr)
            return 1
    said = f"{count} modules imported by {arguments.python}" if count else "imports checked by name"
    print(f"{arguments.out}: {size / 1e6:.1f} MB; {said}")
    return 0


# --------------------------------------------------------------------------------------- content


def project(bundle: Path) -> None:
    """Copy the project's files, as git lists them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PROJECT, *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        target = bundle / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def text(data: Path, target: Path) -> None:
    """Copy the demo's token stores, tokenizer and items.

    Raises:
        BundleError: ``ablate prepare`` has not made them.
    """
    for name in DATA:
        if not (data / name).is_dir():
            raise BundleError(f"{data / name} is not there: run `ablate prepare` first")
        shutil.copytree(data / name, target / name)


def packages(site: Path, wheels: Path) -> None:
    """Download the packages for Python 3.12 and unpack them without their bulk."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)]
    wheels.mkdir()
    wanted = [f"{name}=={version}" for name, version in locked().items()]
    pure = [name for name in wanted if name.split("==")[0] in _SOURCE_ONLY]
    ready = [name for name in wanted if name not in pure]
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    for platform in (*platforms, "manylinux2014_x86_64", "manylinux1_x86_64"):
        target += ["--platform", platform]
    _run([*pip, "download", "--no-deps", "-d", str(wheels), *target, *ready])
    if pure:
        _run([*pip, "wheel", "--no-deps", "-w", str(wheels), *pure])
    site.mkdir(parents=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    for pattern in LISTS["bulk"]:
        for path in list(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


_SOURCE_ONLY = frozenset({"rouge-score"})
"""Packages without compiled parts that are published as source alone."""


def locked() -> dict[str, str]:
    """The version of each bundled package in requirements.lock.

    Raises:
        BundleError: the lock lacks one.
    """
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    versions = {canonicalize_name(name): version for name, version in pairs}
    missing = [name for name in PACKAGES if name not in versions]
    if missing:
        raise BundleError(f"requirements.lock lacks {', '.join(missing)}")
    return {name: versions[name] for name in PACKAGES}


def pack(bundle: Path, out: Path) -> int:
    """Write the archive; its size in bytes.

    Raises:
        BundleError: it is larger than a bundle may be.
    """
    partial = out.with_suffix(".tmp")
    with tarfile.open(partial, "w:xz", preset=3) as archive:
        archive.add(bundle, arcname=NAME)
    partial.rename(out)
    size = out.stat().st_size
    if size > LIMIT_BYTES:
        raise BundleError(f"{out}: {size / 1e6:.1f} MB; at most {LIMIT_BYTES / 1e6:.0f} MB")
    return size


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BundleError(done.stderr[-2000:])


# ---------------------------------------------------------------------------------------- checks


def require_complete(bundle: Path) -> None:
    """Check by name that nothing is missing.

    Raises:
        BundleError: a package wants another, or the code a module, that is neither here nor there.
    """
    missing = [*missing_requirements(bundle / "site"), *missing_modules(bundle)]
    if missing:
        raise BundleError("neither in the bundle nor on the machine:\n" + "\n".join(missing))


def missing_requirements(site: Path) -> list[str]:
    """Requirements of the packages in ``site`` that are met nowhere."""
    metadata = [HeaderParser().parsestr(p.read_text()) for p in site.glob("*.dist-info/METADATA")]
    here = {canonicalize_name(str(meta["Name"])) for meta in metadata}
    environment = {
        **default_environment(),
        "python_version": "3.12",
        "python_full_version": "3.12.3",
    }
    environment |= {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
    found = []
    for meta in metadata:
        for text_ in meta.get_all("Requires-Dist") or []:
            want = Requirement(text_)
            name = canonicalize_name(want.name)
            if want.marker is not None and not want.marker.evaluate(environment):
                continue
            if name not in here | MACHINE | NEVER_IMPORTED:
                found.append(f"{meta['Name']} wants {want}")
    return found


def missing_modules(bundle: Path) -> list[str]:
    """Modules that the project's code names, at the top of a file or in a function, and that are nowhere."""
    here = {path.name.split(".")[0] for path in (bundle / "site").iterdir()}
    theirs = {_TOP_LEVEL.get(name, name.replace("-", "_")) for name in MACHINE}
    own = {"ablations", "sweeps", "analysis", "benchmarks", "tests", "hydra_plugins"}
    known = here | theirs | own | OPTIONAL | set(sys.stdlib_module_names)
    return [
        f"{module} in {path.relative_to(bundle)}"
        for path, module in named_modules(bundle)
        if module.split(".")[0] not in known
    ]


_TOP_LEVEL = {"pyyaml": "yaml", "scikit-learn": "sklearn", "python-dateutil": "dateutil"}


def named_modules(bundle: Path) -> Iterator[tuple[Path, str]]:
    """Every file of code that a run uses, with every module that it imports somewhere."""
    for path in sorted(bundle.rglob("*.py")):
        parts = path.relative_to(bundle).parts
        if parts[0] in ("site", "data") or (parts[0] == "benchmarks" and "gpu" not in path.name):
            continue
        if parts[0] == "benchmarks" and path.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield path, node.module


_IMPORTER = """
import importlib, json, sys, traceback
from ablations.training.nanotron.compat import nanotron_trainer
nanotron_trainer()  # nanotron 0.4 cannot be imported by itself
failed = {}
for name in json.load(sys.stdin):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
json.dump(failed, open(sys.argv[1], "w"))
"""


def imported(bundle: Path, python: Path) -> int:
    """Import with ``python`` every module that the code names; how many there are.

    Raises:
        BundleError: one cannot be imported.
    """
    named = {module for _, module in named_modules(bundle)}
    own = {
        ".".join(path.relative_to(bundle).with_suffix("").parts)
        for top in ("ablations", "sweeps")
        for path in (bundle / top).rglob("*.py")
        if path.stem != "__init__" and "plugins" not in path.parts
    }
    skipped = OPTIONAL | {"analysis"}
    modules = sorted(n for n in named | own if not {n, n.split(".")[0]} & skipped)
    answer = bundle / "imported.json"
    paths = [bundle / "site", bundle, bundle / "sweeps" / "plugins"]
    done = subprocess.run(
        [str(python), "-c", _IMPORTER, str(answer)],
        input=json.dumps(modules),
        env={"PYTHONPATH": ":".join(map(str, paths)), "PATH": "/usr/bin:/bin", "HOME": str(bundle)},
        cwd=bundle,
        capture_output=True,
        text=True,
    )
    if not answer.exists():
        raise BundleError(f"{python} cannot import the bundle:\n{done.stderr[-2000:]}")
    failed = json.loads(answer.read_text())
    if failed:
        lines = [f"{name}: {reason}" for name, reason in failed.items()]
        raise BundleError(f"{python} cannot import:\n" + "\n".join(lines))
    return len(modules)


if __name__ == "__main__":
    sys.exit(main())
