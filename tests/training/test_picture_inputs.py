"""Rows with pictures as the model takes them: blocks, labels, pixels, and text that names the token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ablations.data.store import TokenStore
from ablations.errors import DataError
from ablations.training.vlm.picture_feed import TextWindows
from ablations.training.vlm.picture_inputs import IGNORED, PictureBlock, pixel_values
from tests.oracles.chats import make_base_tokenizer
from tests.oracles.stores import write_store

BLOCK = PictureBlock(picture_id=9, ids=(7, 8, 9, 9, 7))


@pytest.mark.parametrize(
    ("tokens", "ids"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([9, 1], [7, 8, 9, 9, 7, 1]),
        ([1, 9, 9, 2], [1, 7, 8, 9, 9, 7, 7, 8, 9, 9, 7, 2]),
        ([1, 9], [1, 7, 8, 9, 9, 7]),
    ],
)
def test_a_placeholder_becomes_a_block_that_the_loss_does_not_count(
    tokens: list[int], ids: list[int]
) -> None:
    found, labels = BLOCK.expand(tokens, [True] * len(tokens))
    assert found.tolist() == ids
    assert labels.tolist() == [one if one not in (7, 8, 9) else IGNORED for one in ids]
    assert found.size == len(tokens) + BLOCK.added * tokens.count(9)
    _, answers = BLOCK.expand(tokens, [False] * (len(tokens) - 1) + [True])
    counted = 0 if tokens[-1] == 9 else 1
    assert int((answers != IGNORED).sum()) == counted


def test_the_block_is_that_of_smolvlms_processor(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    from ablations.data.tokenizer import make_tokenizer
    from tests.oracles.vision_rows import VISION_TOKENIZER

    make_base_tokenizer(tmp_path)
    made = make_tokenizer(VISION_TOKENIZER, tmp_path / "tokenizers", [])
    folder = tmp_path / "tokenizers" / made.name
    block = PictureBlock.of(folder, 2)
    text = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(
        list(block.ids), skip_special_tokens=False
    )
    assert text.replace(" ", "") == (
        "<fake_token_around_image><global-img><image><image><fake_token_around_image>"
    )
    with pytest.raises(DataError, match="has no tokens for pictures"):
        PictureBlock.of(tmp_path / "tokenizers/tiny", 2)


def test_pixels_are_those_of_idefics3_and_never_zero() -> None:
    every = np.arange(256, dtype=np.uint8)
    picture = np.resize(every, (1, 3, 16, 16))
    black = np.zeros((1, 3, 16, 16), dtype=np.uint8)
    none = np.zeros((0, 3, 0, 0), dtype=np.uint8)
    found = pixel_values([picture, none, black])
    assert found is not None
    assert tuple(found.shape) == (1, 2, 3, 16, 16)
    wanted = (picture.astype(np.float64) / 255 - 0.5) / 0.5
    assert np.abs(found[0, :1].numpy() - wanted).max() < 1e-6
    assert (found != 0).all()
    assert (found[0, 1] == -1).all()
    assert pixel_values([none, none]) is None


def test_a_text_that_names_the_token_shows_no_picture(tmp_path: Path) -> None:
    store = TokenStore.open(write_store(tmp_path / "web", vocab_size=64, tokens=4000, seed=0))
    windows = TextWindows(store, 32, picture_id=5, other_id=0)
    held = 0
    assert len(windows) == store.num_windows(31)
    for number in range(len(windows)):
        (row,) = windows.read(number)
        whole = store.read([number], 31)[0]
        assert row.tokens.size == 32
        assert not row.mask[0]
        written = whole == 5
        held += int(written.sum())
        assert (row.tokens[written] == 0).all()
        assert (row.tokens[~written] == whole[~written]).all()
        assert (row.mask[1:] == ~written[1:]).all()
    assert held > 0
    assert set(windows.lengths(supervised=True).tolist()) == {31}
    assert set(windows.lengths(supervised=False).tolist()) == {32}
