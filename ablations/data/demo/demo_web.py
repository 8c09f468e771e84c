"""The demo's raw web: encyclopedic passages, of which every second one is spoiled.

A spoiled passage becomes what a crawl brings beside text: its own letters in random order, lines of a
log, an encoded file, or the notices and links around an article. It keeps the passage's length in bytes
and its group, so that what is held out of the passages is held out here too. Its id begins with
``spoiled-`` and the kind.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator

from ablations.data.synthetic import Text

__all__ = ["KINDS", "planted_score", "spoil_half"]

_PREFIX = "spoiled-"
_NOTICES = (
    "We use cookies to improve your experience on this site.",
    "By continuing to browse you accept our terms of service.",
    "Subscribe to our newsletter",
    "Share this page",
    "Sign in or create an account to leave a comment.",
    "Home | About | Contact | Sitemap",
    "You may also like",
    "Read more",
    "Advertisement",
    "Previous page",
)
_LEVELS = ("INFO", "WARN", "DEBUG", "ERROR")
_MODULES = ("http.server", "db.pool", "auth", "worker", "cache", "scheduler")
_ENCODED_LINE = 76


def _shuffled(text: str, rng: random.Random) -> str:
    letters = list(text)
    rng.shuffle(letters)
    return "".join(letters)


def _lines(text: str, make: Callable[[], str]) -> str:
    """Return as many lines as have the length of the text, about."""
    lines: list[str] = []
    size = 0
    while size < len(text):
        lines.append(make())
        size += len(lines[-1]) + 1
    return "\n".join(lines)


def _log(text: str, rng: random.Random) -> str:
    def line() -> str:
        clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        where = f"{rng.choice(_LEVELS)} {rng.choice(_MODULES)}"
        mark = f"id={rng.getrandbits(48):012x} path=/{rng.getrandbits(32):08x}"
        return f"{clock} {where} {mark} ms={rng.randrange(100_000)}"

    return _lines(text, line)


def _encoded(text: str, rng: random.Random) -> str:
    letters = base64.b64encode(rng.randbytes(len(text) * 3 // 4)).decode()
    ends = range(0, len(letters), _ENCODED_LINE)
    return "\n".join(letters[start : start + _ENCODED_LINE] for start in ends)


def _notices(text: str, rng: random.Random) -> str:
    def line() -> str:
        link = f"https://{rng.getrandbits(32):08x}.example/{rng.getrandbits(40):010x}"
        return f"{rng.choice(_NOTICES)} {link}?ref={rng.randrange(1_000_000)}"

    return _lines(text, line)


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "shuffled": _shuffled,
    "log": _log,
    "encoded": _encoded,
    "notices": _notices,
}
"""Kind of spoiled text → its maker."""


def spoil_half(texts: Iterable[Text]) -> Iterator[Text]:
    """Yield the documents, every second one spoiled, by a hash of its id."""
    kinds = list(KINDS.items())
    for text in texts:
        digest = hashlib.blake2b(text.id.encode(), digest_size=8, person=b"demo-web").digest()
        number = int.from_bytes(digest, "big")
        if number % 2:
            yield text
            continue
        name, make = kinds[number // 2 % len(kinds)]
        yield Text(f"{_PREFIX}{name}-{text.id}", make(text.text, random.Random(number)), text.group)


def planted_score(identity: str) -> int:
    """Return the score that a careful rater would give a document: 5, or 0 if it is spoiled."""
    return 0 if identity.startswith(_PREFIX) else 5
