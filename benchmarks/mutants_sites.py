"""Find the places of a module where a small wrong change can be made, for benchmarks/mutants.py.

Not changed: text for people (messages, logging, docstrings), annotations, `__all__`, what only a type
checker reads, assertions for the type checker, display precision, tolerances of floating point, waiting
times and buffer sizes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

TURNED: Mapping[str, tuple[str, ...]] = {
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
}
OPERATORS = dict(
    zip(
        (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn),
        TURNED,
        strict=True,
    )
)
SIGNS: Mapping[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
_PAIRS = ("min max", "any all", "minimum maximum", "nanmin nanmax", "argmin argmax", "floor ceil")
SWAPPED = {a: b for pair in _PAIRS for a, b in (pair.split(), pair.split()[::-1])}
LIBRARY_DEFAULTS = {"ddof", "axis", "initial", "reverse", "side", "keepdims", "kind", "method"}
"""Keywords of other libraries' functions that can be left out, beside those of the project's own."""

FOR_PEOPLE = re.compile(r"(Error|Problem|Warning|print|warn|debug|info|exception|cast)$")
"""Calls whose arguments are messages, or are read by the type checker alone."""

NO_RESULT = {"flush", "close", "__init__", "collect", "update_wrapper", "simplefilter", "register"}
"""Methods whose call can be deleted without another result: `super().__init__` of an error is one."""

UNTUNED = {
    *(
        "indent",
        "timeout",
        "stacklevel",
        "decimals",
        "ndigits",
        "rel_tol",
        "abs_tol",
        "rtol",
        "atol",
        "tol",
    ),
    *(
        "maxiter",
        "chunksize",
        "maxsize",
        "strict",
        "sort_keys",
        "ensure_ascii",
        "exist_ok",
        "parents",
    ),
    *(
        "missing_ok",
        "ignore_errors",
        "check",
        "text",
        "capture_output",
        "errors",
        "encoding",
        "copy",
    ),
    *("width", "verbosity", "flush", "observed"),
}
"""Keywords whose values are display, tolerance or the caller's convenience."""

UNTUNED_NAMES = re.compile(
    r"POLL|CHUNK|SECONDS|TIMEOUT|BEAT|BUFFER|TOLERANCE|EPS|FORMAT|BLOCK|WAIT|AHEAD"
)
PATHS = re.compile(r"path|folder|root|dir|here|\.parent|\.tree|_FILE", re.IGNORECASE)
"""A `/` behind these joins paths: another operator ends every test at once."""

TYPES = re.compile(r"^(int|str|float|bool|None|[A-Z]\w*[a-z]\w*)\b[^(]*\|")


@dataclass(frozen=True)
class Site:
    """A place in a module's text, and what would stand there instead."""

    kind: str
    start: int
    end: int
    text: str


class Defaults:
    """Keywords for which the project's own functions and dataclasses have a default."""

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        self._known: dict[str, list[dict[str, str]]] = {}
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._known.setdefault(node.name, []).append(_function_defaults(node))
                elif isinstance(node, ast.ClassDef):
                    self._known.setdefault(node.name, []).append(_field_defaults(node))

    def can_be_left_out(self, called: str, keyword: ast.keyword) -> bool:
        """Return whether the call works without the keyword, and differs."""
        if keyword.arg is None or keyword.arg in UNTUNED:
            return False
        known = self._known.get(called)
        if not known:
            return keyword.arg in LIBRARY_DEFAULTS
        value = ast.dump(keyword.value)
        return all(keyword.arg in one and one[keyword.arg] != value for one in known)


