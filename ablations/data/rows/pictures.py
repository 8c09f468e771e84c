"""Pictures of a row: found in its columns, decoded, and brought into the store's square.

    found      packed bytes, {bytes, path}, a path, a picture of Pillow, pixels, or a function that draws one
    packed     what a step passes on: bytes or pixels, and which of their frames
    pixels     uint8 [3, S, S], red, green, blue

Pillow decodes. Orientation by EXIF is applied, transparent parts lie on white, the longer side is brought to
S and black fills the rest at the right and below, as Idefics3's processor does it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.samples import LeftOut

__all__ = ["Packed", "Pixels", "even_frames", "find_pictures", "pixels_digest", "pixels_of"]

Pixels = npt.NDArray[np.uint8]
"""One picture, [3, S, S]."""

_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""Files of a folder that are frames."""
_NOT_THERE = "a picture that is not there"
_DAMAGED = "a picture that cannot be decoded"


@dataclass(frozen=True, slots=True)
class Packed:
    """A picture as it was found."""

    content: Any
    """Bytes of a file, or a picture of Pillow."""
    frame: int = 0
    """Frame of an animated picture."""

    @property
    def key(self) -> bytes:
        """Return a hash of what was found: pictures with the same one are the same picture."""
        digest = hashlib.blake2b(digest_size=16, person=b"packed picture")
        if isinstance(self.content, bytes):
            digest.update(self.content)
        else:
            self.content.seek(self.frame)
            digest.update(f"{self.content.size}".encode())
            digest.update(self.content.convert("RGBA").tobytes())
        digest.update(self.frame.to_bytes(4, "little"))
        return digest.digest()


def find_pictures(value: Any, spec: RowSpec, folder: Path | None) -> tuple[Packed, ...]:
    """Return the pictures of a row's cell.

    Args:
        value: The cell: one picture, a list of them, or null.
        spec: The source's rows; with ``frames`` the cell is a video.
        folder: Folder that paths are relative to.

    Raises:
        LeftOut: a picture is not there, or there are more than ``max_pictures``.
    """
    if value is None:
        return ()
    cells = list(value) if _is_list(value) else [value]
    if spec.frames is not None:
        return tuple(_video(cells, spec.frames, folder))
    if len(cells) > spec.max_pictures:
        raise LeftOut(f"more than {spec.max_pictures} pictures")
    return tuple(Packed(_found(cell, folder)) for cell in cells)


def even_frames(count: int, kept: int) -> list[int]:
    """Return the numbers of ``kept`` of ``count`` frames at even distances, first and last included."""
    if count <= kept:
        return list(range(count))
    if kept == 1:
        return [count // 2]
    return [place * (count - 1) // (kept - 1) for place in range(kept)]


def pixels_of(packed: Packed, side: int) -> Pixels:
    """Return a picture in a square of ``side`` pixels.

    Raises:
        LeftOut: it cannot be decoded.
    """
    try:
        image = _opened(packed.content)
        if isinstance(packed.content, bytes):
            # A JPEG is decoded at the smallest of its own scales that is twice as large as needed.
            image.draft("RGB", (2 * side, 2 * side))
        if packed.frame:
            image.seek(packed.frame)
        return _fitted(_plain(image), side)
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise LeftOut(_DAMAGED) from error


def pixels_digest(pixels: Pixels) -> bytes:
    """Return a hash of a picture's pixels, 16 bytes."""
    digest = hashlib.blake2b(digest_size=16, person=b"picture")
    digest.update(pixels.tobytes())
    return digest.digest()


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _video(cells: list[Any], kept: int, folder: Path | None) -> list[Packed]:
    """Return the kept frames of a list of pictures, of a folder, or of one animated picture."""
    if len(cells) == 1 and isinstance(cells[0], str) and _path(cells[0], folder).is_dir():
        inside = sorted(_path(cells[0], folder).iterdir())
        cells = [str(path) for path in inside if path.suffix.lower() in _ENDINGS]
    if len(cells) > 1:
        chosen = [cells[number] for number in even_frames(len(cells), kept)]
        return [Packed(_found(cell, folder)) for cell in chosen]
    found = [_found(cell, folder) for cell in cells]
    return [Packed(one, frame) for one in found for frame in even_frames(_frames(one), kept)]


def _frames(content: Any) -> int:
    try:
        return int(getattr(_opened(content), "n_frames", 1))
    except Exception as error:  # as in `pixels_of`
        raise LeftOut(_DAMAGED) from error


def _found(cell: Any, folder: Path | None) -> Any:
    """Return the bytes of a file, or a picture of Pillow."""
    from PIL import Image

    if callable(cell) and not isinstance(cell, Image.Image):
        cell = cell()
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, (bytes, bytearray)):
        return bytes(cell)
    if isinstance(cell, np.ndarray):
        cell = Image.fromarray(cell)
    if isinstance(cell, Image.Image):
        return cell if getattr(cell, "is_animated", False) else _decoded(cell)
    if isinstance(cell, str):
        return _read(cell, folder)
    raise LeftOut(_NOT_THERE)


def _decoded(image: Any) -> Any:
    try:
        return _plain(image)
    except Exception as error:  # as in `pixels_of`
        raise LeftOut(_DAMAGED) from error


def _path(name: str, folder: Path | None) -> Path:
    return Path(name) if folder is None else folder / name


def _read(name: str, folder: Path | None) -> bytes:
    try:
        if "://" in name:
            return _fetched(name)
        path = _path(name, folder)
        if not path.is_file():  # nor a device that never ends
            raise LeftOut(_NOT_THERE)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        raise LeftOut(_NOT_THERE) from error


def _fetched(address: str) -> bytes:
    """Return a file of the hub, by an address that ``datasets`` gives."""
    from datasets.utils.file_utils import xopen

    with xopen(address, "rb") as stream:
        return bytes(stream.read())


def _opened(content: Any) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content


def _plain(image: Any) -> Any:
    """Return a picture upright, in red, green and blue, its transparent parts on white."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _fitted(image: Any, side: int) -> Pixels:
    from PIL import Image

    longest = max(image.size)
    size = tuple(max(1, round(length * side / longest)) for length in image.size)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    pixels = np.zeros((3, side, side), dtype=np.uint8)
    pixels[:, : size[1], : size[0]] = np.asarray(image).transpose(2, 0, 1)
    return pixels
