"""An export is written atomically, never overwrites, and refuses unsound sources."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from ablations.config.schema import dump, load
from ablations.data.store import TokenStore
from ablations.errors import ConfigError, DataError, UserError
from ablations.files import read_json, write_sealed
from sweeps.exporters import export_folder
from sweeps.exporters.export_folder import write_export
from sweeps.exporters.export_plan import ExportPlan, TokensMode
from sweeps.exporters.formats import FORMATS
from sweeps.exporters.origin import plan_of, plan_of_config, plan_of_promotion
from sweeps.nanotron_files import handover_problems, read
from sweeps.nanotron_files.recorded_schema import Branch
from sweeps.nanotron_files.sections import TokenFolders
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.pinned import require_pinned
from tests.sweeps.exporters.conftest import (
    LENGTH,
    SOURCES,
    STAGES,
    config_values,
    stored_files,
    write_store,
)

Plans = Callable[[int], ExportPlan]
_SAME_TOKENS = ("litgpt", "smollm3")
"""Formats that write the token files of another format."""
WITH_TOKENS = sorted(
    n for n, kind in FORMATS.items() if "copy" in kind.modes and n not in _SAME_TOKENS
)
READ_DOCUMENT_ENDS = ("megatron", "nanotron", "torchtitan")


@pytest.fixture
def own_stores(made_stores: Mapping[int, Path], tmp_path: Path) -> Path:
    """Return stores that the test may damage."""
    shutil.copytree(made_stores[2], tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_its_readme_and_its_record(
    made_plan: Plans, tmp_path: Path, name: str
) -> None:
    folder, _ = write_export(made_plan(2), name, out=tmp_path)
    record = json.loads((folder / "export.json").read_text())
    assert record["exporter"] == name
    assert [stage["weights"] for stage in record["stages"]] == [
        {source: pytest.approx(weight) for source, weight in weights.items() if weight}
        for _, weights in STAGES.values()
    ]
    text = (folder / "README.md").read_text()
    assert "## Loading it" in text
    assert "stable" in text
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name in WITH_TOKENS for mode in FORMATS[name].modes]
)
def test_the_tokens_of_each_source_go_along_as_asked(
    made_plan: Plans, tmp_path: Path, name: str, mode: TokensMode
) -> None:
    folder, export = write_export(made_plan(2), name, out=tmp_path, tokens=mode)
    written = [path for path in folder.glob("tokens/**/*") if not path.is_dir()]
    for source in export.sources.values():
        own = [path for path in written if source.slug in path.relative_to(folder).as_posix()]
        assert bool(own) == (mode != "none")
    assert any(path.is_symlink() for path in written) == (mode == "link")


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_olmo_core_reads_the_store_s_own_tokens(
    made_plan: Plans, tmp_path: Path, mode: TokensMode
) -> None:
    plan = made_plan(2)
    folder, export = write_export(plan, "olmo-core", out=tmp_path, tokens=mode)
    for name, source in export.sources.items():
        files = sorted((folder / "tokens" / source.slug).iterdir())
        assert [file.name for file in files] == ["00000.npy", "00001.npy"]
        for file, stored in zip(files, stored_files(plan, name), strict=True):
            np.testing.assert_array_equal(np.fromfile(file, "<u2"), stored)


def test_weights_hold_the_schedule_in_both_files(made_plan: Plans, tmp_path: Path) -> None:
    folder, _ = write_export(made_plan(2), "weights", out=tmp_path)
    content = json.loads((folder / "weights.json").read_text())
    assert yaml.safe_load((folder / "weights.yaml").read_text()) == content
    assert [stage["samples"] for stage in content["stages"]] == [9000, 3000]
    assert content["stages"][1]["weights"] == {"synthetic_facts": 0.1, "synthetic_junk": 0.9}
    assert content["total_tokens"] == 384_000
    written = {path.name for path in folder.iterdir()}
    assert written == {"README.md", "export.json", "weights.json", "weights.yaml"}


@pytest.mark.parametrize(("name", "branch"), [("nanotron", "main"), ("smollm3", "smollm3")])
def test_nanotron_gets_a_chain_over_datatroves_files(
    made_plan: Plans, tmp_path: Path, name: str, branch: Branch
) -> None:
    from datatrove.utils.dataset import DatatroveFolderDataset

    plan = made_plan(2)
    folder, _ = write_export(plan, name, out=tmp_path)
    files = [read(path, branch) for path in sorted((folder / "stages").glob("*.yaml"))]
    assert handover_problems(files) == []
    assert files[-1].tokens.train_steps == plan.schedule.total_steps
    for source in SOURCES:
        data = DatatroveFolderDataset(str(folder / "tokens" / source), LENGTH, shuffle=False)
        rows = np.stack([data[i]["input_ids"].numpy() for i in range(len(data))])
        parts = stored_files(plan, source)
        width = LENGTH + 1
        windows = [part[: len(part) // width * width].reshape(-1, width) for part in parts]
        np.testing.assert_array_equal(rows, np.concatenate(windows))


def test_the_megatron_index_is_written_to_the_byte(tmp_path: Path) -> None:
    from sweeps.exporters.export_plan import Source
    from sweeps.exporters.megatron import write_index

    manifest = write_store(tmp_path / "s", SOURCES[0], files=1, documents=2)
    train = tmp_path / "s/train"
    np.array([3, 3, 0, 6, 0], "<u2").tofile(train / "00000_tokens.ds")
    np.array([3, 5], "<u8").tofile(train / "00000_tokens.ds.index")
    (file,) = manifest.files
    file = type(file)(**{**vars(file), "tokens": 5})
    source = Source(name="s", folder=tmp_path / "s", manifest=manifest, tokens=5.0)
    with (tmp_path / "made.idx").open("wb") as stream:
        write_index(source, file, stream)
    assert (tmp_path / "made.idx").read_bytes() == (
        b"MMIDIDX\x00\x00"
        + struct.pack("<QB", 1, 8)
        + struct.pack("<QQ", 2, 3)
        + struct.pack("<2i", 3, 2)
        + struct.pack("<2q", 0, 6)
        + struct.pack("<3q", 0, 1, 2)
    )


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_never_overwritten(made_plan: Plans, tmp_path: Path, name: str) -> None:
    folder, _ = write_export(made_plan(2), name, out=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ConfigError, match="exists already"):
        write_export(made_plan(2), name, out=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "ending", "cut"),
    [
        *((name, "ds", cut) for name in WITH_TOKENS for cut in (False, True)),
        *((name, "ds.index", cut) for name in READ_DOCUMENT_ENDS for cut in (False, True)),
    ],
)
def test_a_wrong_byte_leaves_no_export(
    own_stores: Path, tmp_path: Path, name: str, ending: str, cut: bool
) -> None:
    path = own_stores / "synthetic_bpe/synthetic_junk/train" / f"00001_tokens.{ending}"
    content = bytearray(path.read_bytes())
    if cut:
        del content[-8:]
    else:  # far from the ends, which are compared whenever a store is opened
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    plan = plan_of_config(config_values(own_stores))
    with pytest.raises(DataError, match="00001_tokens"):
        write_export(plan, name, out=tmp_path / "exports")
    assert not list((tmp_path / "exports").glob("*")) + list((tmp_path / "exports").glob(".*"))


def test_a_process_that_dies_leaves_no_export(
    made_plan: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_folder, "_readme", die)
    with pytest.raises(KeyboardInterrupt):
        write_export(made_plan(2), "megatron", out=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write_export(made_plan(2), "megatron", out=tmp_path)


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_memory_does_not_grow_with_the_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for place in ("tokens.BLOCK_BYTES", "megatron._BLOCK"):
        monkeypatch.setattr(f"sweeps.exporters.{place}", 1 << 14)
    # An index lists its chunks or shards, so its writer keeps a row for each in memory.
    for place in ("litdata._CHUNK_BYTES", "mosaicml._SHARD_BYTES"):
        monkeypatch.setattr(f"sweeps.exporters.{place}", 1 << 17)

    def peak(documents: int) -> int:
        data = tmp_path / f"data{documents}"
        for source in SOURCES:
            folder = data / "synthetic_bpe" / source
            write_store(folder, source, files=1, documents=documents)
        plan = plan_of_config(config_values(data))
        write_export(
            plan, name, out=tmp_path / "warm"
        )  # imports and caches do not depend on the tokens
        tracemalloc.start()
        try:
            write_export(plan, name, out=tmp_path / "measured")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            shutil.rmtree(tmp_path / "warm")
            shutil.rmtree(tmp_path / "measured")

    # 0.2 MB and 2 MB of tokens of each source, in blocks of 16 KiB or 128 KiB.
    assert peak(10_000) < peak(1_000) + (1 << 19)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "megatorn"}, "did you mean 'megatron'"),
        ({"tokens": "symlink"}, "allowed: copy or link or none"),
        ({"format": "litdata", "tokens": "link"}, "allowed: copy or none"),
        ({"promotion": "/nowhere"}, "not a promotion folder"),
        ({"run": "/nowhere"}, "not a run folder"),
        ({"run": "a", "promotion": "b"}, "not both"),
    ],
)
def test_a_wrong_request_is_told_plainly(
    made_stores: Mapping[int, Path], tmp_path: Path, changes: dict[str, str], expected: str
) -> None:
    values = {**config_values(made_stores[2]), "format": "megatron", **changes}
    with pytest.raises(UserError, match=expected):
        write_export(
            plan_of(values),
            str(values["format"]),
            out=tmp_path,
            tokens=values.get("tokens"),
        )
    assert list(tmp_path.iterdir()) == []


def test_unprepared_sources_are_refused_unless_no_tokens_are_wanted(tmp_path: Path) -> None:
    plan = plan_of_config(config_values(tmp_path / "data"))
    with pytest.raises(DataError, match="tokens=none") as raised:
        write_export(plan, "megatron", out=tmp_path / "exports")
    for source in SOURCES:
        assert source in str(raised.value)
    folder, _ = write_export(
        plan, "megatron", out=tmp_path / "exports", tokens="none", root="/cluster/made"
    )
    blend = (folder / "stages/1_stable.blend").read_text().split()
    assert blend[1::2] == [f"/cluster/made/tokens/{source}/00000" for source in SOURCES]
    assert [float(weight) for weight in blend[::2]] == pytest.approx([0.6, 0.3, 0.1])
    assert "The tokens." in (folder / "README.md").read_text()
    folder, _ = write_export(
        plan, "nanotron", out=tmp_path / "exports", tokens="none", root="/cluster/made"
    )
    data = read(folder / "stages/1_stable.yaml").data_stages[0].data.dataset
    assert isinstance(data, TokenFolders)
    assert data.dataset_folder == tuple(f"/cluster/made/tokens/{source}" for source in SOURCES)


@pytest.mark.parametrize(
    ("name", "root"), [("megatron", "/a folder"), ("megatron", "/a*"), ("olmo-core", "/a*")]
)
def test_a_path_that_the_loader_cannot_read_is_refused(
    made_plan: Plans, tmp_path: Path, name: str, root: str
) -> None:
    with pytest.raises(ConfigError, match="root: a path that"):
        write_export(made_plan(2), name, out=tmp_path, root=root)
    assert list(tmp_path.iterdir()) == []


def test_stores_of_two_tokenizers_are_refused(own_stores: Path, tmp_path: Path) -> None:
    path = own_stores / "synthetic_bpe/synthetic_junk/manifest.json"
    made = read_json(path)
    write_sealed(path, {**made, "tokenizer_hash": "1" * 64})
    with pytest.raises(DataError, match="different tokenizers"):
        write_export(plan_of_config(config_values(own_stores)), "olmo-core", out=tmp_path / "out")


def test_stores_of_another_tokenizer_than_the_configs_are_refused(
    own_stores: Path, tmp_path: Path
) -> None:
    folder = own_stores / "tokenizers/synthetic_bpe"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="different tokenizers"):
        write_export(plan_of_config(config_values(own_stores)), "megatron", out=tmp_path / "out")


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_a_source_without_a_whole_window_is_refused(
    own_stores: Path, tmp_path: Path, name: str
) -> None:
    folder = own_stores / "synthetic_bpe/synthetic_junk"
    shutil.rmtree(folder)
    manifest = write_store(folder, "synthetic_junk", files=1, documents=0)
    assert manifest.tokens == 0
    with pytest.raises(
        DataError, match="synthetic_junk: none of its token files contains a whole window"
    ):
        write_export(plan_of_config(config_values(own_stores)), name, out=tmp_path / "out")


def test_a_proxy_that_repeats_slices_says_so(
    made_stores: Mapping[int, Path], tmp_path: Path
) -> None:
    values = config_values(made_stores[2])
    values["schedule"]["full_tokens"] = 1e9
    folder, export = write_export(plan_of_config(values), "weights", out=tmp_path)
    assert "simulated epoching" in export.plan.notes[0]
    assert "simulated epoching" in (folder / "README.md").read_text()


def test_the_command_exports_a_config_and_a_run(workspace: Path, ablate: Ablate) -> None:
    from ablations.record.run_record import RunRecord

    answer = ablate("export", "format=megatron", *TINY, *SHORT_SOURCES)
    assert answer.code == 0, answer.err
    assert (workspace / "exports/synthetic-megatron/stages").is_dir()
    again = ablate("export", "format=megatron", *TINY, *SHORT_SOURCES)
    assert again.code == 2
    assert "exists already" in again.err
    values = config_values(workspace / "data")
    config = {**dump(load(values)), "stores": {"synthetic_facts": "as a run records it"}}
    record = RunRecord.create(workspace / "runs", study="made", trial="a", seed=1, config=config)
    answer = ablate("export", "format=weights", f"run={record.path}")
    assert answer.code == 0, answer.err
    (folder,) = (workspace / "exports").glob("made*-weights")
    assert json.loads((folder / "weights.json").read_text())["total_tokens"] == 384_000


def test_a_promotion_is_exported(workspace: Path, ablate: Ablate) -> None:
    from sweeps.promotion.promote import promote
    from tests.sweeps.promotion.conftest import FULL, GOOD, PLAIN, MadeStudy, composed

    made = MadeStudy(workspace / "runs")
    for seed in (0, 1, 2):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD, effect=0.4)
    made.judge()
    stages = "promotion.full.stages={stable: {share: 0.5}, decay: {share: 0.5, add: {}}}"
    config = composed(*FULL, stages, config="promote")
    promoted = promote({key: value for key, value in config.items() if key != "compare"})
    plan = plan_of_promotion(promoted.folder, "data")
    assert [stage.weights for stage in plan.stages] == [pytest.approx(GOOD)] * 2
    for name in ("nanotron", "olmo-core"):
        answer = ablate("export", f"promotion={promoted.folder}", f"format={name}")
        assert answer.code == 0, answer.err
    nanotron = workspace / f"exports/{promoted.folder.name}-nanotron"
    ours = [read(path) for path in sorted((nanotron / "stages").glob("*.yaml"))]
    theirs = [read(path) for path in sorted((promoted.folder / "nanotron").glob("*.yaml"))]
    assert [f.tokens for f in ours] == [f.tokens for f in theirs]
    assert [f.optimizer for f in ours] == [f.optimizer for f in theirs]
    (promoted.folder / "promotion.json").write_text("{")
    answer = ablate("export", f"promotion={promoted.folder}", "format=weights")
    assert answer.code == 2
    assert "damaged: not JSON" in answer.err


@pytest.mark.parametrize("name", FORMATS)
def test_the_files_of_a_format_are_those_before(
    made_plan: Plans, tmp_path: Path, name: str
) -> None:
    """The README, which is documentation, is left out."""
    plan = made_plan(2)
    folder, _ = write_export(plan, name, out=tmp_path)
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("README.md", "export.json")
    }
    known = {str(folder): "EXPORT", str(plan.config.data_dir): "DATA"}
    found = {name: _content(path, known) for name, path in files.items()}
    require_pinned(f"export_{name}", found)


def _content(path: Path, known: Mapping[str, str]) -> list[str] | str:
    """Return the lines of a text, or a digest of other bytes."""
    blob = path.read_bytes()
    try:
        text = blob.decode()
    except UnicodeDecodeError:
        return hashlib.sha256(blob).hexdigest()
    if "\0" in text:
        return hashlib.sha256(blob).hexdigest()
    for folder, name in known.items():
        text = text.replace(folder, name)
    return text.splitlines()


def test_the_layout_of_an_execution_is_exported(
    made_stores: Mapping[int, Path], tmp_path: Path
) -> None:
    values = config_values(made_stores[2])
    values["execution"] = {**values["execution"], "dp": 2, "pp": 2, "pp_engine": "afab"}
    folder, _ = write_export(plan_of_config(values), "nanotron", out=tmp_path)
    for path in sorted((folder / "stages").glob("*.yaml")):
        layout = yaml.safe_load(path.read_text())["parallelism"]
        assert (layout["dp"], layout["tp"], layout["pp"], layout["pp_engine"]) == (2, 1, 2, "afab")


def test_the_end_of_document_token_is_that_of_the_stores(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic_bpe"
    for source in SOURCES:
        made = write_store(folder / source, source)
        replace(made, eos_id=5).write(folder / source)
    plan = plan_of_config(config_values(tmp_path))
    _, export = write_export(plan, "weights", out=tmp_path / "out")
    assert export.eos_id == 5 != plan.config.model.eos_token_id


@pytest.mark.parametrize(("missing", "refused"), [(0, False), (1, True)])
def test_tokens_are_copied_only_where_they_fit(
    made_plan: Plans,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: int,
    refused: bool,
) -> None:
    plan = made_plan(2)
    stores = [TokenStore.open(plan.config.store_folder(source)) for source in SOURCES]
    needed = sum(store.manifest.tokens * 2 for store in stores)
    monkeypatch.setattr(export_folder, "free_bytes", lambda _: needed - missing)
    refusal = pytest.raises(DataError, match="too little disk space")
    expected = refusal if refused else nullcontext()
    with expected:
        write_export(plan, "megatron", out=tmp_path / "out", tokens="copy")
