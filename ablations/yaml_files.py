"""Read YAML files that people write: each fault is one message with file, line and column.

A config folder may come from somebody else. A file is looked through as a stream of YAML events first,
which neither recurses nor expands aliases, and refused where the values made of it would be deep or many.
Hydra reads through the same check while :func:`checked_loading` holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem

__all__ = ["checked_loading", "read_yaml"]

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


@contextlib.contextmanager
def checked_loading(own: Path) -> Iterator[None]:
    """Let Hydra read config files through the checks of this module, those in ``own`` excepted.

    A file of the groups ``experiment`` and ``full`` needs the header that makes its keys global; without
    it Hydra would put them where no command looks.

    Args:
        own: The platform's own config folder: its files are tested, and checking them costs time.
    """
    from hydra._internal.core_plugins import file_config_source

    source: Any = file_config_source.FileConfigSource
    plain_load = source.load_config
    trusted = f"{own}/"

    def load_config(self: Any, config_path: str) -> Any:
        file = Path(self.path) / self._normalize_file_name(config_path)
        if str(file).startswith(trusted) or not file.exists():
            return plain_load(self, config_path)
        text = _checked_text(file)
        try:
            loaded = plain_load(self, config_path)
        except Exception as error:  # of any kind, for all are the file's fault
            raise ConfigError(_yaml_problem(file, error, text)) from None
        _require_package(file, config_path, loaded, text)
        return loaded

    source.load_config = load_config
    try:
        yield
    finally:
        source.load_config = plain_load


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
                str(path), "too large a config", found=f"{size:,} bytes", allowed="8 MiB at most"
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
                f"{path}:{line}:{column}",
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
        str(path), "cannot be read", found=error.strerror, do="mend its permissions or its path"
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
    """Return the problem of a file that is no YAML, in the parser's own words."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).strip().split("\n")[0]
    do = None
    if mark is not None and _character(text, mark.line, mark.column) == "\t":
        do = "indent with spaces: YAML takes no tab"
    elif "duplicate key" in reason:
        do = "keep one of them"
    return Problem(_place(path, mark), "not a config in YAML", found=reason, do=do)


def _character(text: str, line: int, column: int) -> str:
    lines = text.split("\n")
    return lines[line][column : column + 1] if line < len(lines) else ""


def _place(path: Path, mark: Any) -> str:
    return str(path) if mark is None else f"{path}:{mark.line + 1}:{mark.column + 1}"


def _require_package(file: Path, config_path: str, loaded: Any, text: str) -> None:
    group = config_path.strip("/").rpartition("/")[0]
    if group not in _GLOBAL_GROUPS or (loaded.header or {}).get("package") is not None:
        return
    keys = [str(key) for key in loaded.config if key != "defaults"]
    if not keys:
        return
    first = next((line for line in text.splitlines() if line.strip()), "")
    raise ConfigError(
        Problem(
            f"{file}:1:1",
            "its keys would be ignored: they belong to the whole config",
            found=f"first line {first[:60]!r}",
            allowed="# @package _global_",
            do="make that the first line",
        )
    )
