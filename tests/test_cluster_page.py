"""docs/cluster.md followed on a real one-node Slurm without a network, and its plan against its run."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import RunConfig, conf_dir, load
from ablations.data.manifest import StoreManifest
from ablations.data.synthetic import documents
from ablations.data.tokenizer import TokenizerSpec, make_tokenizer
from ablations.plan import Plan, make_plan
from tests.tools.pages import ROOT, blocks, follow
from tests.tools.slurm_local import Slurm, missing, slurm

PAGE = ROOT / "docs/cluster.md"
CARD = "---\nconfigs:\n- config_name: sample-10BT\n  data_files: sample/10BT/*\n---\n"
DCLM = "mlfoundations/dclm-baseline-1.0/global-shard_01_of_10/local-shard_0_of_10"


def texts(skill: Any, count: int) -> list[str]:
    return [text.text for text in documents(skill, count, seed=0)]


def write_mirror(mirror: Path) -> None:
    """Small text in the layout that the page shows: parquet, zstd-packed jsonl, a tokenizer."""
    import pyarrow as pa
    from pyarrow import parquet

    edu = mirror / "HuggingFaceFW/fineweb-edu"
    (edu / "sample/10BT").mkdir(parents=True)
    (edu / "README.md").write_text(CARD)
    for part, name in enumerate(("000_00000", "001_00000")):
        found = texts("facts", 4000)[part::2]
        table = pa.table(
            {
                "text": found,
                "id": [f"{part}-{n}" for n in range(len(found))],
                "url": [f"https://{part}.example/{n}" for n in range(len(found))],
            }
        )
        parquet.write_table(table, edu / f"sample/10BT/{name}.parquet")
    (mirror / DCLM).mkdir(parents=True)
    rows = [
        json.dumps({"text": text, "url": f"https://web.example/{n}"}) + "\n"
        for n, text in enumerate(texts("dialogue", 600))
    ]
    packed = mirror / DCLM / "shard_00000000_processed.jsonl.zst"
    with pa.output_stream(str(packed), compression="zstd") as stream:
        stream.write("".join(rows).encode())
    made = make_tokenizer(
        TokenizerSpec(name="toy", vocab_size=1024), mirror / "made", texts("facts", 300)
    )
    shutil.copytree(made.folder, mirror / "HuggingFaceTB/cosmo2-tokenizer")
    shutil.rmtree(mirror / "made")


def toy(folder: Path) -> RunConfig:
    """The page's toy experiment, as it stands in its block."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    site = [f"hydra.searchpath=[file://{folder / 'site'}]", "experiment=web_toy"]
    with initialize_config_dir(str(conf_dir())):
        plain = OmegaConf.to_container(compose("run", overrides=site), resolve=True)
    assert isinstance(plain, dict)
    return load({str(key): value for key, value in plain.items()})


def planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of the toy before anything is prepared; its files are written."""
    for block in blocks(PAGE):
        if block.path is not None:
            target = folder / block.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
    monkeypatch.chdir(folder)
    write_mirror(folder / "mirror")
    return make_plan(toy(folder), mirror=folder / "mirror")


@pytest.fixture
def cluster() -> Iterator[Slurm]:
    # Not under pytest's own folder: munge's user must be able to walk there.
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    home.chmod(0o711)
    try:
        with slurm(home) as started:
            yield started
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_page_can_be_followed_and_its_plan_is_what_it_used(
    cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, monkeypatch)
    talking = {name: cluster.environment[name] for name in ("PATH", "SLURM_CONF")}
    # No hub and no registry: whatever asks for them fails.
    offline = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    printed = follow(PAGE, tmp_path, {**talking, **offline})
    # Dollars of the 150M study and of a full run, before there is any data.
    assert "138.4" in printed[0]
    assert "5,077.88" in printed[0]
    assert printed[1].count("its text") == 2
    assert (tmp_path / "runs/web_toy/report.html").exists()
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/web_toy/*/result.json")]
    assert len(results) == 5
    assert not [result for result in results if result["status"] != "done"]
    require_as_planned(plan, tmp_path, results)


def require_as_planned(plan: Plan, folder: Path, results: list[dict[str, Any]]) -> None:
    """Tokens, steps and bytes that were used are within 5% of those that were planned."""
    for result in results:
        assert result["step"] == plan.schedule.total_steps
        assert result["tokens"] == plan.schedule.total_tokens
    for name, expected in plan.to_prepare.items():
        store = folder / "data/cosmo2" / name
        manifest = StoreManifest.read(store)
        text = manifest.bytes + manifest.heldout.bytes
        assert expected.text_bytes == pytest.approx(text, rel=0.05), name
        assert expected.tokens == pytest.approx(manifest.tokens, rel=0.05), name
        files = [*(store / "train").iterdir(), store / "heldout.jsonl"]
        stored = sum(path.stat().st_size for path in files)
        assert expected.store_bytes == pytest.approx(stored, rel=0.05), name
    kept = [
        path
        for path in next(folder.glob("runs/web_toy/*-0")).rglob("*")
        if path.is_file() and path.suffix in (".safetensors", ".pt")
    ]
    assert plan.disk_bytes == pytest.approx(sum(path.stat().st_size for path in kept), rel=0.05)


def test_the_toy_s_plan_has_looked_at_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, monkeypatch)
    assert plan.problems == ()
    assert {one.download_bytes for one in plan.to_prepare.values()} == {0.0}
    assert plan.to_prepare["dclm_10b"].documents == 300
    assert plan.to_prepare["fineweb_edu_10bt"].text_bytes == pytest.approx(400_000, rel=0.01)
