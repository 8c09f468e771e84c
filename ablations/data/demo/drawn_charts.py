"""Bar charts of real tables, drawn, with a question whose answer is in the picture alone.

The heights are values of a column of one of vega-datasets' tables; colours, letters and paper are random. The
answer is chosen first, each in turn, and the chart is coloured for it: without the picture, every answer to a
question is as likely as the others.

    Which bar is highest?                        one of eight colours
    Which bar is lowest?                         one of eight colours
    How many bars are there?                     three to six

Six kinds of questions were tried, with letters, places and comparisons among them: a vision part of half a
million parameters did not begin to read any of them within 600 steps of 16 rows (docs/decisions/vision.md).
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLOURS", "LETTERS", "QUESTIONS", "TABLES", "Chart", "charts"]

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 140, 44),
    "blue": (31, 90, 200),
    "yellow": (240, 210, 20),
    "orange": (255, 127, 14),
    "purple": (130, 60, 170),
    "black": (20, 20, 20),
    "pink": (240, 130, 190),
}
LETTERS = "ABCDEFGH"
QUESTIONS = 3
"""Kinds of questions; charts take them in turns."""

_PACKAGE = "vega-datasets"
TABLES: Mapping[str, tuple[str, ...]] = {
    "barley.json": ("yield",),
    "cars.json": (
        "Miles_per_Gallon",
        "Displacement",
        "Horsepower",
        "Weight_in_lbs",
        "Acceleration",
    ),
    "driving.json": ("miles", "gas"),
    "iowa-electricity.csv": ("net_generation",),
    "iris.json": ("sepalLength", "sepalWidth", "petalLength", "petalWidth"),
    "seattle-weather.csv": ("temp_max", "wind"),
    "sf-temps.csv": ("temp",),
    "stocks.csv": ("price",),
    "us-employment.csv": ("construction", "manufacturing", "retail_trade"),
    "wheat.json": ("wheat",),
}
"""Table → columns of positive numbers."""
_CHARTS = 24_000
_COUNTS = ("three", "four", "five", "six")
_FEWEST = 3
_CLEAR = 0.08
"""Difference of two bars, as a share of the highest: five pixels of a picture of 64."""
_TRIES = 200
_LOWEST = 0.12
"""Height of the lowest bar as a share of the highest."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart and a question about it."""

    heights: tuple[float, ...]
    """Height of each bar, from 0 to 1; every two differ clearly."""
    colours: tuple[str, ...]
    letters: tuple[str, ...]
    paper: tuple[int, int, int]
    question: str
    answer: str

    def draw(self, side: int) -> Image:
        """Return the chart as a picture of ``side`` pixels."""
        from PIL import Image, ImageDraw, ImageFont

        image = Image.new("RGB", (side, side), self.paper)
        drawing = ImageDraw.Draw(image)
        font = ImageFont.load_default(side * 11 // 64)
        ground, top = side * 50 // 64, side * 2 // 64
        step = side / len(self.heights)
        for place, height in enumerate(self.heights):
            left, right = place * step + step * 0.12, (place + 1) * step - step * 0.12 - 1
            box = (left, ground - height * (ground - top), right, ground)
            drawing.rectangle(box, fill=COLOURS[self.colours[place]])
            middle = ((left + right) / 2, (ground + side) / 2)
            drawing.text(middle, self.letters[place], fill="black", font=font, anchor="mm")
        return image


def charts(files: Mapping[str, Path]) -> Iterator[Chart]:
    """Yield the charts of vega-datasets' tables, questions and answers in turns."""
    columns = _columns(files[_PACKAGE])
    for number in range(_CHARTS):
        yield _chart(number, columns)


def _columns(package: Path) -> list[list[float]]:
    found = []
    with zipfile.ZipFile(package) as archive:
        for table, names in TABLES.items():
            text = archive.read(f"vega_datasets/_data/{table}").decode()
            rows = (
                json.loads(text)
                if table.endswith(".json")
                else list(csv.DictReader(io.StringIO(text)))
            )
            for name in names:
                values = [float(row[name]) for row in rows if row[name] not in (None, "")]
                found.append([value for value in values if value > 0])
    return found


def _chart(number: int, columns: list[list[float]]) -> Chart:
    rng = random.Random(f"chart/{number}")
    kind, turn = number % QUESTIONS, number // QUESTIONS
    count = _FEWEST + (turn % len(_COUNTS) if kind == 2 else rng.randrange(len(_COUNTS)))
    heights = _heights(rng, columns, count)
    colours = rng.sample(list(COLOURS), count)
    letters = rng.sample(LETTERS, count)
    order = sorted(range(count), key=heights.__getitem__)
    colour = list(COLOURS)[turn % len(COLOURS)]
    if kind == 0:
        question, answer = "Which bar is highest?", _put(colours, order[-1], colour)
    elif kind == 1:
        question, answer = "Which bar is lowest?", _put(colours, order[0], colour)
    else:
        question, answer = "How many bars are there?", _COUNTS[count - _FEWEST]
    return Chart(
        heights=tuple(heights),
        colours=tuple(colours),
        letters=tuple(letters),
        paper=(rng.randrange(200, 256), rng.randrange(200, 256), rng.randrange(200, 256)),
        question=question,
        answer=answer,
    )


def _put(values: list[str], place: int, wanted: str) -> str:
    """Put a colour at a place and return it; if another place has it, they swap."""
    if wanted in values:
        values[values.index(wanted)] = values[place]
    values[place] = wanted
    return wanted


def _heights(rng: random.Random, columns: list[list[float]], count: int) -> list[float]:
    """Return heights of so many values of one column that every two differ clearly."""
    while True:
        column = rng.choice(columns)
        for _ in range(_TRIES):
            values = rng.sample(column, count)
            low, high = min(values), max(values)
            if low == high:
                continue
            scaled = [_LOWEST + (1 - _LOWEST) * (value - low) / (high - low) for value in values]
            ordered = sorted(scaled)
            gaps = (b - a for a, b in itertools.pairwise(ordered))
            if min(gaps) >= _CLEAR:
                return scaled
