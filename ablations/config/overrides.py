"""Translate the errors of Hydra and OmegaConf for a wrong override into the platform's messages."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.config.file_places import default_place
from ablations.config.removed import removed_option
from ablations.errors import Problem, nearest, unknown_name
from ablations.terminal import override_word, quoted, shell_word
from ablations.yaml_files import ConfigFile

__all__ = ["explain", "user_folders"]


def explain(
    error: Exception,
    config_name: str,
    overrides: Sequence[str],
    files: Sequence[ConfigFile] = (),
    command: str = "run",
) -> Problem:
    """Return one problem for an error of Hydra's, with the nearest key or option if a name is unknown.

    Args:
        error: Hydra's or OmegaConf's.
        config_name: The command's own config.
        overrides: Words of the command line.
        files: The user's config files that were read before the error.
        command: The command's name, for the words that it should be given instead.
    """
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, MissingConfigException):
        return _missing_option(error, files)
    if isinstance(error, OverrideParseException):
        return _no_override(str(error.override), error)
    cause = error.__cause__ or error
    if isinstance(cause, MissingMandatoryValue):
        key = str(cause.full_key)
        return Problem(key, "missing", do=f"write {key}=…")
    text = "\n".join(str(part) for part in (error, error.__cause__) if part)
    if several := re.match(r"Ambiguous value for argument '(.*)'", text):
        return _several_values(several[1], command)
    if (problem := _of_defaults(text, files)) is not None:
        return problem
    found = re.findall(r"Could not override '([^']+)'|full_key: (\S+)", text)
    # The innermost key that is named is the one at fault.
    keys = sorted((first or second for first, second in found), key=len)
    for key in keys:
        if (removed := removed_option(key)) is not None:
            return removed
    if keys and ("not in struct" in text or "Could not override" in text):
        return _unknown_key(keys[-1], config_name, overrides, text)
    return Problem(keys[-1] if keys else _file_of(text, files), _whole(text))


def _no_override(word: str, error: Exception) -> Problem:
    """Return the problem of a word that Hydra's grammar does not take, with the quotes that it needs."""
    key, assigned, value = word.partition("=")
    if assigned and re.fullmatch(r"[+~]*[\w./@-]+", key) and value[:1] not in ("[", "{"):
        return Problem(
            key.lstrip("+~"),
            "a value that needs quotes",
            found=value,
            do=f"write {override_word(key, value)}",
        )
    return Problem(
        word,
        "not an override",
        found=_first_line(error),
        allowed="key=value, +key=value, ~key, group=option",
    )


def _several_values(word: str, command: str) -> Problem:
    key, _, value = word.partition("=")
    one = f"for one value with a comma in it write {override_word(key, value)}"
    searched = f"add -m: ablate {command} -m {shell_word(word)}; " if command in _SEARCHES else ""
    return Problem(key, "several values, which only a search takes", found=value, do=searched + one)


_SEARCHES = ("run", "plan")
"""Commands that take -m."""


def _of_defaults(text: str, files: Sequence[ConfigFile]) -> Problem | None:
    """Return the problem of an entry of a defaults list; None if it is another error."""
    from ablations.config.schema import conf_dir

    where = re.match(r"In '([^']+)': ", text)
    name = where[1] if where else ""
    entry = re.search(r"Invalid Defaults List override '([^:']+): ?([^']*)'", text)
    entry = entry or (re.search(r"Could not override '([^']+)'()\.", text) if where else None)
    if entry is None:
        return None
    group = entry[1].lstrip("/").partition("@")[0]
    groups = _groups([conf_dir(), *{_root_of(file) for file in files}])
    at = default_place(files, name, group) or name
    if f"/{group}" in entry[1] or group not in groups:
        problem = unknown_name(at, "config group", group, groups)
        if group not in groups:
            return problem
    return Problem(
        at,
        f"overrides the group {group!r}, of which nothing was chosen before",
        found=f"override {entry[1]}: {entry[2]}",
        allowed=f"override /{group}: {entry[2]}",
        do="begin the group with / : it is looked up from the top of the config",
    )


def _root_of(file: ConfigFile) -> Path:
    """Return the config folder that a file was found in."""
    return file.path.parents[file.name.strip("/").count("/")]


def _groups(folders: Sequence[Path]) -> list[str]:
    """Return the config groups of folders: each folder below them that holds config files."""
    return sorted(
        {
            str(path.parent.relative_to(folder))
            for folder in folders
            for path in folder.glob("*/**/*.yaml")
        }
    )


