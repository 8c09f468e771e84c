"""Run a program, then do what the judge asks of the objects that it made.

Everything here shares an interpreter with the program, so nothing here is trusted: the judge accepts
values from this process, never a result.
"""

from __future__ import annotations

import builtins
import operator
import sys

from ablations.evaluation.sandbox.wire import Channel, Decoder, Encoder, by_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["play"]


def play(channel: Channel) -> None:
    """Execute the program that arrives first, then answer requests until the judge ends."""
    source = channel.receive().decode()
    # The program must not be able to import our modules.
    for name in [name for name in sys.modules if name.partition(".")[0] == "ablations"]:
        del sys.modules[name]
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    sys.argv = [""]
    player = _Player(channel, vars(main))
    try:
        exec(compile(source, "<generated>", "exec", dont_inherit=True), vars(main))
    except BaseException as error:  # including a SystemExit before the tests
        channel.send(player.failure(error))
        return
    channel.send(player.encode(("ok", None, {})))
    while True:
        channel.send(player.answer(channel.receive()))


class _Player:
    """Objects of the program by number, and the operations on them."""

    def __init__(self, channel: Channel, names: dict[str, Any]) -> None:
        self._channel = channel
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self.encode = Encoder(self._number_of)
        self._decode = Decoder(theirs=self._callback, ours=self._objects.__getitem__)
        self._operations: dict[str, Callable[..., Any]] = {
            "names": lambda wanted: {name: names[name] for name in wanted if name in names},
            "call": lambda target, *args, **kwargs: target(*args, **kwargs),
            "get": getattr,
            "set": setattr,
            "item": operator.getitem,
            "setitem": operator.setitem,
            "delitem": operator.delitem,
            "len": len,
            "iter": iter,
            "next": next,
            "bool": bool,
            "str": str,
            "repr": repr,
            "eq": operator.eq,
            "isinstance": isinstance,
        }

    def answer(self, request: bytes) -> bytes:
        """Serve one request; return the bytes of its value and of the arguments that it changed."""
        try:
            what, args, kwargs = self._decode(request)
            before = {at: self.encode(arg) for at, arg in enumerate(args) if _changes(arg)}
            value = self._operations[what](*args, **kwargs)
            changed = {at: args[at] for at, old in before.items() if self.encode(args[at]) != old}
            return self.encode(("ok", value, changed))
        except BaseException as error:  # the program's own, including SystemExit
            return self.failure(error)

    def failure(self, error: BaseException) -> bytes:
        """Return the bytes of an exception: its nearest built-in type, and its text."""
        kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        try:
            text = str(error)
        except Exception:
            text = ""
        return self.encode(("error", next(kinds), text))

    def _number_of(self, value: Any) -> bytes:
        if type(value) is _Callback:
            return by_number(b">", value.number)
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # a reference, so that no other object gets this id
        return by_number(b"<", self._numbers[id(value)])

    def _callback(self, number: int) -> _Callback:
        return _Callback(self, number)

    def call_back(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the tests; meanwhile answer the judge's requests."""
        self._channel.send(self.encode(("call", number, (args, kwargs))))
        while True:
            message = self._channel.receive()
            what, *rest = self._decode(message)
            if what == "ok":
                return rest[0]
            if what == "error":
                kind = getattr(builtins, rest[0], Exception)
                raise kind(rest[1])
            self._channel.send(self.answer(message))


class _Callback:
    """Function of the tests, as the program sees it."""

    def __init__(self, player: _Player, number: int) -> None:
        self._player, self.number = player, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._player.call_back(self.number, args, kwargs)


def _changes(value: Any) -> bool:
    """Return True if a function can change this argument for its caller."""
    kind = type(value)
    return kind in (list, dict, set, bytearray) or kind.__name__ == "deque"
