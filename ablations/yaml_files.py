"""Read YAML files that people write: each fault is one message with file, line and column.

A config folder may come from somebody else. A file is looked through as a stream of YAML events first,
which neither recurses nor expands aliases, and refused where the values made of it would be deep or many.
Hydra reads through the same check while :func:`checked_loading` holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem

__all__ = ["ConfigFile", "checked_loading", "read_yaml", "shown_path"]

_MOST_BYTES = 8 << 20
_MOST_DEPTH = 64
"""Levels of nesting. Hydra's parsers recurse: Python ends them near 150 levels."""
_MOST_VALUES = 200_000
"""Values in all, each alias counted with all that it stands for."""

_GLOBAL_GROUPS = ("experiment", "full")
"""Groups whose options set keys of the whole config."""


def read_yaml(path: Path) -> Any:
    """Return the plain value of a YAML file; an empty file is None.

    Raises:
        ConfigError: it cannot be read, is no UTF-8, no YAML, names a key twice, or is too deep or large.
    """
    import yaml

    text = _checked_text(path)
    try:
        return yaml.load(text, Loader=_strict_loader())
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(_yaml_problem(path, error, text)) from None


@dataclass(frozen=True)
class ConfigFile:
    """A config file of the user's that Hydra read."""

    path: Path
    name: str
    """The name that a defaults list gives it: ``mixture/mine``."""
    package: str
    """Key of the config that its keys stand at; "" = the whole config."""
    text: str


@contextlib.contextmanager
def checked_loading(own: Path, read: list[ConfigFile]) -> Iterator[None]:
    """Let Hydra read config files through the checks of this module.

    A file of the groups ``experiment`` and ``full`` needs the header that makes its keys global; without
    it Hydra would put them where no command looks.

    Args:
        own: The platform's own config folder. Its files are tested, and checking each costs time: they
            are checked when Hydra cannot read them.
        read: Takes the user's files, in the order in which they are read.
    """
    from hydra._internal.core_plugins import file_config_source

    source: Any = file_config_source.FileConfigSource
    plain_load = source.load_config
    trusted = f"{own}/"

    def load_config(self: Any, config_path: str) -> Any:
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.exists():
            return plain_load(self, config_path)
        is_own = str(file).startswith(trusted)
        text = "" if is_own else _checked_text(file)
        try:
            loaded = plain_load(self, config_path)
        except Exception as error:  # of any kind, for all are the file's fault
            text = text or _checked_text(file)
            raise ConfigError(_yaml_problem(file, error, text)) from None
        _require_package(file, config_path, loaded)
        if not is_own:
            _require_keys(file, loaded, text)
            read.append(ConfigFile(file, config_path, _package(config_path, loaded), text))
        return loaded

    source.load_config = load_config
    try:
        yield
    finally:
        source.load_config = plain_load


def _require_keys(file: Path, loaded: Any, text: str) -> None:
    """Refuse a file that is a list or a text: a config has keys."""
    from omegaconf import OmegaConf

    # Of a text alone Hydra makes a key without a value.
    if OmegaConf.is_dict(loaded.config) and len(loaded.config) != 1:
        return
    root = _first_node(text)
    if root is not None and type(root).__name__ != "MappingNode":
        raise ConfigError(_yaml_problem(file, ValueError("no keys"), text))


def _package(config_path: str, loaded: Any) -> str:
    """Return the key that the keys of a config file stand at."""
    group = config_path.strip("/").rpartition("/")[0].replace("/", ".")
    named = (loaded.header or {}).get("package")
    return group if named is None else {"_global_": "", "_group_": group}.get(named, named)


def _checked_text(path: Path) -> str:
    """Return the text of a YAML file that is safe to be made values of."""
    import yaml

    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MOST_BYTES else b""
    except OSError as error:
        raise ConfigError(_unreadable(path, error)) from None
    if size > _MOST_BYTES:
        raise ConfigError(
            Problem(
                shown_path(path),
                "too large a config",
                found=f"{size:,} bytes",
                allowed="8 MiB at most",
            )
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        raise ConfigError(
            Problem(
                f"{shown_path(path)}:{line}:{column}",
                "not UTF-8 text",
                found=f"byte 0x{content[error.start]:02x}",
                do="save the file as UTF-8",
            )
        ) from None
    try:
        _require_bounded(path, text)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_problem(path, error, text)) from None
    return text


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        shown_path(path),
        "cannot be read",
        found=error.strerror,
        do="mend its permissions or its path",
    )


