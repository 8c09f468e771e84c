from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ablations.errors import CheckpointError
from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    Topology,
    checkpoint_steps,
    is_whole,
    newest,
    prune,
    read_state,
    reference,
    remove_torn,
    require_whole,
    write_state,
)

TOPOLOGY = Topology(tp=1, pp=1, zero_stage=0, dp=1, dtype="float32")


def write_checkpoint(folder: Path, step: int) -> Path:
    """What is_whole looks at, as nanotron lays it out."""
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
