"""Pictures of a row's cell: forms, decoding, the square, frames; and their places in the texts."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablations.data.catalogue import FilesOrigin, HubOrigin
from ablations.data.manifest import StoreManifest
from ablations.data.rows.picture_samples import picture_sample
from ablations.data.rows.pictures import Packed, even_frames, find_pictures, pixels_of
from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.row_store import RowStore
from ablations.data.rows.samples import LeftOut
from tests.oracles.drawn import (
    SIDE,
    asked,
    packed,
    picture_source,
    pixels,
    prepare_pictures,
    training_rows,
    write_jsonl,
    write_pictures,
)

SPEC = RowSpec(
    kind="pictures",
    max_tokens=64,
    picture_size=SIDE,
    question_column="question",
    answer_column="answer",
)
VIDEO = RowSpec(kind="pictures", max_tokens=64, picture_size=SIDE, frames=4)
MARKERS = ("<end_of_utterance>", "<image>")


def _one(cell: Any, side: int = SIDE, folder: Path | None = None) -> Any:
    (found,) = find_pictures(cell, SPEC, folder)
    return pixels_of(found, side)


# ------------------------------------------------------------------------------------- decoding


def test_every_form_of_a_cell_is_the_same_picture(tmp_path: Path) -> None:
    image, content = pixels(0), packed(pixels(0))
    (tmp_path / "0.png").write_bytes(content)
    forms: list[Any] = [
        content,
        {"bytes": content, "path": None},
        {"bytes": None, "path": "0.png"},
        "0.png",
        str(tmp_path / "0.png"),
        Image.fromarray(image),
        image,
        lambda: Image.fromarray(image),
        [content],
    ]
    for form in forms:
        assert np.array_equal(_one(form, folder=tmp_path), image.transpose(2, 0, 1))
    assert find_pictures(None, SPEC, None) == find_pictures([], SPEC, None) == ()


@pytest.mark.parametrize(
    ("height", "width", "inside"), [(20, 40, (8, 16)), (40, 20, (16, 8)), (3, 300, (1, 16))]
)
def test_a_picture_keeps_its_aspect_and_black_fills_the_square(
    height: int, width: int, inside: tuple[int, int]
) -> None:
    found = _one(np.full((height, width, 3), 200, dtype=np.uint8))
    assert (found[:, : inside[0], : inside[1]] == 200).all()
    assert int((found == 200).sum()) == 3 * inside[0] * inside[1]
    assert int((found == 0).sum()) == 3 * (SIDE * SIDE - inside[0] * inside[1])


def test_a_small_picture_is_enlarged() -> None:
    assert (_one(np.full((2, 2, 3), 90, dtype=np.uint8)) == 90).all()


def test_transparent_parts_lie_on_white() -> None:
    image = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0))
    assert (_one(packed(image)) == 255).all()
    palette = Image.new("P", (SIDE, SIDE), 3)
    palette.putpalette([10] * 3 * 4)
    assert (_one(packed(palette, transparency=3)) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "YCbCr", "I;16"])
def test_every_mode_becomes_three_colours(mode: str) -> None:
    form = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    found = _one(packed(Image.new(mode, (SIDE, SIDE)), form))
    assert found.shape == (3, SIDE, SIDE)
    assert found.dtype == np.uint8


def test_a_photograph_stands_upright() -> None:
    image = np.zeros((8, 16, 3), dtype=np.uint8)
    image[:, :8] = 255  # its left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    found = _one(packed(image, exif=exif))
    assert found[0, :7, :8].min() > 200  # now the upper half
    assert found[0, 9:, :8].max() < 50


def test_palettes_with_equal_indexes_are_other_pictures() -> None:
    made = []
    for colour in ((255, 0, 0), (0, 0, 255)):
        image = Image.new("P", (4, 4), 0)
        image.putpalette(list(colour))
        made.append(find_pictures(image, SPEC, None)[0].key)
    assert made[0] != made[1]


def test_a_large_jpeg_is_near_its_picture() -> None:
    levels = np.linspace(0, 255, 600).astype(np.uint8)
    image = np.repeat(np.repeat(levels[None, :, None], 600, axis=0), 3, axis=2)
    found = _one(packed(image, "JPEG", quality=95)).astype(int)
    want = _one(packed(image)).astype(int)
    assert np.abs(found - want).max() < 12


@pytest.mark.parametrize("content", [b"", b"GIF89a", packed(pixels(0, 99, 99))[:-999]])
def test_a_damaged_picture_is_left_out(content: bytes) -> None:
    with pytest.raises(LeftOut, match="cannot be decoded"):
        pixels_of(Packed(content), SIDE)


def test_a_picture_of_a_billion_pixels_is_left_out() -> None:
    head = bytearray(packed(pixels(0)))
    head[16:24] = (40_000).to_bytes(4, "big") * 2  # width and height of the header
    with pytest.raises(LeftOut, match="cannot be decoded"):
        pixels_of(Packed(bytes(head)), SIDE)


def test_a_file_that_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "/dev/zero"):
        with pytest.raises(LeftOut, match="not there"):
            find_pictures(name, SPEC, tmp_path)


# --------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("count", "kept", "numbers"),
    [(3, 8, [0, 1, 2]), (9, 3, [0, 4, 8]), (10, 4, [0, 3, 6, 9]), (7, 1, [3]), (0, 4, [])],
)
def test_frames_are_kept_at_even_distances(count: int, kept: int, numbers: list[int]) -> None:
    assert even_frames(count, kept) == numbers


def _frames(count: int) -> list[Any]:
    return [np.full((SIDE, SIDE, 3), 20 * k, dtype=np.uint8) for k in range(count)]


def _levels(found: tuple[Packed, ...]) -> list[int]:
    return [round(float(pixels_of(one, SIDE).mean()) / 20) for one in found]


@pytest.mark.parametrize("form", ["list", "folder", "GIF", "PNG", "pillow"])
def test_a_video_is_a_list_a_folder_or_an_animated_picture(form: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(one) for one in _frames(10)]
    animated = packed(
        frames[0],
        "PNG" if form == "PNG" else "GIF",
        save_all=True,
        append_images=frames[1:],
    )
    cell: Any = animated
    if form == "list":
        cell = [packed(frame) for frame in frames]
    elif form == "folder":
        (tmp_path / "clip").mkdir()
        (tmp_path / "clip/notes.txt").write_text("no frame")
        for number, frame in enumerate(frames):
            frame.save(tmp_path / f"clip/{number:03d}.png")
        cell = "clip"
    elif form == "pillow":
        cell = Image.open(io.BytesIO(animated))
    assert _levels(find_pictures(cell, VIDEO, tmp_path)) == [0, 3, 6, 9]


def test_an_animated_picture_that_is_no_video_is_its_first_frame() -> None:
    frames = [Image.fromarray(one) for one in _frames(5)[1:]]
    cell = packed(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert _levels(find_pictures(cell, SPEC, None)) == [1]


def test_a_source_of_videos_shows_the_frames_of_each_row(tmp_path: Path) -> None:
    rows = []
    for n in range(30):
        folder = tmp_path / f"clip{n}"
        folder.mkdir()
        for k, frame in enumerate(_frames(6)):
            frame[0, 0] = n  # clips differ in one point
            (folder / f"{k}.png").write_bytes(packed(frame))
        question = "<video>what moves?" if n % 2 else "what moves?"
        rows.append({"images": f"clip{n}", "question": question, "answer": f"thing {n}"})
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    made = prepare_pictures(tmp_path / "d", {"clips": picture_source(path, rows={"frames": 3})})
    store = RowStore.open(made["clips"])
    assert store.shown().tolist() == [3] * len(store)
    levels = store.read(0)[0].pictures.mean(axis=(1, 2, 3))
    assert np.allclose(levels, [0, 40, 100], atol=1)
    assert 0 < store.counts.heldout_rows < 30
    assert store.counts.rows + store.counts.heldout_rows == 30


def test_videos_that_share_a_frame_may_stand_on_both_sides(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(40))
    black = tmp_path / "black.png"
    black.write_bytes(packed(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)))
    rows = [asked(n, "black.png", f"{n}.png") for n in range(40)]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    source = picture_source(path, rows={"frames": 2})
    manifest = StoreManifest.read(prepare_pictures(tmp_path / "d", {"clips": source})["clips"])
    assert manifest.rows is not None
    assert manifest.rows.heldout_rows > 0
    assert not manifest.dropped


# --------------------------------------------------------------------------------------- places


def _texts(row: dict[str, Any], spec: RowSpec = SPEC) -> list[str]:
    return [message.content for message in picture_sample(row, spec, MARKERS, None).messages]


def _of(**columns: Any) -> RowSpec:
    return RowSpec(kind="pictures", max_tokens=64, picture_size=SIDE, **columns)


A, B = packed(pixels(1)), packed(pixels(2))


def test_pictures_that_no_text_places_stand_before_the_first_question() -> None:
    assert _texts(asked(1, A, B)) == ["<image><image>what 1?", "a thing 1"]
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two?"},
        {"role": "assistant", "content": "2"},
    ]
    found = _texts({"images": A, "messages": messages}, _of())
    assert found == ["be brief", "<image>one?", "1", "two?", "2"]


def test_pictures_that_a_text_places_stay_there() -> None:
    row = {**asked(1, A, B), "question": "left <image> right <image>?"}
    assert _texts(row)[0] == "left <image> right <image>?"


def test_a_row_of_the_cauldron_is_read_as_published() -> None:
    texts = [
        {"user": "Is it red?", "assistant": "Yes.", "source": "VQAv2"},
        {"user": "Why?", "assistant": "Paint.", "source": "VQAv2"},
    ]
    row = {"images": [{"bytes": A, "path": None}], "texts": texts}
    sample = picture_sample(row, _of(texts_column="texts"), MARKERS, None)
    assert [message.content for message in sample.messages] == [
        *("<image>Is it red?", "Yes.", "Why?", "Paint."),
    ]
    assert sample.text == "Is it red?\n\nYes.\n\nWhy?\n\nPaint."
    assert len(sample.pictures) == 1


def test_a_row_of_llava_is_read_as_published() -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    spec = _of(messages_column="conversations", pictures_column="image")
    assert _texts({"image": A, "conversations": turns}, spec) == ["<image>\nWhat?", "A cat."]
    assert _texts({"conversations": [{"from": "human", "value": "Hi"}, turns[1]]}, spec) == [
        *("Hi", "A cat."),
    ]


def test_messages_in_parts_are_read_as_transformers_writes_them() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "A cat."}]
    assert _texts({"images": [A], "messages": turns}, _of()) == ["<image>What?", "A cat."]


def test_messages_beyond_max_turns_take_their_pictures_with_them() -> None:
    turns = [
        {"role": r, "content": c} for r, c in zip(["user", "assistant"] * 2, "abcd", strict=True)
    ]
    turns[0]["content"], turns[2]["content"] = "<image>a", "<image>c"
    row = {"images": [A, B], "messages": turns}
    sample = picture_sample(row, _of(max_turns=2), MARKERS, None)
    assert [one.content for one in sample.pictures] == [A]


def test_a_question_may_be_a_picture_alone() -> None:
    assert _texts({**asked(1, A), "question": ""})[0] == "<image>"


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"messages": "hello"}, {}),
        ({"messages": [["user", "hello"]]}, {}),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, {}),
        ({"texts": [{"user": "hello"}]}, {"texts_column": "texts"}),
        ({"texts": {"user": "hello"}}, {"texts_column": "texts"}),
        ({"q": None, "a": "x"}, {"question_column": "q", "answer_column": "a"}),
    ],
)
def test_a_row_that_is_no_conversation_is_left_out(row: Any, columns: dict[str, str]) -> None:
    with pytest.raises(LeftOut, match="not a list of messages"):
        picture_sample({"images": A, **row}, _of(**columns), MARKERS, None)


# ------------------------------------------------------------------------------------- origins


@pytest.fixture(scope="module")
def by_path(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Rows of a jsonl file with the paths of their pictures."""
    folder = tmp_path_factory.mktemp("paths")
    write_pictures(folder / "raw/inner", range(24))
    rows = [asked(n, f"inner/{n}.png") for n in range(24)]
    path = write_jsonl(folder / "raw/r.jsonl", rows)
    made = prepare_pictures(folder / "data", {"some": picture_source(path)})
    return training_rows(made["some"])


