"""The measurable part of how the code is written: plain words, short parts, imports without rings."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ablations", "sweeps", "analysis")
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "notebooks" not in path.parts
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("analysis/**/*.md")])
FUNCTION_LINES, FILE_LINES, PAGE_COLUMNS = 60, 400, 120
QUESTIONS = ("What", "Who", "Whoever", "Where", "How", "Whether", "When", "Which", "Why")
SPEECH = re.compile(r"\b(says?|said|saying|tells?|told|telling)\b", re.IGNORECASE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and functions, and those below their fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield text
            for field, below in pairwise(node.body):
                if isinstance(field, ast.Assign | ast.AnnAssign) and _is_text(below):
                    assert isinstance(below, ast.Expr)
                    assert isinstance(below.value, ast.Constant)
                    yield str(below.value.value)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def comments(path: Path) -> Iterator[str]:
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.COMMENT:
                yield token.string


def test_docstrings_begin_with_a_verb_and_not_with_a_question() -> None:
    texts = [(path, text) for path in MODULES for text in docstrings(ast.parse(path.read_text()))]
    asking = [f"{name_of(p)}: {t[:70]}" for p, t in texts if t.split()[0] in QUESTIONS]
    assert len(texts) > 1000
    assert asking == []


def test_nothing_is_said_or_told_where_it_is_printed_or_returned() -> None:
    words, found = 0, []
    for path in MODULES:
        texts = [*docstrings(ast.parse(path.read_text())), *comments(path)]
        words += sum(len(text.split()) for text in texts)
        found += [f"{name_of(path)}: {m[0]}" for text in texts for m in SPEECH.finditer(text)]
    assert 1e4 * len(found) / words < 5, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_of_a_page_fit_beside_code(page: Path) -> None:
    """Tables, links and blocks of code are left alone: they cannot be broken."""
    in_block = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_block = not in_block
        elif not in_block and not line.startswith(("|", "    ", "![")) and "](" not in line:
            assert len(line) <= PAGE_COLUMNS, f"line {number}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, known: set[str]) -> set[str]:
    """Return the modules of ours that a file imports, in functions too; not those of type checking."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    found.add(whole if whole in known else child.module)
            walk(child)

    walk(ast.parse(path.read_text()))
    return found & known - {module_name(path)}


def rings(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that reach each other (Tarjan, SIAM J. Comput. 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            ring = []
            while not ring or ring[-1] != name:
                ring.append(stack.pop())
            if len(ring) > 1:
                found.append(sorted(ring))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_no_modules_import_each_other_in_a_ring_functions_included() -> None:
    known = {module_name(path) for path in MODULES}
    graph = {module_name(path): imported(path, known) for path in MODULES}
    assert rings(graph) == []


def test_a_ring_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert rings(graph) == [["a", "b", "c"]]
