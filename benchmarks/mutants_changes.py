"""Make the small wrong changes of benchmarks/mutants.py: from the syntax tree of a module, seeded.

One of a module's functions gives at most one change, drawn over the kinds of change that it has sites for
and then over the sites, so that constants do not crowd out checks. The draw of a function depends on the
seed and on the function alone: a change elsewhere in the project does not move it.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutants_sites import Defaults, Site, Sites

SKIPPED_FUNCTIONS = {"__repr__", "__str__", "__getattr__", "__dir__"}


@dataclass(frozen=True)
class Change:
    """One wrong change of a module."""

    module: str
    """Path under the project's root."""
    function: str
    kind: str
    line: int
    before: str
    after: str
    source: str
    """The whole changed module."""

    @property
    def name(self) -> str:
        """Name of the change in a record and in the list of equivalent changes; it survives moved lines."""
        return f"{self.module}:{self.function}: {self.before} → {self.after}"


def owners(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the functions, methods, class bodies' fields and constants of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{member.name}", member
                elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    yield f"{node.name}.{member.target.id}", member
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id != "__all__":
                yield target.id, node


def changes_of(
    module: str, source: str, defaults: Defaults, seed: int, equivalent: Mapping[str, str]
) -> Iterator[Change]:
    """Yield one change for each function of the module that has a site, in a seeded order.

    A change in ``equivalent`` is passed over for the function's next.
    """
    found = list(owners(ast.parse(source)))
    random.Random(f"{seed}:{module}").shuffle(found)
    for function, node in found:
        if function.rpartition(".")[2] in SKIPPED_FUNCTIONS:
            continue
        sites = Sites(source, defaults)
        sites.visit(node)
        for change in _drawn(module, function, source, sites.found, seed):
            if change.name not in equivalent:
                yield change
                break


def _drawn(
    module: str, function: str, source: str, sites: list[Site], seed: int
) -> Iterator[Change]:
    """Yield the changes of one function in a seeded order: a kind first, then a site of it."""
    chance = random.Random(f"{seed}:{module}:{function}")
    by_kind: dict[str, list[Site]] = {}
    for site in sites:
        by_kind.setdefault(site.kind, []).append(site)
    for kind in sorted(by_kind):
        chance.shuffle(by_kind[kind])
    while kinds := sorted(kind for kind, left in by_kind.items() if left):
        site = by_kind[chance.choice(kinds)].pop()
        changed = source[: site.start] + site.text + source[site.end :]
        if not _differs(source, changed):
            continue
        line = source.count("\n", 0, site.start)
        before, after = _shown(source, changed, line)
        yield Change(module, function, site.kind, line + 1, before, after, changed)


def _differs(source: str, changed: str) -> bool:
    """Return whether the changed text is a module, and another one."""
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _shown(source: str, changed: str, line: int) -> tuple[str, str]:
    """Return the line of the change before and after, with spaces made one."""
    before, after = (" ".join(text.splitlines()[line].split()) for text in (source, changed))
    return before, after


def read_defaults(root: Path, packages: Sequence[str]) -> Defaults:
    """Return the defaults of all functions of the packages under ``root``."""
    paths = (path for package in packages for path in sorted((root / package).rglob("*.py")))
    return Defaults([ast.parse(path.read_text()) for path in paths])
