"""A preparation of pictures that dies at any moment goes on to the same store."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablations.data.finalize import Finish
from tests.oracles.drawn import (
    heldout_items,
    picture_source,
    prepare_pictures,
    training_rows,
    write_shown,
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shown(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def folder(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("pictures")
    return prepare_pictures(data_dir, {"shown": picture_source(raw)})["shown"]


def test_a_last_step_that_died_is_made_again(
    raw: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(Finish, "_put_in_place", _die)
        with pytest.raises(KeyboardInterrupt):
            prepare_pictures(tmp_path, {"shown": picture_source(raw, shards=2)})
    made = prepare_pictures(tmp_path, {"shown": picture_source(raw, shards=2)})["shown"]
    assert training_rows(made) == training_rows(folder)
    assert heldout_items(made) == heldout_items(folder)
    assert {path.name for path in made.iterdir()} == {
        *("manifest.json", "train", "heldout.jsonl", "heldout.pictures"),
    }


def test_a_rank_that_died_begins_anew(
    raw: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablations.data.rows.rank_pictures import RankPictures

    write, calls = RankPictures.train, []

    def dying(self: RankPictures, *args: Any) -> None:
        write(self, *args)
        calls.append(1)
        if len(calls) == 60:  # in the second rank, between pictures and their row's counts
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RankPictures, "train", dying)
        with pytest.raises(KeyboardInterrupt):
            prepare_pictures(tmp_path, {"shown": picture_source(raw, shards=2)})
    made = prepare_pictures(tmp_path, {"shown": picture_source(raw, shards=2)})["shown"]
    assert training_rows(made) == training_rows(folder)
    assert heldout_items(made) == heldout_items(folder)


def _die(self: Finish) -> None:
    raise KeyboardInterrupt


_KILLED = """
import os, signal, sys
from pathlib import Path
from ablations.data.finalize import Finish
from ablations.data.rows.heldout_rows import _Merged
from ablations.data.rows.rank_pictures import RankPictures
from tests.oracles.drawn import picture_source, prepare_pictures

moment, left = sys.argv[3], int(sys.argv[4])
owner, name = {
    "a row": (RankPictures, "train"),
    "an item": (RankPictures, "aside"),
    "the merge": (_Merged, "numbers"),
    "the name": (Finish, "_put_in_place"),
}[moment]
whole = getattr(owner, name)

def dying(self, *args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, *args)

setattr(owner, name, dying)
prepare_pictures(Path(sys.argv[2]), {"shown": picture_source(Path(sys.argv[1]), shards=2)})
"""


@pytest.mark.parametrize(
    ("moment", "left"),
    [("a row", 0), ("a row", 50), ("an item", 3), ("the merge", 5), ("the name", 0)],
)
def test_killed_at_any_moment_the_same_store_is_made(
    raw: Path, folder: Path, tmp_path: Path, moment: str, left: int
) -> None:
    arguments = [str(raw), str(tmp_path), moment, str(left)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", _KILLED, *arguments], check=False, cwd=root)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "tiny_vision/shown").exists()
    made = prepare_pictures(tmp_path, {"shown": picture_source(raw, shards=2)})["shown"]
    assert training_rows(made) == training_rows(folder)
    assert heldout_items(made) == heldout_items(folder)