def _function_defaults(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    return {name: ast.dump(default) for name, default in _with_default(node)}


def _with_default(
    node: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[str, ast.expr]]:
    positional = [*node.args.posonlyargs, *node.args.args]
    last = positional[len(positional) - len(node.args.defaults) :]
    pairs = [*zip(last, node.args.defaults, strict=True)]
    named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    for argument, default in [*pairs, *named]:
        if default is not None:
            yield argument.arg, default


def _deleted(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return the arguments that the function takes for its interface alone."""
    targets = [t for s in node.body if isinstance(s, ast.Delete) for t in s.targets]
    return {
        name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
    }


def _is_tiny(node: ast.expr) -> bool:
    """Return whether an operand is a tolerance, a waiting time or a buffer's size."""
    if isinstance(node, ast.Name):
        return UNTUNED_NAMES.search(node.id.upper()) is not None
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, float) and 0 < value <= 1e-5


def _field_defaults(node: ast.ClassDef) -> dict[str, str]:
    fields = (field for field in node.body if isinstance(field, ast.AnnAssign) and field.value)
    return {ast.unparse(field.target): ast.dump(field.value) for field in fields if field.value}


class Sites(ast.NodeVisitor):
    """The sites of one function, class body or module-level constant."""

    def __init__(self, source: str, defaults: Defaults) -> None:
        self.found: list[Site] = []
        self._source = source
        self._defaults = defaults
        lines = source.splitlines(keepends=True)
        self._lines = [line.encode() for line in lines]
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self._at(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        return start, self._at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end]

    def _add(self, kind: str, node: ast.AST, text: str) -> None:
        self.found.append(Site(kind, *self._span(node), text))

    def _between(self, kind: str, left: ast.AST, right: ast.AST, old: str, new: str) -> None:
        """Add a site for the operator that stands between two operands."""
        start, end = self._span(left)[1], self._span(right)[0]
        pattern = r"\s+".join(re.escape(word) for word in old.split())
        if match := re.search(pattern, self._source[start:end]):
            self.found.append(Site(kind, start + match.start(), start + match.end(), new))

    # What is not looked into

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave messages alone."""

    visit_Raise = visit_Assert = visit_JoinedStr  # type: ignore[assignment]  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assigned(node.target, node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assigned(node.targets[0], node.value)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        name = target.id if isinstance(target, ast.Name) else ""
        if not UNTUNED_NAMES.search(name.upper()) and name != "__all__":
            self.visit(value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for name, default in _with_default(node):
            if isinstance(default, ast.Constant) and name not in _deleted(node):
                self._constant(default, "default")
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    # Statements

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            name = _called(node.value)
            if FOR_PEOPLE.search(name):
                return
            if name not in NO_RESULT:
                self._add("call deleted", node, "pass")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if not node.orelse and not self._text(node).startswith("elif"):
            if isinstance(node.body[-1], ast.Raise):
                self._add("check deleted", node, "pass")
            elif isinstance(node.body[-1], ast.Return | ast.Continue | ast.Break):
                self._add("early return dropped", node, "pass")
        self.generic_visit(node)

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            old = OPERATORS[type(operator)]
            tiny = any(_is_tiny(side) for side in (left, right))
            for new in TURNED[old][tiny:]:  # on which side its edge lies is no result
                self._between("comparison", left, right, old, new)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between("and/or", left, right, old, new)
        if len(node.values) == 2:
            for operand in node.values:
                self._add("operand lost", node, f"({self._text(operand)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add("not lost", node, f"({self._text(node.operand)})")
        elif isinstance(node.op, ast.USub | ast.Invert):
            self._add("sign", node, f"({self._text(node.operand)})")
        if not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = PATHS.search(self._text(node)) and isinstance(node.op, ast.Div)
        text = text or any(
            isinstance(part, ast.JoinedStr)
            or (isinstance(part, ast.Constant) and not isinstance(part.value, int | float))
            for side in (node.left, node.right)
            for part in (side, *ast.iter_child_nodes(side))
        )
        if (signs := SIGNS.get(type(node.op))) and not text and not TYPES.search(self._text(node)):
            self._between("sign", node.left, node.right, *signs)
        if not isinstance(node.op, ast.LShift):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        self._constant(node, "constant")

    def _constant(self, node: ast.Constant, kind: str) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(kind, node, str(not value))
        elif isinstance(value, int):
            near = {value + 1, max(value - 1, 0)} if value < 10 else {value // 2}
            for new in sorted((near | {value * 2}) - {value}):
                self._add(kind, node, str(new))
        elif isinstance(value, float) and abs(value) > 1e-5:
            for new in (value * 2, value / 2):
                self._add(kind, node, repr(new))

    def visit_Call(self, node: ast.Call) -> None:
        name = _called(node)
        if FOR_PEOPLE.search(name):
            return
        end = self._span(node.func)[1]
        if name in SWAPPED:
            self.found.append(Site("min/max", end - len(name), end, SWAPPED[name]))
        if isinstance(node.func, ast.Name) and node.args:
            first = self._text(node.args[0])
            if name in ("sorted", "reversed"):
                self._add("order lost", node, f"list({first})")
            elif name == "abs":
                self._add("sign", node, f"({first})")
        for number, keyword in enumerate(node.keywords):
            if self._defaults.can_be_left_out(name, keyword):
                self._left_out(node, number)
        self.visit(node.func)
        for argument in node.args[:1] if name == "round" else node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg == "axis" and isinstance(keyword.value, ast.Constant):
                self._add("constant", keyword.value, "1" if keyword.value.value == 0 else "0")
            elif keyword.arg not in UNTUNED:
                self.visit(keyword.value)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and key.value in UNTUNED):
                self.visit(value)

    def _left_out(self, node: ast.Call, number: int) -> None:
        start, end = self._span(node.keywords[number])
        following = re.match(r"\s*,\s*", self._source[end:])
        self.found.append(
            Site("argument left out", start, end + (following.end() if following else 0), "")
        )


def _called(node: ast.Call) -> str:
    """Return the last part of a call's name."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""
