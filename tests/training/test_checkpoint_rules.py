"""Check checkpoints of both layouts: what is whole, what is compared, what is kept, what may be deleted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ablations.errors import CheckpointError
from ablations.record.checksums import damage
from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    Topology,
    checkpoint_steps,
    delete,
    is_referenced,
    is_transformers,
    is_whole,
    newest,
    prune,
    read_state,
    reference,
    remove_torn,
    require_intact,
    set_damaged_aside,
    write_state,
)

TOPOLOGY = Topology(tp=1, pp=1, zero_stage=0, dp=1, dtype="float32")
STATE = CheckpointState(
    step=4, samples=8, topology=TOPOLOGY, threads=1, micro_batch_size=8, windows=((1, 2), (0, 3))
)


def write_checkpoint(folder: Path, step: int = 4) -> Path:
    """Write nanotron's layout: two tensor files, an optimiser, its descriptions."""
    checkpoint = folder / str(step)
    for part in ("model/head", "model/body", "optimizer"):
        (checkpoint / part).mkdir(parents=True)
    for part in ("head", "body"):
        save_file({"data": np.ones(4, np.float32)}, checkpoint / "model" / part / "w.safetensors")
    (checkpoint / "model" / "notes.txt").write_text("some text")
    (checkpoint / "optimizer" / "optimizer.pt").write_bytes(bytes(range(256)))
    for name in ("checkpoint_metadata.json", "model_config.json"):
        (checkpoint / name).write_text("{}")
    return checkpoint


def write_of_rows(folder: Path, step: int = 4) -> Path:
    """Write the layout of methods on rows: a transformers folder, with our state."""
    checkpoint = folder / str(step)
    checkpoint.mkdir(parents=True)
    for number in (1, 2):
        save_file({"data": np.ones(4, np.float32)}, checkpoint / f"model-{number}.safetensors")
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "optimizer.pt").write_bytes(bytes(range(256)))
    write_state(checkpoint, STATE)
    return checkpoint


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


# ---------------------------------------------------------------------------------------- whole or not


def test_both_layouts_are_whole_and_told_apart(tmp_path: Path) -> None:
    first, other = write_checkpoint(tmp_path), write_of_rows(tmp_path, 8)
    assert (is_transformers(first), is_transformers(other)) == (False, True)
    assert checkpoint_steps(tmp_path) == (4, 8)
    assert remove_torn(tmp_path) == ()


@pytest.mark.parametrize("part", ["head", "body"])
def test_one_cut_tensor_of_two_is_enough_to_be_torn(tmp_path: Path, part: str) -> None:
    checkpoint = write_checkpoint(tmp_path)
    file = checkpoint / "model" / part / "w.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert not is_whole(checkpoint)


@pytest.mark.parametrize(
    "how", ["config cut", "no state", "state cut", "first cut", "second cut", "no tensor"]
)
def test_a_torn_checkpoint_of_rows_is_not_whole(tmp_path: Path, how: str) -> None:
    checkpoint = write_of_rows(tmp_path)
    if how == "config cut":
        (checkpoint / "config.json").write_text('{"a')
    elif how == "no state":
        (checkpoint / "state.json").unlink()
    elif how == "state cut":
        (checkpoint / "state.json").write_text('{"a')
    elif how == "no tensor":
        for file in checkpoint.glob("*.safetensors"):
            file.unlink()
    else:
        file = checkpoint / f"model-{1 if how == 'first cut' else 2}.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    assert not is_whole(checkpoint)
    assert newest(tmp_path) is None
    assert remove_torn(tmp_path) == ("4",)


