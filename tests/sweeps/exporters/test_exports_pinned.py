"""READMEs, folders and records of exports are those before; torchtitan's module reads its files."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ablations.errors import DataError, UserError
from sweeps.exporters.export_folder import write_export
from sweeps.exporters.export_plan import Export, ExportPlan, Source
from sweeps.exporters.formats import FORMATS
from sweeps.exporters.origin import plan_of, plan_of_config
from sweeps.exporters.tokens import blocks
from tests.pinned import require_pinned
from tests.sweeps.exporters.conftest import (
    EOS,
    SOURCES,
    VOCABULARY,
    config_values,
    stored_files,
    write_store,
)

Plans = Callable[[int], ExportPlan]


def told(folder: Path, known: Mapping[str, str]) -> dict[str, Any]:
    """Return the README, the record and the paths of an export, without what depends on the machine."""
    readme = (folder / "README.md").read_text()
    record = json.dumps({**json.loads((folder / "export.json").read_text()), "version": ""})
    for path, name in known.items():
        readme, record = readme.replace(path, name), record.replace(path, name)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {"readme": readme.splitlines(), "record": json.loads(record), "paths": paths}


@pytest.mark.parametrize("name", FORMATS)
def test_the_readme_and_the_folders_of_a_format_are_those_before(
    made_plan: Plans, tmp_path: Path, name: str
) -> None:
    found = {}
    for width in (2, 4):
        plan = made_plan(width)
        folder, _ = write_export(plan, name, out=tmp_path / str(width))
        known = {str(folder): "EXPORT", str(plan.config.data_dir): "DATA"}
        found[str(width)] = told(folder, known)
    require_pinned(f"export_told_{name}", found)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_of_sources_that_are_not_prepared_is_that_before(
    tmp_path: Path, name: str
) -> None:
    """Nothing is prepared, the run repeats slices, starts from a checkpoint, and its root is given."""
    values = config_values(tmp_path / "nothing")
    values["warm_start"] = {**values["warm_start"], "checkpoint": "somewhere/8"}
    values["schedule"] = {**values["schedule"], "full_tokens": 3_840_000}
    plan = plan_of_config(values)
    folder, export = write_export(plan, name, out=tmp_path, tokens="none", root="/cluster/data")
    assert export.root_given
    known = {str(folder): "EXPORT", str(plan.config.data_dir): "DATA"}
    data = str(plan.config.data_dir)
    stages = {
        path.relative_to(folder).as_posix(): path.read_text().replace(data, "DATA").splitlines()
        for path in sorted((folder / "stages").glob("*"))
    }
    require_pinned(f"export_unprepared_{name}", {**told(folder, known), "stages": stages})


@pytest.mark.parametrize(
    ("vocabulary", "width"), [(2**16, 2), (2**16 + 1, 4)], ids=["the last of two bytes", "four"]
)
def test_the_width_of_a_token_follows_from_the_vocabulary_without_a_store(
    tmp_path: Path, vocabulary: int, width: int
) -> None:
    values = config_values(tmp_path / "nothing")
    values["model"]["vocab_size"] = vocabulary
    _, export = write_export(plan_of_config(values), "weights", out=tmp_path)
    assert export.token_bytes == width


@pytest.mark.parametrize("case", ["tokenizers", "vocabulary", "windows"])
def test_stores_that_do_not_fit_together_are_refused_with_the_limit(
    tmp_path: Path, case: str
) -> None:
    stores = tmp_path / "synthetic_bpe"
    made = {
        source: write_store(stores / source, source, documents=1 if case == "windows" else 120)
        for source in SOURCES
    }
    values = config_values(tmp_path)
    if case == "tokenizers":
        replace(made[SOURCES[1]], tokenizer_hash="1" * 64).write(stores / SOURCES[1])
    if case == "vocabulary":
        values["model"]["vocab_size"] = VOCABULARY[2] - 1
    if case == "windows":
        values["training"] = {**values["training"], "sequence_length": 512}
    with pytest.raises(DataError) as caught:
        write_export(plan_of_config(values), "megatron", out=tmp_path / "out")
    require_pinned(f"export_refused_{case}", str(caught.value).splitlines())
    assert not (tmp_path / "out" / "made-megatron").exists()


@pytest.mark.parametrize(("spare", "refused"), [(0, False), (-1, True)])
def test_a_vocabulary_may_be_just_that_of_the_stores(
    made_stores: Mapping[int, Path], tmp_path: Path, spare: int, refused: bool
) -> None:
    values = config_values(made_stores[2])
    values["model"]["vocab_size"] = VOCABULARY[2] + spare
    plan = plan_of_config(values)
    if refused:
        with pytest.raises(DataError, match="token ids beyond"):
            write_export(plan, "weights", out=tmp_path)
    else:
        write_export(plan, "weights", out=tmp_path)


@pytest.mark.parametrize(
    ("most", "multiple", "sizes"),
    [(None, 1, [100]), (40, 1, [40, 40, 20]), (40, 16, [32, 32, 32, 4]), (10, 16, [16] * 6 + [4])],
)
def test_blocks_are_whole_multiples_up_to_the_most(
    tmp_path: Path, most: int | None, multiple: int, sizes: list[int]
) -> None:
    manifest = write_store(tmp_path / "s", SOURCES[0], files=1, documents=2)
    path = tmp_path / "s/train/00000_tokens.ds"
    path.write_bytes(bytes(range(100)))
    from ablations.data.manifest import file_sha256

    file = replace(manifest.files[0], sha256=file_sha256(path))
    source = Source(name="s", folder=tmp_path / "s", manifest=manifest, tokens=50.0)
    found = list(blocks(source, file, multiple=multiple, most=most))
    assert [len(block) for block in found] == sizes
    assert b"".join(found) == path.read_bytes()
    assert list(blocks(source, file)) == [path.read_bytes()]


def test_a_document_too_long_for_megatron_is_refused_at_the_first_such_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from sweeps.exporters import megatron

    manifest = write_store(tmp_path / "s", SOURCES[0], files=1, documents=1)
    source = Source(name="s", folder=tmp_path / "s", manifest=manifest, tokens=1.0)
    for length, refused in ((2**31 - 1, False), (2**31, True)):
        ends = [np.array([length], np.int64)]
        monkeypatch.setattr(megatron, "document_ends", lambda *_, ends=ends: iter(ends))
        if refused:
            with pytest.raises(DataError, match="a document too long for Megatron"):
                megatron.write_index(source, manifest.files[0], io.BytesIO())
        else:
            megatron.write_index(source, manifest.files[0], io.BytesIO())


def test_a_promotion_and_a_run_are_not_exported_at_once(tmp_path: Path) -> None:
    values = config_values(tmp_path)
    with pytest.raises(UserError, match="name a promotion or a run, not both"):
        plan_of({**values, "promotion": "a", "run": "b"})
    with pytest.raises(UserError, match="not a run folder"):
        plan_of({**values, "run": str(tmp_path)})
    with pytest.raises(UserError, match="not a promotion folder"):
        plan_of({**values, "promotion": str(tmp_path)})
    plan = plan_of({**values, "promotion": None, "run": None})
    assert (plan.name, plan.origin) == ("made", {"config": "made"})


# ------------------------------------------------------------------- torchtitan's module, as it is copied


class StandIn:
    """Stand-in of torchtitan's config classes: keeps what it is given."""

    def __init__(self, **given: Any) -> None:
        self.given = given


