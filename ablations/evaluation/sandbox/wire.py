"""Send values between the process that judges and the process that runs the program.

Plain data is sent by value: numbers, text, bytes, lists, tuples, dicts, sets and the value types of the
standard library. Everything else stays in its process, and the other side gets its number. Decoding builds
only the types named here, so bytes from a hostile process become values and nothing else: no class is
looked up by name, no code is called. (``marshal`` and ``pickle`` do not guarantee this, and ``json`` has
no tuples, sets or bytes and costs 5 ms to import.)

A value is one letter and its content::

    N T F            None, True, False
    i s b a          integer, text, bytes, bytearray: length, then bytes
    f c              float (8 bytes), complex (16)
    l t S Z d        list, tuple, set, frozenset, dict: count, then values
    r                range: three integers
    n                named tuple: name, fields, values
    o                a type of the standard library: name, then a tuple of its arguments
    I                an iterator: count, then its values
    y                a built-in type or exception: name
    M                a module of the standard library: name
    < >              number of an object: of the sender, of the receiver
"""

from __future__ import annotations

import builtins
import os
import select
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # imported by no child: 4 ms
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["Broken", "Channel", "Decoder", "Encoder", "Module", "by_number"]

_MOST = 64 << 20  # bytes of one message


class Broken(Exception):  # noqa: N818  (ends the judgement of one program)
    """Error if the other side ended or sent bytes that are not a message."""


class Channel:
    """Send and receive whole messages over two pipes; call ``tick`` every ``seconds`` meanwhile.

    ``end`` is a descriptor that becomes readable when the caller has given up.
    """

    def __init__(
        self,
        read: int,
        write: int,
        *,
        end: int | None = None,
        tick: Callable[[], None] | None = None,
        seconds: float = 0.05,
    ) -> None:
        self._read, self._write, self._end, self._tick = read, write, end, tick
        self._seconds, self._last = seconds, time.monotonic()
        if tick is not None:
            os.set_blocking(write, False)  # a reader that stops reading must not stop the ticks

    def send(self, message: bytes) -> None:
        """Write one message.

        Raises:
            Broken: the reader ended, or the message is too large.
        """
        if len(message) > _MOST:
            raise Broken("too large")
        data = memoryview(struct.pack("<Q", len(message)) + message)
        try:
            while data:
                self._wait([], [self._write])
                # A pipe that is ready accepts 4,096 bytes at once.
                data = data[os.write(self._write, data[:4096]) :]
        except OSError as error:
            raise Broken(str(error)) from None

    def receive(self) -> bytes:
        """Read one message.

        Raises:
            Broken: the writer ended, or the message is too large.
        """
        (size,) = struct.unpack("<Q", self._exactly(8))
        if size > _MOST:
            raise Broken("too large")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                self._wait([self._read], [])
                part = os.read(self._read, min(size - len(parts), 1 << 20))
            except OSError as error:
                raise Broken(str(error)) from None
            if not part:
                raise Broken("closed")
            parts += part
        return bytes(parts)

    def _wait(self, read: list[int], write: list[int]) -> None:
        """Return when one of the descriptors is ready; at once for a channel without a ``tick``."""
        if self._tick is None:
            return
        ended = [] if self._end is None else [self._end]
        while True:
            if time.monotonic() - self._last >= self._seconds:
                self._last = time.monotonic()
                self._tick()
            readable, writable, _ = select.select(read + ended, write, [], self._seconds)
            if self._end in readable:
                raise Broken("the caller gave up")
            if readable or writable:
                return


