"""Check the files of each format byte by byte: several blocks, both widths, tails, stages and layouts."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ablations.data.manifest import StoreFile, edges_sha256, file_sha256
from ablations.errors import ConfigError, DataError
from sweeps.exporters import litdata, megatron, mosaicml, nanotron, olmo_core, tokens
from sweeps.exporters.export_folder import write_export
from sweeps.exporters.export_plan import Export, ExportPlan, Source
from sweeps.exporters.origin import plan_of_config
from tests.sweeps.exporters.conftest import LENGTH, SOURCES, config_values, small_store

Plans = Callable[[int], ExportPlan]
WINDOW = LENGTH + 1
WIDTHS = [2, 4]


def export_of(plan: ExportPlan, source: Source, format_name: str, folder: Path) -> Export:
    """Return an export whose sources are all the same store; its folders are made."""
    for part in ("stages", "tokens"):
        (folder / part).mkdir(parents=True)
    sources = {name: replace(source, name=name) for name in SOURCES}
    return Export(plan=plan, format=format_name, sources=sources, tokens="copy", root="/read")


def second_file(source: Source, content: list[int]) -> Source:
    """Add a token file of one document to a store."""
    assert source.folder is not None
    assert source.manifest is not None
    width = source.manifest.token_bytes
    path = source.folder / "train/00001_tokens.ds"
    np.array(content, f"<u{width}").tofile(path)
    np.array([len(content)], "<u8").tofile(path.with_name(f"{path.name}.index"))
    file = StoreFile(
        name=path.name,
        tokens=len(content),
        documents=1,
        sha256=file_sha256(path),
        edges_sha256=edges_sha256(path),
    )
    made = replace(source.manifest, files=(*source.manifest.files, file))
    return replace(source, manifest=made)


def staged(data_dir: Path, *shares: float) -> ExportPlan:
    """Return a plan with stages of these shares, named after their numbers."""
    values = config_values(data_dir)
    weights = dict(zip(SOURCES, (0.6, 0.3, 0.1), strict=True))
    stages = {f"s{n}": {"share": share, "weights": weights} for n, share in enumerate(shares)}
    values["schedule"] = {**values["schedule"], "stages": stages}
    return plan_of_config(values)


# ------------------------------------------------------------------------------- windows in chunks


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tail", [0, 1, 5])
def test_a_chunk_of_litdata_is_whole_windows_and_the_tail_comes_last(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, tail: int
) -> None:
    size = WINDOW * width
    monkeypatch.setattr(litdata, "_CHUNK_BYTES", 2 * size + 7)
    content = [*range(1, 3 * WINDOW + tail), 0]
    source = second_file(small_store(tmp_path / "s", content, [len(content)], width), [1] * WINDOW)
    litdata.write(export_of(made_plan(width), source, "litdata", tmp_path / "x"), tmp_path / "x")
    folder = tmp_path / "x/tokens" / SOURCES[0]
    index = json.loads((folder / "index.json").read_text())
    last = [size, tail * width][: 1 + (tail > 0)]
    items = [[size, size], last, [size]]
    stored = np.array([*content, *[1] * WINDOW], f"<u{width}").tobytes()
    for number, (sizes, row) in enumerate(zip(items, index["chunks"], strict=True)):
        header = 4 * (len(sizes) + 2)
        offsets = [header + sum(sizes[:n]) for n in range(len(sizes) + 1)]
        made = struct.pack(f"<{len(sizes) + 2}I", len(sizes), *offsets) + stored[: sum(sizes)]
        stored = stored[sum(sizes) :]
        assert (folder / f"chunk-0-{number}.bin").read_bytes() == made
        assert row == {
            "chunk_bytes": len(made),
            "chunk_size": len(sizes),
            "dim": sum(sizes) // width,
            "filename": f"chunk-0-{number}.bin",
        }
    assert stored == b""
    assert index["config"]["data_format"] == [f"no_header_tensor:{ {2: 20, 4: 15}[width] }"]
    assert index["config"]["chunk_bytes"] == 2 * size + 7
    stage = json.loads((tmp_path / "x/stages/2_decay.json").read_text())
    assert (stage["block_size"], stage["samples"], stage["weights"]) == (33, 3000, [0.1, 0.9])


@pytest.mark.parametrize("width", WIDTHS)
def test_a_shard_of_mosaicml_is_whole_windows_and_no_tail(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    size = WINDOW * width
    monkeypatch.setattr(mosaicml, "_SHARD_BYTES", 2 * size + 7)
    content = [*range(1, 4 * WINDOW + 5), 0]
    whole = small_store(tmp_path / "s", content, [len(content)], width)
    source = second_file(whole, [1] * (WINDOW - 1))
    mosaicml.write(export_of(made_plan(width), source, "mosaicml", tmp_path / "x"), tmp_path / "x")
    folder = tmp_path / "x/tokens" / SOURCES[2]
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    stored = np.array(content, f"<u{width}").tobytes()
    for number, row in enumerate(index["shards"]):
        own = {key: row[key] for key in row if key not in ("raw_data", "samples", "zip_data")}
        assert own["column_encodings"] == [f"ndarray:uint{8 * width}:33"]
        assert own["column_sizes"] == [size]
        described = json.dumps(own, sort_keys=True).encode()
        head = 16 + len(described)
        made = struct.pack("<4I", 2, head, head + size, head + 2 * size) + described
        made += stored[2 * size * number : 2 * size * (number + 1)]
        name = f"shard.0000{number}.mds"
        assert (folder / name).read_bytes() == made
        assert row["raw_data"] == {"basename": name, "bytes": len(made), "hashes": {}}
        assert (row["samples"], row["zip_data"]) == (2, None)
    assert len(index["shards"]) == 2
    assert len(list(folder.iterdir())) == 3


# ------------------------------------------------------------------------------------------- megatron


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("ends_at_once", "numbers_at_once"), [(1, 1), (3, 2), (2, 4), (9, 9)])
def test_the_index_of_megatron_does_not_depend_on_the_blocks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    ends_at_once: int,
    numbers_at_once: int,
) -> None:
    monkeypatch.setattr(tokens, "BLOCK_BYTES", 8 * ends_at_once)
    monkeypatch.setattr(megatron, "_BLOCK", numbers_at_once)
    content = [0, 3, 0, 5, 5, 0, 7, 0, 9, 9, 9, 0]
    source = small_store(tmp_path / "s", content, [1, 3, 6, 8, 12], width)
    stream = io.BytesIO()
    megatron.write_index(source, source.files[0], stream)
    starts = [0, width, 3 * width, 6 * width, 8 * width]
    assert stream.getvalue() == (
        b"MMIDIDX\x00\x00"
        + struct.pack("<QB", 1, {2: 8, 4: 4}[width])
        + struct.pack("<QQ", 5, 6)
        + struct.pack("<5i", 1, 2, 3, 2, 4)
        + struct.pack("<5q", *starts)
        + struct.pack("<6q", 0, 1, 2, 3, 4, 5)
    )


@pytest.mark.parametrize("lengths", [(1, 2**31), (2**31, 1)])
def test_one_document_too_long_for_megatron_among_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, int]
) -> None:
    source = small_store(tmp_path / "s", [1, 0], [2])
    monkeypatch.setattr(megatron, "document_ends", lambda *_: iter([np.cumsum(lengths)]))
    with pytest.raises(DataError, match=f"too long for Megatron.*{2**31}"):
        megatron.write_index(source, source.files[0], io.BytesIO())


@pytest.mark.parametrize(
    ("shares", "ends"),
    [
        ((1.0,), None),
        ((0.5, 0.5), "750"),
        ((0.25, 0.25, 0.5), "375,750"),
        ((0.25,) * 4, "375,750,1125"),
    ],
)
def test_a_phase_of_megatron_ends_with_each_stage_but_the_last(
    made_stores: Mapping[int, Path], tmp_path: Path, shares: tuple[float, ...], ends: str | None
) -> None:
    plan = staged(made_stores[2], *shares)
    folder, _ = write_export(plan, "megatron", out=tmp_path, tokens="none")
    for number in range(len(shares)):
        lines = (folder / f"stages/{number + 1}_s{number}.args").read_text().splitlines()
        found = dict(line.split(" ", 1) for line in lines)
        assert found.get("--phase-transition-iterations") == ends
        assert found["--train-samples"] == "12000"
        assert found["--data-args-path"].endswith(f"stages/{number + 1}_s{number}.blend")


def test_a_weight_of_megatron_is_divided_by_the_tokens_of_the_files(
    made_plan: Plans, tmp_path: Path
) -> None:
    source = second_file(small_store(tmp_path / "s", [1, 2, 0], [3]), [5] * 8 + [0])
    export = export_of(made_plan(2), source, "megatron", tmp_path / "x")
    megatron.write(export, tmp_path / "x")
    blend = (tmp_path / "x/stages/2_decay.blend").read_text().split()
    assert [float(weight) for weight in blend[::2]] == pytest.approx([0.025, 0.075, 0.225, 0.675])
    assert blend[1::2] == [
        f"/read/tokens/{name}/0000{n}" for name in (SOURCES[0], SOURCES[2]) for n in (0, 1)
    ]


# ------------------------------------------------------------------------------------ the other formats


@pytest.mark.parametrize(("asked", "ratio"), [(0.5, 1.0), (1.0, 1.0), (1.01, 2.0), (3.5, 4.0)])
@pytest.mark.parametrize("prepared", [True, False])
def test_olmo_core_may_repeat_a_source_for_whole_epochs(
    made_plan: Plans, tmp_path: Path, asked: float, ratio: float, prepared: bool
) -> None:
    """The first source is 0.6 of 288,000 tokens; one that is not prepared may be smaller than it says."""
    made = replace(small_store(tmp_path / "s", [1, 0], [2]), tokens=172_800 / asked)
    source = made if prepared else replace(made, manifest=None)
    export = export_of(made_plan(2), source, "olmo-core", tmp_path / "x")
    olmo_core.write(replace(export, tokens="none"), tmp_path / "x")
    content = yaml.safe_load((tmp_path / "x/stages/1_stable.yaml").read_text())
    first = content["source_list"]["sources"][0]
    assert first["max_repetition_ratio"] == ratio + (not prepared)
    file = "00000.npy" if prepared else "*.npy"
    assert first["paths"] == [f"/read/tokens/{SOURCES[0]}/{file}"]
    assert (content["requested_tokens"], content["global_batch_size"]) == (288_000, 256)


@pytest.mark.parametrize("format_name", ["nanotron", "smollm3"])
def test_nanotron_gets_the_metadata_of_the_files_that_have_some(
    made_plan: Plans, tmp_path: Path, format_name: str
) -> None:
    source = second_file(small_store(tmp_path / "s", [1, 0], [2]), [3, 0])
    (tmp_path / "s/train/00001_tokens.ds.metadata").write_text("tokenizer\n2\n")
    export = export_of(made_plan(2), source, format_name, tmp_path / "x")
    nanotron.write(export, tmp_path / "x")
    made = {path.name: path for path in (tmp_path / "x/tokens" / SOURCES[1]).iterdir()}
    assert sorted(made) == [
        "00000_tokens.ds",
        "00000_tokens.ds.index",
        "00001_tokens.ds",
        "00001_tokens.ds.index",
        "00001_tokens.ds.metadata",
    ]
    assert made["00001_tokens.ds.metadata"].read_text() == "tokenizer\n2\n"
    assert made["00001_tokens.ds.index"].read_bytes() == struct.pack("<Q", 2)


def test_without_tokens_nanotron_reads_the_stores_themselves(
    made_plan: Plans, tmp_path: Path
) -> None:
    plan = made_plan(2)
    for root, expected in ((None, "stores"), ("/read", "root")):
        folder, _ = write_export(
            plan, "nanotron", out=tmp_path / expected, tokens="none", root=root
        )
        content = yaml.safe_load((folder / "stages/1_stable.yaml").read_text())
        stores = [str(plan.config.store_folder(name).absolute() / "train") for name in SOURCES]
        read = [f"/read/tokens/{name}" for name in SOURCES]
        found = content["data_stages"][0]["data"]["dataset"]["dataset_folder"]
        assert found == (stores if expected == "stores" else read)


@pytest.mark.parametrize(
    ("execution", "micro"),
    [
        ({"dp": 2, "tp": 2, "zero_stage": 1}, 4),
        ({"dp": 2, "micro_batch_size": 2}, 2),
        ({"dp": 4, "pp": 2, "pp_engine": "afab"}, 2),
        ({}, 8),
    ],
)
def test_the_ranks_of_a_run_are_those_of_its_config(
    made_stores: Mapping[int, Path], tmp_path: Path, execution: dict[str, Any], micro: int
) -> None:
    values = config_values(made_stores[2])
    values["execution"] = {**values["execution"], **execution}
    folder, _ = write_export(plan_of_config(values), "nanotron", out=tmp_path, tokens="none")
    content = yaml.safe_load((folder / "stages/1_stable.yaml").read_text())
    layout = content["parallelism"]
    expected = {"dp": 1, "tp": 1, "pp": 1, "pp_engine": "1f1b", **execution}
    for key in ("dp", "tp", "pp", "pp_engine"):
        assert layout[key] == expected[key]
    assert content["tokens"]["micro_batch_size"] == micro
    assert content["optimizer"]["zero_stage"] == execution.get("zero_stage", 0)


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused(
    made_stores: Mapping[int, Path], tmp_path: Path
) -> None:
    values = config_values(made_stores[2])
    values["execution"] = {**values["execution"], "dp": 2, "micro_batch_size": 3}
    with pytest.raises(ConfigError):
        write_export(plan_of_config(values), "nanotron", out=tmp_path, tokens="none")
