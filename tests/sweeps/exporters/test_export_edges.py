"""Check exports at their edges: folders in the way, stores that barely fit together, odd document ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import dump, load
from ablations.data.manifest import StoreFile, StoreManifest
from ablations.data.tokenizer import tokenizer_hash
from ablations.errors import ConfigError, DataError
from ablations.files import write_json, write_text
from ablations.record.checksums import write_checksums
from ablations.record.run_record import RunRecord
from sweeps.exporters import export_folder, tokens
from sweeps.exporters.export_folder import _together, write_export
from sweeps.exporters.export_plan import Export, ExportPlan, Source
from sweeps.exporters.formats import FORMATS, Format, format_named
from sweeps.exporters.origin import plan_of, plan_of_config, plan_of_promotion, plan_of_run
from sweeps.exporters.tokens import blocks, document_ends, place_file
from tests.sweeps.exporters.conftest import LENGTH, SOURCES, config_values, small_store

Plans = Callable[[int], ExportPlan]
WINDOW = LENGTH + 1


def store_file(count: int) -> StoreFile:
    """Return a token file of ``count`` tokens, of which only the manifest is looked at."""
    return StoreFile(name="f.ds", tokens=count, documents=1, sha256="", edges_sha256="")


@pytest.fixture(scope="module")
def manifest(made_stores: Mapping[int, Path]) -> StoreManifest:
    """Return the manifest of a sound store of two bytes a token."""
    return StoreManifest.read(made_stores[2] / "synthetic_bpe" / SOURCES[0])


def source_of(name: str, made: StoreManifest | None, **changes: Any) -> Source:
    """Return a source with a changed manifest."""
    kept = None if made is None else replace(made, **changes)
    return Source(name=name, folder=Path("nowhere"), manifest=kept, tokens=100.0)


def problems_of(plan: ExportPlan, *sources: Source) -> list[str]:
    """Return what keeps sources from being read together."""
    return [str(one) for one in _together(plan, {source.name: source for source in sources})]


# ------------------------------------------------------------------------------------------- the folder


def test_a_link_to_nothing_is_in_the_way_too(made_plan: Plans, tmp_path: Path) -> None:
    (tmp_path / "made-weights").symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="exists already"):
        write_export(made_plan(2), "weights", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["made-weights"]


def test_a_folder_that_was_made_meanwhile_is_told_and_kept(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: object) -> str:
        (tmp_path / "made-weights").mkdir()
        (tmp_path / "made-weights/theirs").touch()
        return ""

    monkeypatch.setattr(export_folder, "_readme", meanwhile)
    with pytest.raises(ConfigError, match="was created meanwhile"):
        write_export(made_plan(2), "weights", out=tmp_path)
    assert [path.name for path in (tmp_path / "made-weights").iterdir()] == ["theirs"]


def test_a_disk_that_fails_is_told_as_it_is(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError("the disk is gone")

    monkeypatch.setattr(export_folder, "_readme", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        write_export(made_plan(2), "weights", out=tmp_path)


def test_the_parent_is_flushed_once_the_folder_has_its_name(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, bool]] = []

    def note(folder: Path) -> None:
        seen.append((folder, (folder / "made-weights").exists()))

    monkeypatch.setattr(export_folder, "sync_folder", note)
    write_export(made_plan(2), "weights", out=tmp_path)
    assert seen == [(tmp_path, True)]


def test_what_a_loader_cannot_read_of_a_root_is_listed_in_order(
    made_plan: Plans, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        write_export(made_plan(2), "megatron", out=tmp_path, root="/x]y[z?a*b c")
    assert "a path without ' ' '*' '?' '[' ']'" in str(caught.value)


def test_a_format_that_does_not_exist_is_refused() -> None:
    assert format_named("weights") is FORMATS["weights"]
    with pytest.raises(ConfigError, match="did you mean 'weights'"):
        format_named("weight")
    assert Format("module", "help", ("none",)).forbidden == ""


def test_links_are_made_where_the_disk_is_full(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_folder, "free_bytes", lambda _: 0)
    for mode in ("link", "none"):
        write_export(made_plan(2), "olmo-core", out=tmp_path / mode, tokens=mode)
    with pytest.raises(DataError, match="too little disk space"):
        write_export(made_plan(2), "olmo-core", out=tmp_path / "copy", tokens="copy")


# --------------------------------------------------------------------------- stores read together


def test_sources_of_one_folder_name_are_each_refused(
    made_plan: Plans, manifest: StoreManifest
) -> None:
    plan = made_plan(2)
    names = ("A b", "a-b", "other")
    found = problems_of(plan, *(source_of(name, manifest) for name in names))
    assert [line.split(":")[0] for line in found] == ["A b", "a-b"]
    assert all("its folder name is another source's too" in line for line in found)
    assert problems_of(plan, source_of("a", manifest), source_of("b", manifest)) == []


@pytest.mark.parametrize(
    "changes", [{"eos_id": 7}, {"token_bytes": 4}, {"tokenizer_hash": "1" * 64}], ids=str
)
def test_stores_that_differ_in_one_point_are_not_read_together(
    made_plan: Plans, manifest: StoreManifest, changes: dict[str, Any]
) -> None:
    sources = (source_of("a", manifest), source_of("b", manifest, **changes))
    (found,) = problems_of(made_plan(2), *sources, source_of("c", None))
    assert "tokenised with different tokenizers" in found
    last = "1" * 12 if "tokenizer_hash" in changes else "0" * 12
    assert f"a: {'0' * 12}, b: {last}" in found


@pytest.mark.parametrize("same", [True, False])
def test_stores_are_compared_with_the_tokenizer_that_is_prepared(
    made_stores: Mapping[int, Path], manifest: StoreManifest, tmp_path: Path, same: bool
) -> None:
    folder = tmp_path / "tokenizers/synthetic_bpe"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    own = tokenizer_hash(folder)
    plan = plan_of_config(config_values(tmp_path))
    made = source_of("a", manifest, tokenizer_hash=own if same else "0" * 64)
    found = problems_of(plan, made)
    assert bool(found) is not same
    assert all(f"synthetic_bpe: {own[:12]}, a: {'0' * 12}" in line for line in found)


@pytest.mark.parametrize(
    ("lengths", "most"),
    [
        ((WINDOW,), None),
        ((WINDOW - 1, WINDOW), None),
        ((WINDOW - 1, 5), WINDOW - 1),
        ((WINDOW - 1,), WINDOW - 1),
        ((), 0),
    ],
)
def test_one_file_of_just_a_window_is_enough(
    made_plan: Plans, manifest: StoreManifest, lengths: tuple[int, ...], most: int | None
) -> None:
    files = tuple(store_file(count) for count in lengths)
    found = problems_of(made_plan(2), source_of("a", manifest, files=files))
    assert len(found) == (most is not None)
    assert all(f"at most {most} tokens" in line for line in found)
    assert all(f"{WINDOW} tokens or more" in line for line in found)


# --------------------------------------------------------------------------- numbers of an export


def export_of(plan: ExportPlan, *sources: Source) -> Export:
    """Return an export of sources that are not looked up."""
    made = {source.name: source for source in sources}
    return Export(plan=plan, format="weights", sources=made, tokens="none", root="r")


def test_width_and_end_are_those_of_the_first_prepared_store(
    made_plan: Plans, manifest: StoreManifest
) -> None:
    """The model's vocabulary, of 1,024 tokens that end with 0, says otherwise."""
    first = source_of("b", manifest, token_bytes=4, eos_id=9)
    export = export_of(made_plan(2), source_of("a", None), first)
    assert (export.token_bytes, export.eos_id) == (4, 9)
    unprepared = export_of(made_plan(4), source_of("a", None))
    assert (unprepared.token_bytes, unprepared.eos_id) == (4, 0)