def test_a_checkpoint_that_cannot_be_read_is_not_whole(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    file = checkpoint / "model_config.json"
    file.unlink()
    file.symlink_to(file.name)
    assert not is_whole(checkpoint)


def tensor_file(header: object, data: int = 0, stated: int = 0) -> bytes:
    """Return a file of tensors; its header states ``stated`` bytes more than it has."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) + stated) + text + bytes(data)


TWO = {"v": {"data_offsets": [0, 8]}, "w": {"data_offsets": [8, 12]}}


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (tensor_file({}), True),  # the least there is: a header without a tensor
        (tensor_file({}, 1), False),
        (tensor_file(TWO, 12), True),
        (tensor_file(dict(reversed(TWO.items())), 12), True),
        (tensor_file(TWO, 11), False),
        (tensor_file(TWO, 13), False),
        (tensor_file(TWO, 8), False),
        (tensor_file({"__metadata__": {"data_offsets": [0, 9]}, **TWO}, 12), True),
        (tensor_file({"__metadata__": {"format": "pt"}}), True),
        (tensor_file({"w": {"data_offsets": [0, -1]}}, 0, 1), False),
        (tensor_file({"w": {"data_offsets": [0, -8]}}, 0, 8), False),
        (bytes(7), False),
        (bytes(8), False),
        (bytes(16), False),
        (struct.pack("<Q", 1) + b"1", False),
        (struct.pack("<Q", 2) + b"{", False),
        (struct.pack("<Q", 1 << 62) + b"{}", False),
    ],
)
def test_a_tensor_file_is_as_long_as_its_header_states(
    tmp_path: Path, content: bytes, whole: bool
) -> None:
    checkpoint = write_checkpoint(tmp_path)
    (checkpoint / "model" / "head" / "w.safetensors").write_bytes(content)
    assert is_whole(checkpoint) is whole


# --------------------------------------------------------------------------------------------- state


def test_a_state_counts_supervised_tokens_where_there_are_any(tmp_path: Path) -> None:
    counted = replace(STATE, supervised=((7, 8), (9, 10)))
    for number, state in enumerate((STATE, counted)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_state(folder, state)
        assert read_state(folder) == state
        stored = json.loads((folder / "state.json").read_text())
        assert ("supervised" in stored) is (state is counted)


def test_shares_of_the_moments_depend_on_either_side_s_stage() -> None:
    cut = replace(TOPOLOGY, zero_stage=1, dp=2)
    assert cut.differences(TOPOLOGY) == TOPOLOGY.differences(cut) == ["zero_stage", "dp"]
    assert cut.differences(replace(cut, dp=4)) == ["dp"]
    assert TOPOLOGY.differences(replace(TOPOLOGY, tp=2, pp=2, dtype="bfloat16")) == [
        "tp",
        "pp",
        "dtype",
    ]


# -------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("of_rows", "file", "needed"),
    [
        (False, "model/head/w.safetensors", True),
        (False, "model/notes.txt", True),
        (False, "model_config.json", True),
        (False, "checkpoint_metadata.json", False),
        (False, "optimizer/optimizer.pt", False),
        (True, "model-2.safetensors", True),
        (True, "config.json", True),
        (True, "optimizer.pt", False),
        (True, "state.json", False),
    ],
)
def test_a_start_from_weights_compares_what_it_reads(
    tmp_path: Path, of_rows: bool, file: str, needed: bool
) -> None:
    checkpoint = write_of_rows(tmp_path) if of_rows else write_checkpoint(tmp_path)
    write_state(checkpoint, STATE)
    require_intact(checkpoint, weights_only=False)
    flip(checkpoint / file)
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        require_intact(checkpoint, weights_only=False)
    if needed:
        with pytest.raises(CheckpointError, match=rf"here: damaged .*{Path(file).name}"):
            require_intact(checkpoint, "here", weights_only=True)
    else:
        require_intact(checkpoint, weights_only=True)


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (3, ""), (4, "; and 1 more"), (5, "; and 2 more")]
)
def test_three_damages_are_told_and_the_others_counted(
    tmp_path: Path, count: int, more: str
) -> None:
    checkpoint = write_checkpoint(tmp_path)
    for number in range(6):
        (checkpoint / f"part{number}").write_text("some text")
    write_state(checkpoint, STATE)
    for number in range(count):
        flip(checkpoint / f"part{number}")
    told = "; ".join(f"part{number}: not what was written" for number in range(min(3, count)))
    with pytest.raises(CheckpointError) as caught:
        require_intact(checkpoint, weights_only=False)
    (problem,) = caught.value.problems
    assert problem.found == f"{checkpoint}: {told}{more}"


def test_references_may_come_and_go_whoever_wrote_the_checksums(tmp_path: Path) -> None:
    ours, taken = write_checkpoint(tmp_path, 4), write_checkpoint(tmp_path, 8)
    for checkpoint in (ours, taken):
        reference(checkpoint, tmp_path / "other")
    write_state(ours, STATE)
    assert set_damaged_aside(tmp_path) == {}
    for checkpoint in (ours, taken):
        shutil.rmtree(checkpoint / "referenced_by")
        assert damage(checkpoint) == []
    flip(taken / "model" / "notes.txt")
    assert damage(taken) == ["model/notes.txt: not what was written"]


def test_a_second_damaged_checkpoint_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    for turn in range(2):
        checkpoint = write_checkpoint(tmp_path)
        (checkpoint / "turn").write_text(str(turn))
        write_state(checkpoint, STATE)
        flip(checkpoint / "optimizer" / "optimizer.pt")
        assert set_damaged_aside(tmp_path) == {
            4: "optimizer/optimizer.pt: not what was written; kept as damaged-4"
        }
    assert [entry.name for entry in tmp_path.iterdir()] == ["damaged-4"]
    assert (tmp_path / "damaged-4" / "turn").read_text() == "1"


def test_torn_checkpoints_are_named_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("7", "12", "3", PARTIAL, "5"):
        (tmp_path / name).mkdir()
    write_checkpoint(tmp_path, 9)
    listed = list(Path.iterdir(tmp_path))
    backwards = sorted(listed, key=lambda entry: entry.name, reverse=True)
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(backwards))
    assert remove_torn(tmp_path) == (PARTIAL, "12", "3", "5", "7")
    assert os.listdir(tmp_path) == ["9"]


# ----------------------------------------------------------------------------------------- retention


def test_a_reference_is_named_by_its_run(tmp_path: Path) -> None:
    checkpoint, run = write_checkpoint(tmp_path), tmp_path / "other run"
    assert not is_referenced(checkpoint)
    reference(checkpoint, run)
    reference(checkpoint, run)
    (note,) = (checkpoint / "referenced_by").iterdir()
    assert note.name == f"{hashlib.sha256(bytes(run.resolve())).hexdigest()[:16]}.json"
    assert json.loads(note.read_text()) == {"run": str(run.resolve())}
    reference(checkpoint, tmp_path / "third")
    assert len(list((checkpoint / "referenced_by").iterdir())) == 2
    assert is_referenced(checkpoint)


@pytest.mark.parametrize(
    ("keep", "scored", "final", "gone"),
    [
        ("none", (1, 2, 3), 4, (1, 2)),  # the run still trains on: its newest is needed
        ("none", (1, 2, 3), 2, (1, 2, 3)),
        ("last", (1, 2, 3), None, (1, 2)),
        ("last", (1, 2, 3), 4, (1, 2)),
        ("last", (3,), 3, ()),
        ("none", (3,), 3, (3,)),
        ("all", (1, 2, 3), None, ()),
    ],
)
def test_the_newest_is_kept_as_long_as_training_may_need_it(
    tmp_path: Path, keep: str, scored: tuple[int, ...], final: int | None, gone: tuple[int, ...]
) -> None:
    for step in (1, 2, 3):
        write_of_rows(tmp_path, step)
    assert prune(tmp_path, keep=keep, scored=scored, final_step=final) == gone  # type: ignore[arg-type]
    assert checkpoint_steps(tmp_path) == tuple(step for step in (1, 2, 3) if step not in gone)


def test_of_a_deletion_that_dies_nothing_counts_as_a_checkpoint_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_of_rows(tmp_path)

    def dies(folder: Path) -> None:
        raise KeyboardInterrupt(str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            delete(checkpoint)
    assert not is_whole(checkpoint)
    assert not (checkpoint / "config.json").exists()
    other = write_of_rows(tmp_path, 8)
    delete(other)
    assert not other.exists()