def _file_of(text: str, files: Sequence[ConfigFile]) -> str:
    """Return the file that Hydra's message names, or "config"."""
    group = re.search(r"Multiple values for ([\w/]+)", text)
    named = re.findall(r"\b[Ii]n '?([\w/-]+)'?[:,]|from '([^']+)'", text)
    found = [first or second for first, second in named]
    places = (default_place(files, name, group[1] if group else "") for name in found)
    return next(filter(None, places), None) or next(iter(found), "config")


def _whole(text: str) -> str:
    """Return a message of Hydra's on one line, each of its sentences once."""
    lines = [line.strip() for line in text.splitlines()]
    technical = ("full_key:", "object_type=", "reference_type=")
    kept = [line for line in lines if line and not line.startswith(technical)]
    return " ".join(dict.fromkeys(kept))[:600]


def _missing_option(error: Any, files: Sequence[ConfigFile]) -> Problem:
    """Return the problem of an option that its group does not have: the nearest one, and all of them."""
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    place = default_place(files, None, name)
    where = f"{place}: {group}" if place else group
    if (removed := removed_option(f"{group}={name}")) is not None:
        return removed
    # A leading underscore marks what other options are made of.
    options = sorted(option for option in error.options or () if not option.startswith("_"))
    if not options:
        return Problem(place or missing or "config", "no such config", found=_first_line(error))
    close = nearest(name, options)
    return Problem(
        where,
        f"no option {name!r}",
        allowed=", ".join(options),
        do=f"did you mean {' or '.join(map(repr, close))}?" if close else None,
    )


def _unknown_key(key: str, config_name: str, overrides: Sequence[str], text: str) -> Problem:
    where, siblings = _first_unknown(key, config_name, overrides)
    if where is None:  # the key is there: the value is of a wrong type
        return Problem(key, "cannot take this value", found=_last_reason(text))
    name = where.rpartition(".")[2]
    close = nearest(name, siblings)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    adding = f"to add a new entry write +{key}=…" if _may_be_added(key, where) else ""
    return Problem(
        where,
        "unknown key",
        allowed=", ".join(sorted(siblings)) or None,
        do="; ".join(part for part in (hint, adding) if part) or None,
    )


_OPEN_ENDED = re.compile(
    r"(promotion\.override|search\.(objectives|constraints|strategy\.mixtures|space\.\w+)|program|after"
    r"|low|high|fixed|prior|caps\.tokens)\.."
)
"""Entries of the user's own naming that no dataclass of a run shows."""


def _may_be_added(key: str, unknown: str) -> bool:
    """Return whether a config may hold ``key``, of which ``unknown`` is the part that is not there."""
    # Imported here: only a wrong override pays for it.
    from ablations.config.schema import RunConfig

    # The config of a run holds all sections: one that is not there belongs to another command.
    if "." not in unknown:
        return False
    return bool(_OPEN_ENDED.match(key)) or _is_field(RunConfig, key.split("."))


def _is_field(kind: Any, parts: Sequence[str]) -> bool:
    """Return whether a value of type ``kind`` may hold the path of keys ``parts``."""
    if not parts:
        return True
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return parts[0] in hints and _is_field(hints[parts[0]], parts[1:])
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _is_field(inner[1], parts[1:])
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(_is_field(member, parts) for member in inner)
    return kind is Any


def _first_unknown(
    key: str, config_name: str, overrides: Sequence[str]
) -> tuple[str | None, list[str]]:
    """Return the shortest prefix of ``key`` that the config does not hold, and the keys beside it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir

    choices = [text for text in overrides if re.match(r"^[\w/]+=[\w-]+$", text)]
    if folders := user_folders(overrides):
        paths = ",".join(quoted(f"file://{folder}") for folder in folders)
        choices.append(f"hydra.searchpath=[{paths}]")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir())):
            config = compose(config_name, overrides=choices)
    except Exception:  # an override among them is wrong too; only the wording hangs on it
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir())):
            config = compose(config_name)
    node: Any = OmegaConf.to_container(config, resolve=False)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            known = [str(name) for name in node] if isinstance(node, Mapping) else []
            return ".".join(parts[: depth + 1]), known
        node = node[part]
    return None, []


def user_folders(arguments: Sequence[str]) -> list[Path]:
    """Return the folders that the command line adds to the configs' own."""
    found = []
    for place, word in enumerate(arguments):
        name, given, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            following = arguments[place + 1] if place + 1 < len(arguments) else ""
            found.append(Path(value if given else following).absolute())
    return found


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if error and str(error).strip() else repr(error)


def _last_reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "Could not"))]
    return kept[0] if kept else lines[0]