def test_empty_token_files_are_no_files_of_a_source(manifest: StoreManifest) -> None:
    files = (store_file(0), store_file(1), store_file(2))
    assert source_of("a", manifest, files=files).files == files[1:]
    assert source_of("a", None).files == ()


# ------------------------------------------------------------------------------------------ token files


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize(
    ("content", "ends", "sound"),
    [
        ([0, 3, 0, 5, 5, 0], [1, 3, 6], True),
        ([0], [1], True),
        ([3, 0, 0, 0], [2, 3, 4], True),
        ([3, 3, 0, 6, 0], [0, 3, 5], False),
        ([3, 3, 0, 6, 0], [3, 3, 5], False),
        ([3, 0, 0, 6, 0], [3, 2, 5], False),
        ([3, 3, 0, 6, 0], [2, 5], False),
        ([3, 3, 0, 6, 0], [3, 4], False),
        ([3, 3, 0, 6, 0], [3], False),
        ([3, 3, 0, 6, 0], [3, 7], False),
        ([3, 3, 0, 6, 0], [], False),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 1000])
def test_document_ends_ascend_to_the_end_of_the_file_behind_end_tokens(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: list[int],
    ends: list[int],
    sound: bool,
    width: int,
    block: int,
) -> None:
    monkeypatch.setattr(tokens, "BLOCK_BYTES", 8 * block)
    source = small_store(tmp_path / "s", content, ends, width)
    found = document_ends(source, source.files[0])
    if sound:
        assert [list(part) for part in found] == [
            ends[start : start + block] for start in range(0, len(ends), block)
        ]
    else:
        with pytest.raises(DataError, match="its document ends are not those of the token file"):
            list(found)


