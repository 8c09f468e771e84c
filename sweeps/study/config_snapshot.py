"""The config files that a study's jobs are composed from: copied when a command begins, read by every job.

    runs/<study>/conf/<digest>/<n>/…    the yaml files of the n-th config folder on Hydra's search path
    runs/<study>/conf/latest            the digest of the last command

A launcher composes a job when the job starts; in a queue that is hours after the command, and a job
put back into the queue is composed again. From the user's own folders it would get whatever these hold
by then. A copy is named after its content, so it is never changed, and the jobs that a killed driver
left in a queue still find theirs.
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

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

__all__ = ["Pinned", "keep_as_latest", "pin_config", "pinned_before", "plain_config"]

_LATEST = "latest"
_SEARCHPATH = "hydra.searchpath"


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A copy of the config files, and what composes from it."""

    loader: ConfigLoader
    config: DictConfig
    """The multirun's own config, its search path changed to the copy's."""
    folder: Path
    config_dirs: Sequence[Path]
    """The copied config folders; the command's own is the last that is asked."""

    def compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The config of a job with these task overrides, as plain values.

        Raises:
            HydraException: the overrides do not compose.
        """
        return plain_config(self.loader, self.config, overrides)


def plain_config(
    loader: ConfigLoader, config: DictConfig, overrides: Sequence[str]
) -> dict[str, Any]:
    """A job's config as plain values, Hydra's own part left out."""
    from omegaconf import OmegaConf, open_dict

    composed = loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        del composed["hydra"]
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def pin_config(
    loader: ConfigLoader, config: DictConfig, folder: Path, *, outside: Sequence[Path] = ()
) -> Pinned:
    """Copy the config files into the study's folder, unless it has them already.

    Args:
        loader: Hydra's, which reads the user's folders.
        config: The multirun's own config.
        folder: The study's folder.
        outside: Folders that hold no configs: those of runs and of data, where a config folder
            is also theirs.
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
    """Return the copy of the study's last command, None where there is none or it is that of ``now``.

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
    # Another number of folders is another search path: what it composed cannot be told from here.
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
    """Return whether a copy holds the files that its name was made of."""
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
    """Remember the copy as that of the study's last command."""
    write_text(pinned.folder.with_name(_LATEST), pinned.folder.name)


def _folders(loader: ConfigLoader, config: DictConfig) -> list[tuple[str, Path]]:
    """Provider and folder of every entry of the search path; packages and structured configs are code."""
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
        here = Path(place)
        inner[:] = sorted(n for n in inner if n[0] != "." and here / n not in outside)
        yield from (here / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def _write(copied: Path, files: dict[str, bytes], folders: int) -> None:
    """Write a copy whole or not at all; one that is there and was damaged is made again."""
    if there := os.path.lexists(copied):
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
    if there:
        replace_folder(making, copied)
    else:
        making.rename(copied)


def _read_from(copied: Path, loader: ConfigLoader, config: DictConfig) -> Pinned:
    """A loader as Hydra's own, with the copy in place of the user's folders."""
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
    # As in a job: the command's own folder is asked for sources after all others.
    numbered = sorted(range(len(places)), key=lambda number: folders[number][0] == "main")
    return Pinned(
        loader=kind(search_path),
        config=config,
        folder=copied,
        config_dirs=tuple(places[number] for number in numbered),
    )
