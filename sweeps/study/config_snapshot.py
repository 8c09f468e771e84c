"""Snapshot of the config files: copied when a command starts, then used to compose every job.

    runs/<study>/conf/<digest>/<n>/…    YAML files of the n-th config folder on Hydra's search path
    runs/<study>/conf/latest            digest of the last command

A launcher composes a job when the job starts, in a queue perhaps hours after the command, and again if
the job is requeued. Composed from the user's own folders it would contain later edits. A copy is named
after its content, so it never changes, and jobs that a killed driver left in a queue still find it.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import DamagedError, Problem
from ablations.files import replace_folder, write_text
from ablations.terminal import quoted
from sweeps.study.composing import plain_config

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

__all__ = ["Pinned", "keep_as_latest", "pin_config", "pinned_before"]

_LATEST = "latest"
_SEARCHPATH = "hydra.searchpath"


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """Copy of the config files, with a loader that composes from it."""

    loader: ConfigLoader
    config: DictConfig
    """Config of the multirun itself, with the search path of the copy."""
    folder: Path
    config_dirs: Sequence[Path]
    """Copied config folders in order of precedence; the command's own folder is last."""

    def compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the config of a job with these task overrides as plain values.

        Raises:
            HydraException: the overrides do not compose.
        """
        return plain_config(self.loader, self.config, overrides)


def pin_config(
    loader: ConfigLoader, config: DictConfig, folder: Path, *, outside: Sequence[Path] = ()
) -> Pinned:
    """Copy the config files into the study's folder, unless this copy exists already.

    Args:
        loader: Hydra's loader, which reads the user's folders.
        config: Config of the multirun itself.
        folder: Folder of the study.
        outside: Folders without configs that may lie inside a config folder: runs and data.
    """
    folders = [folder for _, folder in _folders(loader, config)]
    files = _contents(folders, {path.absolute() for path in outside})
    copied = folder.absolute() / "conf" / _mark(files)
    _write(copied, files, len(folders))
    return _read_from(copied, loader, config)


def _contents(folders: Sequence[Path], outside: set[Path]) -> dict[str, bytes]:
    """Return ``<number of the folder>/<file>`` → content of every config file."""
    return {
        f"{number}/{path.relative_to(root)}": path.read_bytes()
        for number, root in enumerate(folders)
        for path in _config_files(root, outside)
    }


def _mark(files: Mapping[str, bytes]) -> str:
    """Return the name of a copy of these files."""
    mark = hashlib.sha256()
    for name, content in sorted(files.items()):
        mark.update(f"{name}\0{len(content)}\0".encode() + content)
    return mark.hexdigest()[:12]


def pinned_before(
    loader: ConfigLoader, config: DictConfig, folder: Path, now: Pinned
) -> Pinned | None:
    """Return the copy of the study's last command; None if there is none or it is the same as ``now``.

    Raises:
        DamagedError: the copy, or the file that names it, is not what was written.
    """
    latest = folder.absolute() / "conf" / _LATEST
    if not os.path.lexists(latest) or (name := _named(latest)) == now.folder.name:
        return None
    before = latest.with_name(name)
    if not _is_intact(before):
        raise _damaged(before)
    folders = {str(number) for number, _ in enumerate(_folders(loader, config))}
    # Another number of folders is another search path, which cannot be reconstructed from here.
    same_path = {path.name for path in before.iterdir()} == folders
    return _read_from(before, loader, config) if same_path else None


def _named(latest: Path) -> str:
    """Return the name of the last command's copy."""
    try:
        name = latest.read_text().strip()
    except (OSError, ValueError) as error:
        raise _damaged(latest) from error
    if not name.isalnum() or not latest.with_name(name).is_dir():
        raise _damaged(latest)
    return name


def _is_intact(copied: Path) -> bool:
    """Return whether the files of a copy match its name."""
    try:
        numbers = sorted((path.name for path in copied.iterdir()), key=int)
        return _mark(_contents([copied / number for number in numbers], set())) == copied.name
    except (OSError, ValueError):
        return False


def _damaged(path: Path) -> DamagedError:
    return DamagedError(
        Problem(
            str(path),
            "damaged: not the config files of the study's last command",
            do=f"restore it from a copy; or remove {path.parent / _LATEST}, and this command's config "
            "files are not compared with those of the runs so far",
        )
    )


def keep_as_latest(pinned: Pinned) -> None:
    """Record the copy as that of the study's last command."""
    write_text(pinned.folder.with_name(_LATEST), pinned.folder.name)


def _folders(loader: ConfigLoader, config: DictConfig) -> list[tuple[str, Path]]:
    """Return provider and path of each folder on the search path; packages are code and not copied."""
    entries = [(element.provider, element.path) for element in loader.get_search_path().get_path()]
    entries += [(_SEARCHPATH, path) for path in config.hydra.searchpath]
    return [
        (str(provider), Path(found).absolute())
        for provider, path in entries
        if (found := _local(str(path))) is not None
    ]


def _local(path: str) -> str | None:
    scheme, separator, rest = path.partition("://")
    if not separator:
        return path
    return rest if scheme == "file" else None


def _config_files(root: Path, outside: set[Path]) -> Iterator[Path]:
    for place, inner, names in os.walk(root):
        folder = Path(place)
        inner[:] = sorted(n for n in inner if n[0] != "." and folder / n not in outside)
        yield from (folder / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def _write(copied: Path, files: dict[str, bytes], folders: int) -> None:
    """Write a copy whole or not at all; write an existing copy again if it is damaged."""
    if exists := os.path.lexists(copied):
        if _is_intact(copied):
            return
        print(f"{copied}: damaged; the config files are copied again", file=sys.stderr)
    making = copied.with_name(f"{copied.name}.tmp")
    shutil.rmtree(making, ignore_errors=True)
    for number in range(folders):
        (making / str(number)).mkdir(parents=True)
    for name, content in files.items():
        (making / name).parent.mkdir(parents=True, exist_ok=True)
        (making / name).write_bytes(content)
    if exists:
        replace_folder(making, copied)
    else:
        making.rename(copied)


def _read_from(copied: Path, loader: ConfigLoader, config: DictConfig) -> Pinned:
    """Return a loader like Hydra's own, with the copy in place of the user's folders."""
    from omegaconf import open_dict, read_write

    folders = _folders(loader, config)
    places = [copied / str(number) for number in range(len(folders))]
    left = iter(places)

    def moved(path: str) -> str:
        return path if _local(path) is None else f"file://{next(left)}"

    search_path = copy.deepcopy(loader.get_search_path())
    for element in search_path.get_path():
        element.path = moved(str(element.path))
    config = copy.deepcopy(config)
    if searched := [moved(path) for path in config.hydra.searchpath]:
        with read_write(config.hydra), open_dict(config.hydra):
            kept = [o for o in config.hydra.overrides.hydra if _SEARCHPATH not in o.split("=")[0]]
            config.hydra.overrides.hydra = [
                *kept,
                f"{_SEARCHPATH}=[{','.join(map(quoted, searched))}]",
            ]
    kind: Any = type(loader)
    # As in a job: sources are looked up in the command's own folder last.
    numbered = sorted(range(len(places)), key=lambda number: folders[number][0] == "main")
    return Pinned(
        loader=kind(search_path),
        config=config,
        folder=copied,
        config_dirs=tuple(places[number] for number in numbered),
    )