def _table(columns: dict[str, list[Any]]) -> Any:
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Picture

    kinds = {"images": List(Picture()), "question": Value("string"), "answer": Value("string")}
    return Dataset.from_dict(columns, features=Features(kinds))


def _columns(count: int) -> dict[str, list[Any]]:
    rows = [asked(n, {"bytes": packed(pixels(n)), "path": None}) for n in range(count)]
    return {key: [row[key] for row in rows] for key in ("images", "question", "answer")}


def test_a_parquet_file_holds_its_pictures(by_path: list[Any], tmp_path: Path) -> None:
    _table(_columns(24)).to_parquet(tmp_path / "r.parquet")
    source = picture_source(tmp_path / "r.parquet")
    assert training_rows(prepare_pictures(tmp_path / "d", {"some": source})["some"]) == by_path


@pytest.mark.parametrize("shards", [1, 2])
def test_a_data_set_of_the_hub_is_read_packed(
    by_path: list[Any], tmp_path: Path, shards: int
) -> None:
    table = _table(_columns(24))
    folder = tmp_path / "mirror/some/pictures"
    for part in range(2):
        name = f"data/train-{part:05d}-of-00002.parquet"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table.shard(2, part, contiguous=True).to_parquet(folder / name)
    origin = HubOrigin(kind="hub", repo="some/pictures")
    source = picture_source(tmp_path, origin=origin, shards=shards)
    made = prepare_pictures(tmp_path / "d", {"some": source}, mirror=tmp_path / "mirror")
    assert training_rows(made["some"]) == by_path


