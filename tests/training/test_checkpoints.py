from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ablations.errors import CheckpointError, DamagedError
from ablations.record.checksums import damage, has_checksums
from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    Topology,
    checkpoint_steps,
    delete,
    is_whole,
    newest,
    prune,
    read_state,
    reference,
    remove_torn,
    require_intact,
    require_whole,
    set_damaged_aside,
    write_state,
)

TOPOLOGY = Topology(tp=1, pp=1, zero_stage=0, dp=1, dtype="float32")


def write_checkpoint(folder: Path, step: int) -> Path:
    """Write the files that is_whole reads, in nanotron's layout."""
    checkpoint = folder / str(step)
    (checkpoint / "model" / "head").mkdir(parents=True)
    save_file({"data": torch.ones(4)}, checkpoint / "model" / "head" / "model_weight.safetensors")
    for name in ("checkpoint_metadata.json", "model_config.json"):
        (checkpoint / name).write_text("{}")
    return checkpoint


def test_only_whole_checkpoints_are_listed_in_order(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        write_checkpoint(tmp_path, step)
    (write_checkpoint(tmp_path, 400) / "model_config.json").unlink()
    (tmp_path / PARTIAL / "500").mkdir(parents=True)
    assert checkpoint_steps(tmp_path) == (3, 20, 100)
    assert newest(tmp_path) == tmp_path / "100"


def test_no_folder_holds_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_steps(tmp_path / "none") == ()
    assert newest(tmp_path / "none") is None
    assert remove_torn(tmp_path / "none") == ()


@pytest.mark.parametrize(
    "damage", ["config cut", "metadata gone", "tensor cut", "tensor empty", "no tensor"]
)
def test_a_torn_checkpoint_is_not_whole(tmp_path: Path, damage: str) -> None:
    checkpoint = write_checkpoint(tmp_path, 1)
    tensor = next(checkpoint.rglob("*.safetensors"))
    if damage == "config cut":
        (checkpoint / "model_config.json").write_text('{"vocab')
    elif damage == "metadata gone":
        (checkpoint / "checkpoint_metadata.json").unlink()
    elif damage == "tensor cut":
        tensor.write_bytes(tensor.read_bytes()[:-3])
    elif damage == "tensor empty":
        tensor.write_bytes(b"")
    else:
        tensor.unlink()
    assert not is_whole(checkpoint)
    assert remove_torn(tmp_path) == ("1",)
    assert not checkpoint.exists()


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    (tmp_path / PARTIAL / "9").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert remove_torn(tmp_path) == (PARTIAL,)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["5", "notes"]


def test_a_missing_checkpoint_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"no such checkpoint.*here: 5"):
        require_whole(tmp_path / "7")


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = CheckpointState(
        step=5,
        samples=40,
        topology=TOPOLOGY,
        threads=2,
        micro_batch_size=8,
        windows=((1, 2), (3, 4)),
    )
    checkpoint = write_checkpoint(tmp_path, 5)
    assert read_state(checkpoint) is None
    write_state(checkpoint, state)
    assert read_state(checkpoint) == state


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tp": 2}, ["tp"]),
        ({"pp": 2, "dtype": "bfloat16"}, ["pp", "dtype"]),
        ({"dp": 2}, []),
        ({"zero_stage": 1, "dp": 2}, ["zero_stage", "dp"]),
    ],
)
def test_a_topology_differs_where_the_optimiser_is_cut(
    change: dict[str, object], expected: list[str]
) -> None:
    other = Topology(**{**vars(TOPOLOGY), **change})
    assert TOPOLOGY.differences(other) == expected


@pytest.mark.parametrize(
    ("keep", "scored", "final", "gone"),
    [
        ("all", (1, 2, 3), 3, ()),
        ("last", (1, 2, 3), 3, (1, 2)),
        ("last", (2,), None, (2,)),
        ("none", (1, 2, 3), 3, (1, 2, 3)),
        ("none", (1, 2, 3), None, (1, 2)),
        ("none", (), 3, ()),
    ],
)
def test_retention_deletes_scored_checkpoints_by_its_rule(
    tmp_path: Path, keep: str, scored: tuple[int, ...], final: int | None, gone: tuple[int, ...]
) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)
    assert prune(tmp_path, keep=keep, scored=scored, final_step=final) == gone  # type: ignore[arg-type]
    assert checkpoint_steps(tmp_path) == tuple(step for step in (1, 2, 3) if step not in gone)