@dataclass(kw_only=True, slots=True)
class EmptyConfig:
    """Stand-in of ``BaseTokenizer.Config``."""


@pytest.fixture
def torchtitan(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand in for torchtitan and datasets, which take seconds to import; return the table of datasets."""
    datasets: dict[str, Any] = {}
    tokenizer = type("BaseTokenizer", (), {"Config": EmptyConfig})
    loader = type("Loader", (), {"Config": StandIn})
    texts = SimpleNamespace(
        DATASETS=datasets, HFDataSource=StandIn, InterleavedHuggingFaceTextDataLoader=loader
    )
    lines = type(
        "IterableDataset",
        (),
        {"from_generator": staticmethod(lambda made, gen_kwargs: list(made(**gen_kwargs)))},
    )
    modules: dict[str, Mapping[str, Any]] = {
        "datasets": {"IterableDataset": lines},
        "torchtitan": {},
        "torchtitan.components": {},
        "torchtitan.components.tokenizer": {"BaseTokenizer": tokenizer},
        "torchtitan.hf_datasets": {"DatasetConfig": StandIn},
        "torchtitan.hf_datasets.text_datasets": vars(texts),
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return datasets


def imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of an export by its path."""
    spec = importlib.util.spec_from_file_location("stored_tokens_of_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("place", ["export", "tree"])
@pytest.mark.parametrize("width", [2, 4])
def test_the_module_for_torchtitan_registers_what_the_stores_hold(
    made_plan: Plans,
    tmp_path: Path,
    torchtitan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    place: str,
) -> None:
    plan = made_plan(width)
    folder, _ = write_export(plan, "torchtitan", out=tmp_path)
    if place == "export":
        stored = imported(folder / "stored_tokens.py", monkeypatch)
    else:
        monkeypatch.delitem(sys.modules, "sweeps.exporters.for_torchtitan", raising=False)
        import sweeps.exporters.for_torchtitan as stored

        monkeypatch.setattr(stored, "HERE", folder)
    loader = stored.dataloader("2_decay")
    drawn = [source.given for source in loader.given["sources"]]
    assert [(row["dataset"], row["weight"], row["infinite"]) for row in drawn] == [
        ("stored_synthetic_facts", 0.1, True),
        ("stored_synthetic_junk", 0.9, True),
    ]
    assert loader.given["seed"] == plan.config.seed
    assert sorted(torchtitan) == sorted(f"stored_{source}" for source in SOURCES)
    dataset = torchtitan["stored_synthetic_facts"].given
    rows = list(dataset["loader"](dataset["path"]))
    samples = [dataset["sample_processor"](row) for row in rows]
    assert all(sample[-1] == EOS and EOS not in sample[:-1] for sample in samples)
    tokens = np.concatenate(stored_files(plan, "synthetic_facts"))
    assert [token for sample in samples for token in sample] == tokens.tolist()
    passing = stored.StoredTokens(stored.tokenizer())
    assert passing.encode([5, 6]) == [EOS, 5, 6]
    assert passing.encode([5, 6], add_bos=False) == [5, 6]
    assert passing.get_vocab_size() == plan.config.model.vocab_size
    with pytest.raises(NotImplementedError, match="stored tokens have no text"):
        passing.decode([1])


def test_the_module_of_torchtitan_reads_the_files_in_order(
    tmp_path: Path, torchtitan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder lists its files in any order."""
    monkeypatch.delitem(sys.modules, "sweeps.exporters.for_torchtitan", raising=False)
    import sweeps.exporters.for_torchtitan as stored

    monkeypatch.setattr(stored, "HERE", tmp_path)
    folder = tmp_path / "tokens/Web"
    folder.mkdir(parents=True)
    order = [3, 0, 5, 1, 6, 2, 4]
    for number in order:
        path = folder / f"{number:05d}.ds"
        np.array([number + 1, 0, 9, 9, 0], "<u4").tofile(path)
        np.array([2, 5], "<u8").tofile(path.with_name(f"{path.name}.index"))
    described = {"token_bytes": 4, "eos_id": 0, "vocab_size": 10, "sources": {"W": str(folder)}}
    (tmp_path / "sources.json").write_text(json.dumps(described))
    assert stored.register() == {"W": "stored_web"}
    dataset = torchtitan["stored_web"].given
    rows = [row["tokens"] for row in dataset["loader"](dataset["path"])]
    assert rows == [part for n in range(7) for part in ([n + 1, 0], [9, 9, 0])]


def test_epochs_are_those_of_the_stage_and_endless_without_tokens(made_plan: Plans) -> None:
    plan = made_plan(2)
    store = {
        name: Source(name=name, folder=None, manifest=None, tokens=tokens)
        for name, tokens in zip(SOURCES, (28_800.0, 0.0, 1e6), strict=True)
    }
    export = Export(plan=plan, format="weights", sources=store, tokens="none", root="r")
    stage = plan.stages[0]
    assert export.epochs(stage, SOURCES[0]) == pytest.approx(0.6 * 288_000 / 28_800)
    assert export.epochs(stage, SOURCES[1]) == float("inf")
    assert not export.root_given
    assert export.path("tokens", "x") == "r/tokens/x"