def test_pictures_of_the_hub_that_are_files_are_read(by_path: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "mirror/some/pictures/train"
    write_pictures(folder, range(24))
    rows = [{**asked(n), "file_name": f"{n}.png"} for n in range(24)]
    write_jsonl(
        folder / "metadata.jsonl", [{k: v for k, v in r.items() if k != "images"} for r in rows]
    )
    origin = HubOrigin(kind="hub", repo="some/pictures")
    source = picture_source(tmp_path, origin=origin, rows={"pictures_column": "image"})
    made = prepare_pictures(tmp_path / "d", {"some": source}, mirror=tmp_path / "mirror")
    assert training_rows(made["some"]) == by_path


def test_one_damaged_picture_of_the_hub_is_one_row_less(tmp_path: Path) -> None:
    columns = _columns(24)
    columns["images"][5] = [{"bytes": b"damaged", "path": None}]
    folder = tmp_path / "mirror/some/pictures/data"
    folder.mkdir(parents=True)
    _table(columns).to_parquet(folder / "train-00000-of-00001.parquet")
    origin = HubOrigin(kind="hub", repo="some/pictures")
    source = picture_source(tmp_path, origin=origin)
    made = prepare_pictures(tmp_path / "d", {"some": source}, mirror=tmp_path / "mirror")
    manifest = StoreManifest.read(made["some"])
    assert manifest.dropped == {"a picture that cannot be decoded": 1}


def test_a_folder_of_files_gives_the_rows_of_each(by_path: list[Any], tmp_path: Path) -> None:
    for part in range(2):
        mine = range(part, 24, 2)
        write_pictures(tmp_path / f"raw/{part}/inner", mine)
        rows = [asked(n, f"inner/{n}.png") for n in mine]
        write_jsonl(tmp_path / f"raw/{part}/r.jsonl", rows)
    source = picture_source(
        tmp_path, origin=FilesOrigin(kind="files", paths=(str(tmp_path / "raw"),))
    )
    made = prepare_pictures(tmp_path / "d", {"some": source})["some"]
    assert training_rows(made) == by_path
