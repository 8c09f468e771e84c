"""Import published files and write them back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ablations.config.schema import load
from ablations.errors import ConfigError
from sweeps.nanotron_files import load_yaml, read
from sweeps.nanotron_files.import_published import import_file, write_import
from sweeps.nanotron_files.write_back import Specs, write_back
from tests.conftest import Ablate
from tests.oracles.nanotron_meaning import meaning

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion" / "published"
SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "nanotron_configs"
OURS = sorted(GOLDEN.glob("*.yaml"))
PUBLISHED = sorted(SHARED.glob("*.yaml"))


def there_and_back(path: Path, out: Path) -> None:
    imported = import_file(path, "imported")
    specs = Specs.of_plain(imported.configs, "imported")
    assert meaning(write_back(specs, imported.sidecar)) == meaning(imported.file)
    folder = write_import(imported, out)
    assert meaning(read(folder / "imported.nanotron.yaml")) == meaning(read(path))
    sidecar = json.loads((folder / "nanotron.json").read_text())
    assert meaning(write_back(specs, sidecar)) == meaning(read(path))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_an_import_written_back_means_the_same(path: Path, tmp_path: Path) -> None:
    there_and_back(path, tmp_path / "imported")


@pytest.mark.shared
@pytest.mark.skipif(not PUBLISHED, reason="no ../shared/data/nanotron_configs")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_published_file_is_written_back_with_the_same_meaning(
    path: Path, tmp_path: Path
) -> None:
    there_and_back(path, tmp_path / "imported")


def test_a_changed_schedule_is_written_back_changed() -> None:
    imported = import_file(GOLDEN / "two_stages.yaml", "imported")
    schedule = dict(imported.configs["schedule/imported"])
    decay = {**schedule["stages"]["decay_stage"], "tokens": 80 * 1024}
    schedule["stages"] = {**schedule["stages"], "decay_stage": decay}
    configs = {**imported.configs, "schedule/imported": schedule}
    file = write_back(Specs.of_plain(configs, "imported"), imported.sidecar)
    assert file.stage_steps() == (60, 80)
    assert file.tokens.train_steps == 140
    # The published decay ended one step late; so does the longer one.
    assert file.optimizer.learning_rate_scheduler.lr_decay_starting_step == 101


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    imported = import_file(GOLDEN / "two_stages.yaml", "imported")
    training = {**imported.configs["training/imported"], "batch_size": 12}
    configs = {**imported.configs, "training/imported": training}
    with pytest.raises(ConfigError, match="does not divide"):
        write_back(Specs.of_plain(configs, "imported"), imported.sidecar)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    imported = import_file(GOLDEN / "two_stages.yaml", "imported")
    write_import(imported, tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        write_import(imported, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_source_of_the_demo_is_not_taken_for_a_published_one() -> None:
    imported = import_file(GOLDEN / "no_weights.yaml", "qwen")
    assert set(imported.configs["mixture/qwen"]["weights"]) == {"qwen_wiki", "books"}
    assert "assumed" in imported.configs["source/books"]["note"]


def test_the_configs_of_an_import_make_a_run(tmp_path: Path) -> None:
    imported = import_file(GOLDEN / "two_stages.yaml", "imported")
    folder = write_import(imported, tmp_path / "imported") / "conf"
    groups = ("tokenizer", "mixture", "schedule", "model", "training")
    plain = {group: imported.configs[f"{group}/imported"] for group in groups}
    config = load({**plain, "study": "imported", "evaluation": {"tasks": {}}}, [folder])
    schedule = config.build_schedule()
    assert [stage.steps for stage in schedule.stages] == [60, 40]
    assert schedule.stages[1].mixture["imported_math"] == pytest.approx(0.2 / 1.00005)


def test_a_mixture_of_text_on_the_hub_is_refused(tmp_path: Path) -> None:
    text = (GOLDEN / "no_weights.yaml").read_text()
    text = text.replace("      dataset_folder:\n      - data/wiki\n      - data/books\n", "")
    text = text.replace("    dataset:\n", "    dataset: {hf_dataset_or_datasets: example/text}\n")
    path = tmp_path / "hub.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="tokenised on the fly"):
        import_file(path, "hub")


def test_the_command_imports_and_prints_oddities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.chdir(tmp_path)
    path = GOLDEN / "two_stages.yaml"
    answer = ablate("import", f"file={path}", "name=example")
    assert answer.code == 0, answer.err
    assert "weights sum to 1.00005" in answer.out
    assert "experiment=example" in answer.out
    planned = ablate("plan", "--config-dir", "imports/example/conf", "experiment=example")
    assert planned.code == 0, planned.err
    assert "decay_stage" in planned.out
    refused = ablate("import", f"file={path}", "name=example")
    assert refused.code == 2
    assert "nothing is overwritten" in refused.err


def test_stages_whose_names_read_alike_stay_apart(tmp_path: Path) -> None:
    document = load_yaml((GOLDEN / "two_stages.yaml").read_text())
    document["data_stages"][0]["name"] = "Ünit 1"
    document["data_stages"][1]["name"] = "unit:1"
    path = tmp_path / "names.yaml"
    path.write_text(yaml.safe_dump(document))
    imported = import_file(path, "names")
    assert list(imported.configs["schedule/names"]["stages"]) == ["nit_1", "unit_1"]
    there_and_back(path, tmp_path / "out")
    document["data_stages"][0]["name"] = "unit 1"
    path.write_text(yaml.safe_dump(document))
    imported = import_file(path, "names")
    assert list(imported.configs["schedule/names"]["stages"]) == ["unit_1", "unit_1_2"]
    there_and_back(path, tmp_path / "again")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_floor_of_a_decay_is_a_share_of_the_peak(tmp_path: Path, share: float) -> None:
    document = yaml.safe_load((GOLDEN / "two_stages.yaml").read_text())
    rate = document["optimizer"]["learning_rate_scheduler"]
    rate["min_decay_lr"] = share * rate["learning_rate"]
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump(document))
    lr = import_file(file, "imported").configs["schedule/imported"]["lr"]
    assert lr["min_ratio"] == pytest.approx(share)
    there_and_back(file, tmp_path / "imported")
