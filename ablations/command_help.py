"""The help of a command: what it does, examples, its groups, and each option with type, range and default.

The options are read from the dataclasses that check them, their defaults from the command's own config.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.command_table import COMMANDS, RUN_OPTIONS, Command
from ablations.config.option_docs import Option, Section, sections
from ablations.config.schema import conf_dir
from ablations.yaml_files import read_yaml

__all__ = ["command_help", "option_sections", "print_long"]

_WIDTH = 100
_GROUPS = ("tokenizer", "mixture", "schedule", "model", "training", "execution", "evaluation")
_WORDS = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Any": "any value",
}


def command_help(name: str, folders: Sequence[Path] = ()) -> str:
    """Return the help of a command.

    Args:
        name: The command.
        folders: Config folders of the user's: their groups are listed too.
    """
    command = COMMANDS[name]
    many = " [-m]" if command.searches else ""
    lines = [
        f"ablate {name}: {command.help}",
        "",
        f"usage: ablate {name}{many} [KEY=VALUE …] [--config-dir FOLDER] [--cfg job]",
        "",
        "examples",
        *(f"  ablate {name} {words}".rstrip() for words in command.examples),
    ]
    if command.of_a_run:
        lines += ["", "groups: choose one with GROUP=OPTION", *_group_lines(command, folders)]
    defaults = _defaults(command.config)
    for section in option_sections(name):
        lines += ["", _title(section)]
        for option in section.options:
            lines += _option_lines(option, defaults)
    lines += ["", *_closing(name, command)]
    return "\n".join(lines)


def option_sections(name: str) -> list[Section]:
    """Return the options of a command, its own first, then those of a run if it has them."""
    command = COMMANDS[name]
    kinds = [*command.options, *(RUN_OPTIONS if command.of_a_run else ())]
    top = Section("", "", ())
    below: list[Section] = []
    known: set[str] = set()
    for prefix, kind in kinds:
        shown = [
            Section(
                found.prefix,
                found.summary,
                tuple(option for option in found.options if option.key not in known),
            )
            for found in sections(prefix, kind)
        ]
        for section in shown:
            known |= {option.key for option in section.options}
            if not section.prefix:
                top = Section("", "", top.options + section.options)
            elif section.options:
                below.append(section)
    own = [section for section in below if (section.prefix, name) in _FIRST]
    return [*own, top, *(section for section in below if section not in own)]


_FIRST = {("prepare", "prepare"), ("prepare.slurm", "prepare"), ("promotion", "promote")}
"""Sections that a command is called for: they stand before the keys of a run."""


def print_long(text: str) -> None:
    """Print a text; in a terminal that it does not fit, through the pager."""
    if sys.stdout.isatty() and text.count("\n") >= shutil.get_terminal_size().lines:
        import pydoc

        os.environ.setdefault("LESS", "FRX")
        pydoc.pager(text)
    else:
        print(text)


def _title(section: Section) -> str:
    if not section.prefix:
        return "options"
    return f"{section.prefix}: {_plain(section.summary)}"


def _plain(text: str) -> str:
    """Return a docstring without its marks for code."""
    text = re.sub(r":(?:class|func|mod):`~?([^`]+)`", lambda m: m[1].rpartition(".")[2], text)
    return text.replace("``", "")


def _option_lines(option: Option, defaults: Mapping[str, Any]) -> Iterator[str]:
    if option.is_section:
        kind = "section, below"
    else:
        kind = re.sub(r"\b(str|int|float|bool|Any)\b", lambda m: _WORDS[m[1]], option.type)
        kind += _shown_default(option, defaults)
    yield f"  {option.key}  ({kind})"
    yield from textwrap.wrap(
        _plain(option.text), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
    )


def _shown_default(option: Option, defaults: Mapping[str, Any]) -> str:
    """Return the words for an option's default: the config's own, else the dataclass's."""
    node: Any = defaults
    for part in option.key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            if option.default in ("", "needed"):
                return "; needed" if option.default and "<name>" in option.key else ""
            return f"; default {'an empty list' if option.default == '()' else option.default}"
        node = node[part]
    return "; needed" if node == "???" else f"; default {_value(node)}"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    return str(value)


def _defaults(config: str) -> dict[str, Any]:
    """Return what the command's config sets itself, on top of the config that it starts from."""
    own = read_yaml(conf_dir() / f"{config}.yaml")
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and "/" not in entry:
            found |= _defaults(entry)
        elif isinstance(entry, Mapping) and entry.get("search"):
            found["search"] = read_yaml(conf_dir() / "search" / f"{entry['search']}.yaml")
    return {**found, **own}


def _group_lines(command: Command, folders: Iterable[Path]) -> Iterator[str]:
    names = [*_GROUPS, "search", "experiment"]
    if command.config == "promote":
        names.append("full")
    for name in names:
        options = {
            path.stem
            for folder in (conf_dir(), *folders)
            for path in (folder / name).glob("*.yaml")
            if not path.stem.startswith("_")
        }
        head = f"  {name:<12}"
        yield from textwrap.wrap(
            ", ".join(sorted(options)),
            _WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
        )


def _closing(name: str, command: Command) -> Iterator[str]:
    yield f"ablate {name} --cfg job prints the config as composed; nothing else is done."
    if command.searches:
        yield f"-m makes a search: ablate {name} -m experiment=demo_ratio (docs/search.md)."
    if command.of_a_run:
        yield "A key that the config does not hold yet is added with a plus: +source.wiki.max_bytes=1000000."
    yield "Exit codes: 0 done, 1 the work failed, 2 the command or a config is wrong, 130 Ctrl-C."
