"""The demo's raw web: encyclopedic passages, of which every second one is spoiled.

A spoiled passage becomes what a crawl brings beside text: its own words in random order, lines of a log, or
the notices around an article. It keeps the passage's length and its group, so that what is held out of the
passages is held out here too. Its id begins with ``spoiled-`` and the kind.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator

from ablations.data.synthetic import Text

__all__ = ["KINDS", "planted_score", "spoil_half"]

_PREFIX = "spoiled-"
_NOTICES = (
    "We use cookies to improve your experience on this site.",
    "By continuing to browse you accept our terms of service and privacy policy.",
    "Click here to subscribe to our newsletter.",
    "Share this page on social media.",
    "All rights reserved.",
    "Sign in or create an account to leave a comment.",
    "Home | About | Contact | Sitemap | Careers | Help",
    "Please enable JavaScript to view this content.",
    "You may also like the following articles.",
    "Read more",
    "Back to top",
    "Advertisement",
    "Copyright notice: no part of this page may be reproduced without permission.",
    "Previous page 1 2 3 4 5 6 7 8 9 10 Next page",
)
_LEVELS = ("INFO", "WARN", "DEBUG", "ERROR")
_MODULES = ("http.server", "db.pool", "auth", "worker", "cache", "scheduler")
_EVENTS = ("request done", "retry", "connection closed", "timeout", "flush", "job started")


def _shuffled(text: str, rng: random.Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def _log(text: str, rng: random.Random) -> str:
    lines: list[str] = []
    size = 0
    while size < len(text):
        clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        where, event = rng.choice(_MODULES), rng.choice(_EVENTS)
        mark = f"id={rng.getrandbits(32):08x} ms={rng.randrange(5000)}"
        lines.append(
            f"2024-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02} {clock} "
            f"{rng.choice(_LEVELS)} {where}: {event} {mark}"
        )
        size += len(lines[-1]) + 1
    return "\n".join(lines)


def _notices(text: str, rng: random.Random) -> str:
    parts: list[str] = []
    size = 0
    while size < len(text):
        parts.append(rng.choice(_NOTICES))
        size += len(parts[-1]) + 1
    return "\n".join(parts)


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "shuffled": _shuffled,
    "log": _log,
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
