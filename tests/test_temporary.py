"""Names to write under: one writer each, and what a killed writer left goes with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.files import replacing, write_text
from ablations.temporary import claimed_file, making_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from ablations.files import replacing
from ablations.temporary import making_folder
path = Path(sys.argv[2])
if sys.argv[1] == "file":
    with replacing(path) as temporary:
        temporary.write_text("longer than what comes after")
        os.kill(os.getpid(), signal.SIGKILL)
with making_folder(path) as building:
    (building / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(kind: str, path: Path) -> None:
    """Leave what a writer that is killed leaves."""
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 1


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_writer_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    killed("file", tmp_path / "a.json")
    write_text(tmp_path / "a.json", "new")
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_the_next_maker_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    killed("folder", tmp_path / "a")
    with making_folder(tmp_path / "a") as building:
        assert names(tmp_path) == [building.name]
        assert names(building) == []
        building.rename(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_two_writers_at_once_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert first != second
        assert first.read_text() == "first"
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_two_makers_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    with making_folder(tmp_path / "a") as first, making_folder(tmp_path / "a") as second:
        assert len({first, second}) == 2
        assert first.is_dir()
    assert names(tmp_path) == []


def test_a_name_that_was_given_away_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with claimed_file(path) as first:
        first.rename(path)
        with claimed_file(path) as second:
            assert second == first  # the name is free, and the lock of another file
    assert names(tmp_path) == ["a"]
    with claimed_file(path) as first:
        first.rename(path)
        first.write_text("another writer's")
    assert names(tmp_path) == sorted([first.name, "a"])


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    with claimed_file(tmp_path / "a") as usual:
        pass
    other = tmp_path / "other"
    other.write_text("mine")
    usual.symlink_to(other)
    write_text(tmp_path / "a", "new")
    assert other.read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_block_that_raises_leaves_nothing(tmp_path: Path, kind: str) -> None:
    making = replacing if kind == "file" else making_folder
    with pytest.raises(ZeroDivisionError), making(tmp_path / "a"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