def _require_bounded(path: Path, text: str) -> None:
    """Refuse a file of too many levels, or whose aliases stand for too many values."""
    import yaml

    open_anchors: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_anchors):
                where = _place(path, event.start_mark)
                raise ConfigError(
                    Problem(where, "an alias of what it stands in", found=event.anchor)
                )
            count += sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            count += 1
            open_anchors.append((event.anchor, count))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_anchors.pop()
            if anchor:
                sizes[anchor] = count - before + 1
        found = None
        if len(open_anchors) > _MOST_DEPTH:
            found, allowed = "nested too deeply", f"{_MOST_DEPTH} levels"
        elif count > _MOST_VALUES:
            found, allowed = "stands for too many values", f"{_MOST_VALUES:,} at most"
        if found:
            raise ConfigError(Problem(_place(path, event.start_mark), found, allowed=allowed))


def _strict_loader() -> type[Any]:
    """Return a safe loader that takes no key twice."""
    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, list | dict):
                    if key in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"found duplicate key {key!r}", key_node.start_mark
                        )
                    seen.add(key)
            made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return made

    return Strict


def _yaml_problem(path: Path, error: Exception, text: str) -> Problem:
    """Return the problem of a file that is no config in YAML, in the parser's own words."""
    from omegaconf.errors import GrammarParseError

    if isinstance(error, GrammarParseError):
        return _interpolation_problem(path, error, text)
    mark = getattr(error, "problem_mark", None) or _mark_of_character(error, text)
    reason = getattr(error, "problem", None) or str(error).strip().split("\n")[0]
    began = getattr(error, "context_mark", None)
    if mark is not None and began is not None:
        line = f" that began in line {began.line + 1}" if began.line != mark.line else ""
        reason = f"{reason.removeprefix('but ')} {error.context}{line}"  # type: ignore[attr-defined]
    do = None
    if mark is not None and _character(text, mark.line, mark.column) == "\t":
        do = "indent with spaces: YAML takes no tab"
    elif "duplicate key" in reason:
        do = "keep one of them"
    if mark is None and (first := _first_node(text)) is not None:
        mark = first.start_mark
        if type(first).__name__ != "MappingNode":
            return Problem(
                _place(path, mark), "not the keys of a config", found=_line(text, mark.line)
            )
    return Problem(
        _place(path, mark), "not a config in YAML", found=reason.removeprefix("found "), do=do
    )


def _mark_of_character(error: Exception, text: str) -> Any:
    """Return the place of a character that YAML does not take; None if the error is of another kind."""
    import yaml

    if not isinstance(error, yaml.reader.ReaderError):
        return None
    before = text.partition(chr(error.character))[0]
    line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
    return yaml.Mark("", len(before), line, column, None, 0)


def _interpolation_problem(path: Path, error: Exception, text: str) -> Problem:
    """Return the problem of the first value whose ``${…}`` cannot be read."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    mark, found = None, str(error).split("\n")[0]
    for node in _scalars(_first_node(text)):
        try:
            if "${" in node.value:
                parse(node.value)
        except GrammarParseError:
            mark, found = node.start_mark, repr(node.value)[:80]
            break
    return Problem(
        _place(path, mark),
        "an interpolation that cannot be read",
        found=found,
        allowed="${key} or ${oc.env:NAME}",
        do="close each brace; write \\${ for the characters themselves",
    )


def _first_node(text: str) -> Any:
    """Return the root of a document's nodes; None if there is none."""
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def _scalars(node: Any) -> Iterator[Any]:
    """Yield the scalar nodes below a node, in the order of the file."""
    if node is None or isinstance(node.value, str):
        yield from () if node is None else (node,)
        return
    for inner in node.value:
        for one in inner if isinstance(inner, tuple) else (inner,):
            yield from _scalars(one)


def _character(text: str, line: int, column: int) -> str:
    return _line(text, line)[column : column + 1]


def _line(text: str, line: int) -> str:
    lines = text.split("\n")
    return lines[line][:80] if line < len(lines) else ""


def shown_path(path: Path) -> str:
    """Return a path as it is shown: relative if it is below the working folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _place(path: Path, mark: Any) -> str:
    shown = shown_path(path)
    return shown if mark is None else f"{shown}:{mark.line + 1}:{mark.column + 1}"


def _require_package(file: Path, config_path: str, loaded: Any) -> None:
    group = config_path.strip("/").rpartition("/")[0]
    named = (loaded.header or {}).get("package")
    if group not in _GLOBAL_GROUPS or named == "_global_":
        return
    if not [key for key in loaded.config if key != "defaults"]:
        return
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    first = next((line for line in lines if line.strip()), "")
    raise ConfigError(
        Problem(
            f"{shown_path(file)}:1:1",
            "its keys would be ignored: they belong to the whole config",
            found=f"first line {first[:60]!r}" if named is None else f"@package {named}",
            allowed="# @package _global_",
            do="make that the first line",
        )
    )