def test_retention_never_deletes_what_another_run_began_from(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)
    reference(tmp_path / "2", tmp_path / "other_run")
    assert prune(tmp_path, keep="none", scored=(1, 2, 3), final_step=3) == (1, 3)
    note = json.loads(next((tmp_path / "2" / "referenced_by").iterdir()).read_text())
    assert note == {"run": str(tmp_path / "other_run")}


# --------------------------------------------------------------------------------- damaged files

STATE = CheckpointState(
    step=1, samples=8, topology=TOPOLOGY, threads=1, micro_batch_size=8, windows=((1, 2),)
)
FILES = (
    "model/head/model_weight.safetensors",
    "optimizer/optimizer.pt",
    "model_config.json",
    "state.json",
    "checksums.json",
)


def write_sealed_checkpoint(folder: Path, step: int) -> Path:
    """Write a checkpoint with an optimiser, a state and checksums, as a trainer does."""
    checkpoint = write_checkpoint(folder, step)
    (checkpoint / "optimizer").mkdir()
    (checkpoint / "optimizer" / "optimizer.pt").write_bytes(bytes(range(256)))
    write_state(checkpoint, replace(STATE, step=step))
    return checkpoint


def harm(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[-20 if path.suffix == ".json" and len(content) > 20 else -1] ^= 1
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how != "missing":
        kept = {"flip": content, "cut": content[: len(content) // 2], "empty": b""}
        path.write_bytes(kept[how])


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "missing", "folder", "loop"])
@pytest.mark.parametrize("file", FILES)
def test_of_a_damaged_checkpoint_the_older_whole_one_is_taken(
    tmp_path: Path, file: str, how: str
) -> None:
    for step in (4, 8):
        write_sealed_checkpoint(tmp_path, step)
    harm(tmp_path / "8" / file, how)
    remove_torn(tmp_path)
    aside = set_damaged_aside(tmp_path)
    assert set(aside) <= {8}
    last = newest(tmp_path)
    assert last is not None
    if (file, how) == ("checksums.json", "missing"):
        # Without checksums it is one of an older version: everything else in it is whole.
        assert last.name == "8"
        return
    assert last.name == "4"
    assert not damage(last)
    if 8 in aside:
        assert (tmp_path / "damaged-8").is_dir()
        assert "kept as damaged-8" in aside[8]


def test_a_checkpoint_without_checksums_is_taken_once_and_compared_from_then_on(
    tmp_path: Path,
) -> None:
    for step in (4, 8):
        (write_sealed_checkpoint(tmp_path, step) / "checksums.json").unlink()
    assert set_damaged_aside(tmp_path) == {}
    assert has_checksums(tmp_path / "8")
    assert not has_checksums(tmp_path / "4")
    harm(tmp_path / "8" / FILES[1], "flip")
    assert list(set_damaged_aside(tmp_path)) == [8]
    assert newest(tmp_path) == tmp_path / "4"


def test_references_are_no_damage(tmp_path: Path) -> None:
    checkpoint = write_sealed_checkpoint(tmp_path, 4)
    reference(checkpoint, tmp_path / "other")
    assert damage(checkpoint) == []


def test_a_start_from_weights_alone_does_not_ask_for_the_optimiser(tmp_path: Path) -> None:
    checkpoint = write_sealed_checkpoint(tmp_path, 4)
    harm(checkpoint / FILES[1], "flip")
    require_intact(checkpoint, weights_only=True)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt: not what was written"):
        require_intact(checkpoint, weights_only=False)
    harm(checkpoint / FILES[0], "flip")
    with pytest.raises(CheckpointError, match=r"model_weight\.safetensors: not what was written"):
        require_intact(checkpoint, weights_only=True)


def test_what_cannot_be_read_is_not_removed(tmp_path: Path) -> None:
    checkpoint = write_sealed_checkpoint(tmp_path, 4)
    harm(checkpoint / FILES[0], "loop")
    assert remove_torn(tmp_path) == ()
    assert (tmp_path / "damaged-4" / "optimizer" / "optimizer.pt").exists()


def test_a_deletion_during_which_the_process_dies_leaves_no_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_sealed_checkpoint(tmp_path, 4)

    def dies(folder: Path) -> None:
        (folder / "optimizer" / "optimizer.pt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        delete(checkpoint)
    assert not is_whole(checkpoint)


@pytest.mark.parametrize("content", ['{"step": 1}', "[1, 2]", '{"topology": {"tp": 1}}'])
def test_another_content_is_a_damaged_state(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(DamagedError, match=r"state\.json"):
        read_state(tmp_path)