# Type → its arguments as plain data. A module is looked up only if the program has imported it.
_PARTS: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("decimal", "Decimal"): lambda v: (str(v),),
    ("fractions", "Fraction"): lambda v: (v.numerator, v.denominator),
    ("datetime", "date"): lambda v: (v.year, v.month, v.day),
    ("datetime", "time"): lambda v: (v.hour, v.minute, v.second, v.microsecond),
    ("datetime", "timedelta"): lambda v: (v.days, v.seconds, v.microseconds),
    ("datetime", "datetime"): lambda v: (
        v.year,
        v.month,
        v.day,
        v.hour,
        v.minute,
        v.second,
        v.microsecond,
    ),
    ("collections", "deque"): lambda v: (list(v), v.maxlen),
    ("collections", "Counter"): lambda v: (dict(v),),
    ("collections", "OrderedDict"): lambda v: (list(v.items()),),
}
_SCALARS = {None: b"N", True: b"T", False: b"F"}
_GROUPS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_BUILT_IN: dict[str, Any] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and not name.startswith("_")
}


class Encoder:
    """Turn a value into bytes; anything but plain data is sent as the number that ``number_of`` gives it."""

    def __init__(self, number_of: Callable[[Any], bytes]) -> None:
        self._number_of = number_of

    def __call__(self, value: Any) -> bytes:
        """Return the bytes of ``value``.

        Raises:
            RecursionError: it contains itself, or is nested too deeply.
            TypeError: ``number_of`` has no number for a part of it.
        """
        out = bytearray()
        self._put(out, value)
        return bytes(out)

    def _put(self, out: bytearray, value: Any) -> None:
        kind = type(value)
        if value is None or kind is bool:
            out += _SCALARS[value]
        elif kind is int:
            _sized(out, b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is str:
            _sized(out, b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is float:
            out += b"f" + struct.pack("<d", value)
        elif kind in _GROUPS:
            out += _GROUPS[kind] + struct.pack("<I", len(value))
            for part in value:
                self._put(out, part)
        elif kind is dict:
            self._put_dict(out, value)
        else:
            self._put_rarer(out, kind, value)

    def _put_dict(self, out: bytearray, value: dict[Any, Any]) -> None:
        out += b"d" + struct.pack("<I", len(value))
        for key, part in value.items():
            self._put(out, key)
            self._put(out, part)

    def _put_rarer(self, out: bytearray, kind: type, value: Any) -> None:
        if kind is bytes or kind is bytearray:
            _sized(out, b"b" if kind is bytes else b"a", bytes(value))
        elif kind is complex:
            out += b"c" + struct.pack("<dd", value.real, value.imag)
        elif kind is range:
            out += b"r"
            self._put(out, (value.start, value.stop, value.step))
        elif isinstance(value, type) and _is_built_in(value):
            _sized(out, b"y", value.__name__.encode())
        elif kind is type(sys) and value.__name__ in sys.stdlib_module_names:
            _sized(out, b"M", value.__name__.encode())
        elif not self._put_library(out, kind, value) and not self._put_subclass(out, value):
            out += self._number_of(value)

    def _put_library(self, out: bytearray, kind: type, value: Any) -> bool:
        module = sys.modules.get(kind.__module__)
        parts = _PARTS.get((kind.__module__, kind.__name__))
        if parts is None or getattr(module, kind.__name__, None) is not kind:
            return False
        if getattr(value, "tzinfo", None) is not None:
            return False
        _sized(out, b"o", f"{kind.__module__}.{kind.__name__}".encode())
        self._put(out, parts(value))
        return True

    def _put_subclass(self, out: bytearray, value: Any) -> bool:
        """Send an object of a subclass as plain data: IntEnum, defaultdict, named tuples."""
        fields = getattr(type(value), "_fields", None)
        if isinstance(value, tuple) and isinstance(fields, tuple):
            out += b"n"
            self._put(out, (type(value).__name__, fields, tuple(value)))
            return True
        for kind in (int, float, str, bytes, list, tuple, set, frozenset, dict):
            if isinstance(value, kind):
                self._put(out, {**value} if isinstance(value, dict) else _plain(kind, value))
                return True
        return False


def _is_built_in(kind: type) -> bool:
    return _BUILT_IN.get(str(kind.__name__)) is kind


def _plain(kind: type, value: Any) -> Any:
    """Return the value as the built-in type, whatever its subclass overrides."""
    if kind is int:
        return int.__int__(value)
    if kind is float:
        return float.__float__(value)
    if kind is str:
        return str.__str__(value)
    return kind(value)


def by_number(letter: bytes, number: int) -> bytes:
    """Return the bytes of an object's number; ``letter`` is ``<`` for the sender's object, else ``>``."""
    return letter + struct.pack("<I", number)


def _sized(out: bytearray, letter: bytes, content: bytes) -> None:
    out += letter + struct.pack("<I", len(content)) + content


class Decoder:
    """Turn bytes into a value; numbers of objects are looked up in ``theirs`` and ``ours``."""

    def __init__(self, theirs: Callable[[int], Any], ours: Callable[[int], Any]) -> None:
        self._theirs, self._ours = theirs, ours
        self._data, self._at = b"", 0

    def __call__(self, data: bytes) -> Any:
        """Return the value of ``data``.

        Raises:
            Broken: the bytes are not a value.
        """
        before = self._data, self._at
        self._data, self._at = data, 0
        try:
            value = self._take()
            if self._at != len(data):
                raise Broken("bytes are left over")
            return value
        except Broken:
            raise
        except Exception as error:  # any error in the bytes is the sender's
            raise Broken(f"{type(error).__name__}: {error}") from None
        finally:
            self._data, self._at = before

    def _bytes(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise Broken("cut off")
        self._at += size
        return part

    def _count(self) -> int:
        (count,) = struct.unpack("<I", self._bytes(4))
        return int(count)

    def _sized(self) -> bytes:
        return self._bytes(self._count())

    def _take(self) -> Any:
        return _TAKE[self._bytes(1)](self)

    def _several(self) -> Iterator[Any]:
        return (self._take() for _ in range(self._count()))

    def _pairs(self) -> dict[Any, Any]:
        made = {}
        for _ in range(self._count()):
            key = self._take()
            made[key] = self._take()
        return made

    def _complex(self) -> complex:
        real, imaginary = struct.unpack("<dd", self._bytes(16))
        return complex(real, imaginary)

    def _range(self) -> range:
        start, stop, step = self._take()
        return range(start, stop, step)

    def _named(self) -> Any:
        from collections import namedtuple

        name, fields, values = self._take()
        return namedtuple(name, fields)(*values)  # checks its own names

    def _library(self) -> Any:
        module, _, name = self._sized().decode().partition(".")
        if (module, name) not in _PARTS:
            raise Broken("no such type")
        return getattr(__import__(module), name)(*self._take())

    def _module(self) -> Any:
        name = self._sized().decode()
        if name not in sys.stdlib_module_names:
            raise Broken("no such module")
        return Module(name)


class Module:
    """Name of a module of the standard library; the receiver may import it."""

    def __init__(self, name: str) -> None:
        self.module = name


_TAKE: dict[bytes, Callable[[Decoder], Any]] = {
    b"N": lambda d: None,
    b"T": lambda d: True,
    b"F": lambda d: False,
    b"i": lambda d: int.from_bytes(d._sized(), "little", signed=True),
    b"s": lambda d: d._sized().decode("utf-8", "surrogatepass"),
    b"b": lambda d: d._sized(),
    b"a": lambda d: bytearray(d._sized()),
    b"f": lambda d: struct.unpack("<d", d._bytes(8))[0],
    b"c": Decoder._complex,
    b"l": lambda d: list(d._several()),
    b"t": lambda d: tuple(d._several()),
    b"S": lambda d: set(d._several()),
    b"Z": lambda d: frozenset(d._several()),
    b"d": Decoder._pairs,
    b"r": Decoder._range,
    b"n": Decoder._named,
    b"o": Decoder._library,
    b"I": lambda d: iter(list(d._several())),
    b"y": lambda d: _BUILT_IN[d._sized().decode()],
    b"M": Decoder._module,
    b"<": lambda d: d._theirs(d._count()),
    b">": lambda d: d._ours(d._count()),
}
