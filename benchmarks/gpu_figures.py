"""Writing what the GPU scripts measure: each figure when it is there, at the end what was not reached."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

__all__ = ["Figures", "headline", "time_options"]


def time_options(parser: argparse.ArgumentParser, minutes: float = 10.0) -> None:
    """Add what every GPU script takes: its time, and where its figures go."""
    parser.add_argument(
        "--minutes",
        type=float,
        default=minutes,
        help="no part begins after that; default %(default)s",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/gpu"),
        help="folder of the JSON lines; default %(default)s",
    )


def headline(device: torch.device) -> str:
    """Return device and versions, without which a figure is worth nothing."""
    about = about_of(device)
    return f"{about['device']}; torch {about['torch']}; Python {about['python']}"


def about_of(device: torch.device) -> dict[str, str]:
    """Return what a figure has to be read with."""
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU seconds of one thread"
    )
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


class Figures:
    """The figures of one script; a context that ends with what was not reached.

    Args:
        script: Name of the file of JSON lines, ``<script>.jsonl``; lines of earlier calls stay.
        out: Folder of that file.
        minutes: From now on; no part begins after that.
    """

    def __init__(self, script: str, out: Path, minutes: float, device: torch.device) -> None:
        self._script, self._device = script, device
        self._ends = time.monotonic() + 60 * minutes
        self._planned: list[str] = []
        out.mkdir(parents=True, exist_ok=True)
        self._stream = (out / f"{script}.jsonl").open("a", buffering=1)
        self._line = {"script": script, **about_of(device)}

    def __enter__(self) -> Figures:
        """Print the headline; from here on SIGTERM ends the script as an exception does."""
        print(headline(self._device), flush=True)
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write down the parts that were planned and are not there."""
        for what in list(self._planned):
            self.add(what, "not reached", not_reached=True)
        self._stream.close()

    @property
    def seconds_left(self) -> float:
        """Seconds before which a part may still begin."""
        return self._ends - time.monotonic()

    def plan(self, parts: list[str]) -> None:
        """Name the parts in the order in which they will be done."""
        self._planned.extend(parts)

    def add(self, what: str, words: str, **values: Any) -> None:
        """Print a figure and write its line; a part of that name counts as done.

        Args:
            words: The figure for a reader.
            values: The figure for a program; JSON.
        """
        if what in self._planned:
            self._planned.remove(what)
        print(f"{what:>44}  {words}", flush=True)
        line = {**self._line, "time": time.strftime("%Y-%m-%d %H:%M:%S"), "what": what, **values}
        self._stream.write(json.dumps(line) + "\n")

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[bool]:
        """Do a planned part: False where no time is left for it; a failure is written down and ends here."""
        if self.seconds_left <= 0:
            yield False
            return
        began = time.monotonic()
        try:
            yield True
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            words = f"{type(error).__name__}: {first}"
            self.add(what, words, failed=words, seconds=round(time.monotonic() - began, 1))
