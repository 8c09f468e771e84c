"""Execute the tests of a program against its objects, which stay in another, untrusted process.

A name that the tests use is looked up in this order: the tests, the part of the program that the task
gave (``given``), the program, the built-ins. The given part is executed here as well, so that a
completion cannot replace a helper of the tests. A built-in is taken from the program only in tests that
name nothing else (MBPP asks for a function ``sum``).
"""

from __future__ import annotations

import builtins
import sys
from itertools import islice

from ablations.evaluation.sandbox.wire import (
    Broken,
    Channel,
    Decoder,
    Encoder,
    Module,
    by_number,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Judge"]

_AST_ONLY = 0x400
_MOST_GIVEN = 1_000_000
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


class Judge:
    """Run the tests: send requests to the player and compare its answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._remotes: dict[int, Remote] = {}
        self._functions: list[Any] = []
        self._encode = Encoder(self._number_of)
        self._decode = Decoder(theirs=self._remote, ours=self._functions.__getitem__)

    def passes(self, program: str, tests: str, given: str) -> bool:
        """Return True if each statement of ``tests`` ends without an exception after ``program``."""
        try:
            self._channel.send(program.encode())
            self._answer({})
            names = {"__name__": "__main__", **self._names(tests, given)}
            exec(compile(tests, "<tests>", "exec", dont_inherit=True), names)
        except BaseException:  # assertions, SystemExit, memory, a broken channel: none is a pass
            return False
        return True

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request to the player and return its value; raise the exception that it raised."""
        self._channel.send(self._encode((what, args, kwargs)))
        return self._answer(dict(enumerate(args)))

    def _answer(self, args: dict[int, Any]) -> Any:
        """Wait for a value; meanwhile serve calls of the tests' own functions."""
        while True:
            kind, value, rest = self._decode(self._channel.receive())
            if kind == "ok":
                for at, changed in rest.items():
                    _change(args[at], changed)
                return value
            if kind == "error":
                raise _exception(value, rest)
            if kind != "call":
                raise Broken("no answer")
            self._channel.send(self._serve(value, *rest))

    def _serve(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        try:
            return self._encode(("ok", self._functions[number](*args, **kwargs)))
        except Broken:
            raise
        except Exception as error:
            return self._encode(("error", type(error).__name__, str(error)))

    def _number_of(self, value: Any) -> bytes:
        if type(value) is Remote:
            return by_number(b">", _number(value))
        if type(value) in _VIEWS:
            return self._encode(list(value))
        if hasattr(value, "__next__"):
            # Another iterator over the same values, a million at most; "l" and "I" have the same content.
            return b"I" + self._encode(list(islice(value, _MOST_GIVEN)))[1:]
        if not callable(value):
            raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the program")
        self._functions.append(value)
        return by_number(b"<", len(self._functions) - 1)

    def _remote(self, number: int) -> Remote:
        if number not in self._remotes:
            self._remotes[number] = Remote(self, number)
        return self._remotes[number]

    def _names(self, tests: str, given: str) -> dict[str, Any]:
        """Return the values of the names that the tests use."""
        used, bound = _used_and_bound(compile(tests, "", "exec", _AST_ONLY, dont_inherit=True))
        built_in = {name for name in used if hasattr(builtins, name)}
        if used - bound - built_in:
            used -= built_in
        found = _own_names(given, used)
        wanted = sorted(used - set(found))
        answer = self.ask("names", wanted)
        # No other name is taken: the answer could contain ``abs``, or ``__builtins__``.
        asked = {name: self._imported(name, answer[name]) for name in wanted if name in answer}
        return {**asked, **found}

    def _imported(self, name: str, value: Any) -> Any:
        """Return a value; a module is imported under its own name, and refused under another."""
        if type(value) is not Module:
            return value
        if value.module != name:
            raise Broken("a module under another name")
        return __import__(name)


class Remote:
    """Object of the program: each operation on it is a request to the player.

    It equals itself, and another object of the program if its ``__eq__`` returns True. It never equals a
    value of the tests, whatever its ``__eq__`` returns, and it has no order and no arithmetic.
    """

    __slots__ = ("_judge", "_number")

    def __init__(self, judge: Judge, number: int) -> None:
        object.__setattr__(self, "_judge", judge)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ask(self, "call", *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _ask(self, "delitem", key)

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iter")
        while True:
            try:
                value = _ask(iterator, "next")
            except StopIteration:
                return
            yield value

    def __next__(self) -> Any:
        return _ask(self, "next")

    def __contains__(self, wanted: Any) -> bool:
        return any(value is wanted or value == wanted for value in self)

    def __bool__(self) -> bool:
        return _ask(self, "bool") is True

    def __str__(self) -> str:
        return str.__str__(_ask(self, "str"))

    def __repr__(self) -> str:
        return str.__str__(_ask(self, "repr"))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(other) is Remote and _ask(self, "eq", other) is True

    def __hash__(self) -> int:
        return hash(_number(self))

    def __instancecheck__(self, instance: object) -> bool:
        return type(instance) is Remote and _ask(instance, "isinstance", self) is True


def _number(remote: Remote) -> int:
    number: int = object.__getattribute__(remote, "_number")
    return number


def _ask(remote: Remote, what: str, *args: Any, **kwargs: Any) -> Any:
    judge: Judge = object.__getattribute__(remote, "_judge")
    return judge.ask(what, remote, *args, **kwargs)


def _change(old: Any, new: Any) -> None:
    """Apply to an argument of the tests the change that the program made to it."""
    if type(old) is not type(new) or type(old) is Remote:
        raise Broken("another type")
    old.clear()
    if isinstance(old, dict | set):
        old.update(new)
    else:
        old.extend(new)


def _exception(name: str, text: str) -> Exception:
    """Make the built-in exception of that name; one that ends a process becomes an ordinary error."""
    kind = getattr(builtins, name, Exception)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return Exception(name)
    try:
        return kind(text)
    except TypeError:  # UnicodeDecodeError and others need five arguments
        return Exception(text)


# ---------------------------------------------------------------------------------------- names


def _used_and_bound(tree: Any) -> tuple[set[str], set[str]]:
    """Return the names that are read anywhere in ``tree``, and those that it binds anywhere."""
    used: set[str] = set()
    bound: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        kind = type(node).__name__
        if kind == "Name":
            (used if type(node.ctx).__name__ == "Load" else bound).add(node.id)
        elif kind in ("FunctionDef", "ClassDef", "AsyncFunctionDef"):
            bound.add(node.name)
        elif kind == "arg":
            bound.add(node.arg)
        elif kind == "alias":
            bound.add((node.asname or node.name).partition(".")[0])
        for field in getattr(node, "_fields", ()):
            part = getattr(node, field, None)
            waiting.extend(part if isinstance(part, list) else [part])
    return used, bound


def _own_names(given: str, used: set[str]) -> dict[str, Any]:
    """Execute the given part without its last, open function; return the names that the tests use.

    Modules, functions and plain data are taken from here. Classes and their objects are the program's,
    because the objects that it makes have to be of the same class.
    """
    try:
        tree: Any = compile(given, "<given>", "exec", _AST_ONLY, dont_inherit=True)
    except (SyntaxError, ValueError):  # a head without a body
        return {}
    body = tree.body
    if body and type(body[-1]).__name__ == "FunctionDef":  # open, even with a docstring or imports
        body.pop()
    wanted = [node for node in body if type(node).__name__ in ("Import", "ImportFrom")]
    others = [node for node in body if node not in wanted]
    if not any(_used_and_bound(node)[1] & used for node in others):
        others = []
    wanted = body if others else [node for node in wanted if _used_and_bound(node)[1] & used]
    if not wanted:
        return {}
    tree.body = wanted
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(tree, "<given>", "exec", dont_inherit=True), names)
    except Exception:  # the program fails on it as well
        return {}
    classes = any(type(node).__name__ == "ClassDef" for node in wanted)
    return {
        name: value for name, value in names.items() if name in used and _is_own(value, classes)
    }


def _is_own(value: Any, classes: bool) -> bool:
    if type(value) in (type(sys), int, float, str, bytes, bool, list, tuple, dict, set, type(None)):
        return not classes or type(value) is type(sys)
    return callable(value) and not isinstance(value, type) and not classes
