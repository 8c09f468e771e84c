"""Oddities of published files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sweeps.nanotron_files import oddities, parameters, read, source_names
from sweeps.nanotron_files.semantics import source_name

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion" / "published"
SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "nanotron_configs"


def kinds(path: Path) -> list[str]:
    return [oddity.kind for oddity in oddities(read(path))]


def test_every_oddity_of_a_file_is_told_in_its_order() -> None:
    assert kinds(GOLDEN / "two_stages.yaml") == [
        "read_path",
        "read_path_name",
        "weights_sum",
        "renamed_folder",
        "last_stage_only",
        "final_state",
        "decay_end",
        "init_std",
        "rope_interleaved",
        "run_name",
    ]


def test_what_a_file_leaves_to_main_is_told() -> None:
    assert kinds(GOLDEN / "no_weights.yaml") == [
        "no_weights",
        "vocabulary_from_folder",
        "new_run",
        "decay_default",
        "architecture",
    ]


def test_a_renamed_folder_is_named_with_its_heir() -> None:
    found = {oddity.kind: oddity for oddity in oddities(read(GOLDEN / "two_stages.yaml"))}
    assert "code_python → code_shuffled_python" in found["renamed_folder"].what
    assert "1.00005" in found["weights_sum"].what
    assert "ends at step 101, the run at 100" in found["decay_end"].what


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/nanotron_configs")
def test_the_published_files_have_the_oddities_that_are_known_of_them() -> None:
    found = {path.stem: Counter(kinds(path)) for path in SHARED.glob("*.yaml")}
    assert found["config_smollm2_360M"]["run_name"]  # its name is 1700M
    assert found["config_smollm2_1B"]["rope_interleaved"]
    assert found["stage1_8T"]["decay_end"]  # one step after the last one
    assert found["stage1_8T"]["read_path_name"]  # stack-edu folders, stack-v2 copies
    assert found["openwebmath"]["new_run"]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/nanotron_configs")
@pytest.mark.parametrize(("name", "millions"), [("135M", 134.5), ("360M", 361.8), ("1B", 1711.4)])
def test_parameters_are_counted_as_published(name: str, millions: float) -> None:
    counted = parameters(read(SHARED / f"config_smollm2_{name}.yaml"))
    assert counted is not None
    assert counted / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("s3://x/chunks/fineweb-edu/fineweb-edu/", "fineweb_edu"),
        ("s3://x/llama_tokenized_4097/megamath-web-pro/standard/", "megamath_web_pro"),
        ("/data/Stack-Edu-C++/train", "stack_edu_cpp"),
        ("123", "source_123"),
        ("data/no/train", "source_no"),
        ("data/" + "long" * 1000, "long" * 15),
        ("/", "source"),
    ],
)
def test_sources_are_named_after_what_their_path_says(folder: str, name: str) -> None:
    assert source_name(folder) == name


def test_folders_of_one_name_stay_apart() -> None:
    names = source_names(["a/web", "b/web", "c/b/web", "a/web"])
    assert len(set(names.values())) == 3
    assert names["a/web"] == "web"
