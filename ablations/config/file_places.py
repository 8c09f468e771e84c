"""Find the file, line and column of the user's that a problem of a config stems from.

    training.peek_lr: unknown key …  ──▶  mine/experiment/mine.yaml:4:3: training.peek_lr: unknown key …

Hydra composes one config of many files and keeps no places. They are looked up again once something is
wrong: in the files that it read from the user's folders, and in those of sources. What the command line
sets has no place in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablations.errors import Problem, UserError
from ablations.yaml_files import ConfigFile, shown_path

__all__ = ["default_place", "placed", "source_files"]


@dataclass(frozen=True)
class _Found:
    """Place in a file up to which a key can be followed."""

    depth: int
    """Number of keys of the config that were followed, those of the file's package counted."""
    whole: bool
    mark: Any


def placed(error: UserError, files: Sequence[ConfigFile], overrides: Sequence[str]) -> UserError:
    """Return an error with the place of each of its problems that a file of the user's gave.

    Args:
        error: The error; its kind is kept.
        files: The user's files, in the order in which they were read: the last one's value counts.
        overrides: Words of the command line.
    """
    problems = [_placed(problem, files, overrides) for problem in error.problems]
    return type(error)(problems)


def _placed(problem: Problem, files: Sequence[ConfigFile], overrides: Sequence[str]) -> Problem:
    if not problem.where or "/" in problem.where or _is_set(problem.where, overrides):
        return problem
    parts = problem.where.split(".")
    best: tuple[_Found, ConfigFile] | None = None
    for file in files:
        found = _follow(file, parts)
        if found is not None and (best is None or found.depth >= best[0].depth):
            best = (found, file)
    if best is None:
        return problem
    found, file = best
    # What is missing stands nowhere: the section that it belongs to does.
    if not found.whole and not (problem.what == "missing" and found.depth == len(parts) - 1):
        return problem
    return replace(problem, where=f"{_place(file, found.mark)}: {problem.where}")


def _is_set(key: str, overrides: Sequence[str]) -> bool:
    """Return whether the command line sets a key, a part of it, or what it is part of."""
    for word in overrides:
        name, assigned, _ = word.lstrip("+~").partition("=")
        name = name.replace("/", ".").partition("@")[0]
        # A word for a group chooses files, in which the place is looked up.
        chosen = "." not in name and not word.startswith("+") and "{" not in word
        if not assigned or (chosen and name != key):
            continue
        if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}."):
            return True
    return False


def _follow(file: ConfigFile, parts: Sequence[str]) -> _Found | None:
    """Return how far a key can be followed in a file; None if the file is of another section."""
    package = file.package.split(".") if file.package else []
    if package != list(parts[: len(package)]):
        return None
    node = _root(file.text)
    if node is None:
        return None
    mark, depth = node.start_mark, len(package)
    for part in parts[len(package) :]:
        step = _step(node, part)
        if step is None:
            return _Found(depth, False, mark) if depth else None
        mark, node = step
        depth += 1
    return _Found(depth, True, mark)


def _step(node: Any, part: str) -> tuple[Any, Any] | None:
    """Return the place and the node of one key, or of one position of a list."""
    if isinstance(node.value, str):
        return None
    for place, inner in enumerate(node.value):
        if isinstance(inner, tuple):
            key, value = inner
            if key.value == part:
                return key.start_mark, value
        elif str(place) == part:
            return inner.start_mark, inner
    return None


def _root(text: str) -> Any:
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def _place(file: ConfigFile, mark: Any) -> str:
    return f"{shown_path(file.path)}:{mark.line + 1}:{mark.column + 1}"


def default_place(files: Iterable[ConfigFile], name: str | None, word: str) -> str | None:
    """Return the place of an entry of a defaults list; None if no file of the user's has that list.

    Args:
        files: The user's files.
        name: Name of the file with the list, as Hydra gives it: ``experiment/mine``; None = the file is
            not known, and the entry decides.
        word: The group or option that the entry names.
    """
    for file in files:
        root = _root(file.text)
        if root is None or (name is not None and file.name.strip("/") != name):
            continue
        mark, entries = _step(root, "defaults") or (root.start_mark, None)
        for entry in entries.value if entries and not isinstance(entries.value, str) else ():
            parts = (text.removeprefix("override ").strip("/ ") for text in _texts(entry))
            if any(word in (part, *part.split("/")) for part in parts):
                return _place(file, entry.start_mark)
        if name is not None:
            return _place(file, mark)
    return None


def _texts(node: Any) -> Iterable[str]:
    if isinstance(node.value, str):
        yield node.value
        return
    for inner in node.value:
        for one in inner if isinstance(inner, tuple) else (inner,):
            yield from _texts(one)


def source_files(folders: Iterable[Path], problems: Iterable[Problem]) -> list[ConfigFile]:
    """Return the files of the sources that problems name: Hydra does not read them.

    Args:
        folders: The user's config folders.
        problems: What is wrong.
    """
    names = {problem.where.split(".")[1] for problem in problems if _is_of_source(problem.where)}
    found = []
    for name in sorted(names):
        for folder in folders:
            path = folder / "source" / f"{name}.yaml"
            if path.is_file():
                text = path.read_text(encoding="utf-8-sig", errors="replace")
                found.append(ConfigFile(path, f"source/{name}", f"source.{name}", text))
    return found


def _is_of_source(where: str) -> bool:
    return where.startswith("source.") and where.count(".") >= 1