def test_a_block_may_have_any_number_of_bytes(tmp_path: Path) -> None:
    source = small_store(tmp_path / "s", list(range(1, 8)), [7])
    found = list(blocks(source, source.files[0], most=5))
    assert [len(block) for block in found] == [5, 5, 4]


def test_a_file_is_copied_or_linked_to_itself(tmp_path: Path) -> None:
    source = small_store(tmp_path / "s", [3, 0], [2])
    stored = tmp_path / "s/train/00000_tokens.ds"
    place_file(source, source.files[0], tmp_path / "copy", "copy")
    place_file(source, source.files[0], tmp_path / "link", "link")
    assert (tmp_path / "copy").read_bytes() == stored.read_bytes() == b"\3\0\0\0"
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "link").readlink() == stored.resolve()


# ------------------------------------------------------------------------------- what a plan is made of


def test_a_run_is_exported_with_its_notes_over_the_stores_that_are_named(tmp_path: Path) -> None:
    values = config_values(tmp_path / "then")
    values["schedule"] = {**values["schedule"], "full_tokens": 3_840_000}
    config = {**dump(load(values)), "stores": {SOURCES[0]: "as a run records it"}}
    record = RunRecord.create(tmp_path / "runs", study="made", trial="A", seed=1, config=config)
    plan = plan_of({"run": str(record.path), "data_dir": str(tmp_path / "now")})
    assert (plan.name, plan.origin) == ("made_a_1", {"run": str(record.path)})
    assert plan.config.data_dir == str(tmp_path / "now")
    assert [note.split(" (")[0] for note in plan.notes] == [
        "The run repeats a slice of each source"
    ]
    assert plan_of({"run": str(record.path), "data_dir": ""}).config.data_dir == "data"
    with pytest.raises(ConfigError, match="run: not a run folder"):
        plan_of_run(tmp_path / "runs", "data")


def write_promotion(folder: Path, values: Mapping[str, Any]) -> None:
    """Write a promotion without checksums, with the groups of a config."""
    for group in ("tokenizer", "mixture", "schedule", "model", "training", "evaluation"):
        (folder / "conf" / group).mkdir(parents=True)
        write_json(folder / "conf" / group / "promoted.yaml", values[group])
    (folder / "conf/experiment").mkdir()
    kept = {key: values[key] for key in ("study", "trial", "seed", "source")}
    write_json(folder / "conf/experiment/promoted.yaml", kept)
    full = {"name": "big", "total_tokens": 1e6, "lr": {}, "tokenizer": "hub/name"}
    write_json(folder / "promotion.json", {"full": full})


def test_a_promotion_is_exported_from_its_frozen_configs(tmp_path: Path) -> None:
    values = config_values(tmp_path)
    values["schedule"] = {**values["schedule"], "full_tokens": 3_840_000}
    folder = tmp_path / "promoted"
    write_promotion(folder, values)
    plan = plan_of({"promotion": str(folder), "data_dir": str(tmp_path / "now")})
    assert (plan.name, plan.origin) == ("promoted", {"promotion": str(folder)})
    assert plan.full is not None
    assert plan.full.total_tokens == 1e6
    assert plan.config.data_dir == str(tmp_path / "now")
    assert [note.split(" (")[0] for note in plan.notes] == [
        "The run repeats a slice of each source"
    ]
    assert plan_of({"promotion": str(folder)}).config.data_dir == "data"
    (folder / "conf/experiment/promoted.yaml").write_text("study: made\n")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        plan_of_promotion(folder, "data")
    assert "trial" in str(caught.value)
    write_text(folder / "promotion.json", "{")
    with pytest.raises(DataError, match="damaged: not JSON"):
        plan_of_promotion(folder, "data")


def test_a_config_of_a_promotion_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "promoted"
    write_promotion(folder, config_values(tmp_path))
    write_checksums(folder / "conf")
    assert plan_of_promotion(folder, "data").notes == ()
    with (folder / "conf/mixture/promoted.yaml").open("a") as stream:
        stream.write("# changed\n")
    with pytest.raises(DataError, match="damaged: not what was written"):
        plan_of_promotion(folder, "data")
