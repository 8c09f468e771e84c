"""``ablate gc`` lists and removes what nothing refers to, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from ablations.files import write_json
from ablations.temporary import is_left, making_folder
from sweeps.promotion.unneeded import find_unneeded
from tests.conftest import Ablate


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate) -> Path:
    """A finished study with a verdict, each run with one checkpoint of 1,000 bytes and an export."""
    monkeypatch.chdir(tmp_path)
    recorded = Path(__file__).parents[2] / "analysis/fixtures/runs"

    shutil.copytree(recorded, tmp_path / "runs")
    assert ablate("verdict", "study=demo_ratio").code == 0
    for run in (tmp_path / "runs/demo_ratio").glob("trial-*"):
        for kind in ("checkpoints", "exports"):
            (run / kind / "600").mkdir(parents=True)
            (run / kind / "600/weights").write_bytes(b"x" * 1000)
    return tmp_path / "runs"


def losers(runs: Path) -> set[str]:
    found, _ = find_unneeded(runs, runs.parent / "promotions")
    return {one.path.parents[1].name for one in found if one.kind != "leftovers"}


def test_what_the_verdict_names_is_kept(runs: Path) -> None:
    verdict = json.loads((runs / "demo_ratio/verdict.json").read_text())
    needed = {row["trial"] for row in verdict["candidates"] if row["finalist"]}
    every = {run.name for run in (runs / "demo_ratio").glob("trial-*")}
    assert losers(runs)
    assert losers(runs) == {run for run in every if run.rpartition("-")[0] not in needed} - {
        run
        for run in every
        if run.rpartition("-")[0]
        in {
            row["trial"]
            for row in verdict["candidates"]
            if row["name"] in (verdict["pick"], verdict["baseline"], verdict["reference"])
        }
    }


def test_nothing_goes_before_there_is_a_verdict_or_while_a_driver_runs(runs: Path) -> None:
    with FileLock(runs / "demo_ratio/driver.lock"):
        assert losers(runs) == set()
    (runs / "demo_ratio/verdict.json").unlink()
    assert losers(runs) == set()


def test_what_a_promotion_or_a_warm_start_names_is_kept(runs: Path) -> None:
    first, second = sorted(losers(runs))[:2]
    folder = runs.parent / "promotions/demo_ratio-x-001"
    folder.mkdir(parents=True)
    provenance = {"runs_dir": str(runs), "runs": [{"name": f"demo_ratio/{first}"}]}
    write_json(folder / "promotion.json", {"study": "demo_ratio", "provenance": provenance})
    assert first not in losers(runs)
    other = runs / "demo_ratio/trial-0000-0/manifest.json"
    manifest = json.loads(other.read_text())
    manifest.pop("content_sha256", None)
    checkpoint = str(runs / "demo_ratio" / second / "checkpoints/600")
    manifest["config"]["warm_start"] = {"checkpoint": checkpoint}
    write_json(other, manifest)
    assert second not in losers(runs)


def test_it_is_dry_by_default_and_records_stay(runs: Path, ablate: Ablate) -> None:
    going = losers(runs)
    listed = ablate("gc", "verbose=true")
    assert listed.code == 0, listed.err
    assert "nothing was removed" in listed.out
    assert losers(runs) == going
    removed = ablate("gc", "apply=true")
    assert f"removed {2 * len(going)} kB" in removed.out
    assert losers(runs) == set()
    for run in going:
        assert (runs / "demo_ratio" / run / "result.json").exists()
        assert list((runs / "demo_ratio" / run / "checkpoints").iterdir()) == []
    assert "nothing can go" in ablate("gc").out


def test_leftovers_of_writers_that_are_gone_can_go(runs: Path) -> None:
    with making_folder(runs / "demo_ratio/made") as building:
        assert not is_left(building)
        name = building.name
    left = runs / "demo_ratio" / name
    left.mkdir()
    found, _ = find_unneeded(runs, runs.parent / "promotions")
    assert [one.path for one in found if one.kind == "leftovers"] == [left]
    (runs / "demo_ratio/.made.elsewhere-1.tmp").mkdir()
    again, _ = find_unneeded(runs, runs.parent / "promotions")
    assert len([one for one in again if one.kind == "leftovers"]) == 1


def test_a_trunk_that_has_ended_goes_with_the_verdict_and_its_links_count_once(runs: Path) -> None:
    study = runs / "demo_ratio"
    for name in ("aaaaaaaaaa-0", "bbbbbbbbbb-0"):
        (study / "trunks" / name / "checkpoints/300").mkdir(parents=True)
    weights = study / "trunks/aaaaaaaaaa-0/checkpoints/300/weights"
    weights.write_bytes(b"x" * 1000)
    run = study / sorted(losers(runs))[0]
    (run / "checkpoints/300").mkdir()
    (run / "checkpoints/300/weights").hardlink_to(weights)
    write_json(study / "trunks/aaaaaaaaaa-0/trunk.json", {"status": "done"})

    def of_step_300() -> dict[str, int]:
        found, _ = find_unneeded(runs, runs.parent / "promotions")
        return {one.path.parents[1].name: one.size for one in found if one.path.name == "300"}

    assert of_step_300() == {"aaaaaaaaaa-0": 500, run.name: 500}
    with FileLock(study / "driver.lock"):
        assert of_step_300() == {}
