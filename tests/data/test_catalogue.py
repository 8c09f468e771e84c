"""Every shipped source loads; a mistake in one is told by its key."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import (
    FilesOrigin,
    HubOrigin,
    PackageOrigin,
    SourceSpec,
    config_folder,
    load_catalogue,
    load_source,
    load_tokenizer_spec,
)
from ablations.errors import ConfigError

MADE_BEFORE = "ef0338b4d8ab1c254ae99c7e14f6fc0d121386145d8237d3e70169340631c468"
"""Fingerprint of a source as it was before it had ``leave_out``, ``score_shares`` and limits of length."""

ROWS_BEFORE = {
    "chat_turns": "15b74840836b4c5485527edb370d14aa70ee9e22512e1dcdba2046ee6d3c0ee0",
    "own_replies": "aa92b81d5a2b169ccff8b30123dcbad5d82571946b47b01578ab8467e2ee367d",
}
"""Fingerprints of sources of rows as they were before rows had pictures."""

GOOD = """
domain: english
tokens_available: 1000
origin: {kind: files, paths: [a.txt]}
licence: MIT
"""


def make(**changes: object) -> SourceSpec:
    origin = FilesOrigin(kind="files", paths=("a.txt",))
    spec = SourceSpec(domain="english", tokens_available=1000, origin=origin, licence="MIT")
    return replace(spec, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(load_catalogue()))
def test_every_shipped_source_loads(name: str) -> None:
    spec = load_source(name)
    assert spec.licence
    assert spec.domain in {
        "english",
        "code",
        "math",
        "synthetic",
        "books",
        "junk",
        "pictures",
        "video",
    }
    if isinstance(spec.origin, PackageOrigin):
        assert all(len(pin.sha256) == 64 for pin in spec.origin.packages)
    if isinstance(spec.origin, HubOrigin):
        assert spec.origin.repo.count("/") == 1


@pytest.mark.parametrize(
    "path", sorted(config_folder("tokenizer").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_shipped_tokenizer_loads_under_its_own_name(path: Path) -> None:
    assert load_tokenizer_spec(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("fineweb_edu", 1300), ("dclm", 3800), ("starcoderdata", 250), ("stack_edu", 125),
        ("openwebmath", 12), ("infimm_webmath", 40), ("finemath_4plus", 10), ("finemath_3plus", 34),
        ("infiwebmath_4plus", 8.5), ("infiwebmath_3plus", 20.5), ("cosmopedia_v2", 30),
        ("stack_edu_python", 21.8), ("stack_edu_java", 42.1), ("stack_edu_ruby", 1.61),
    ],
)  # fmt: skip
def test_smollm2s_sources_have_the_papers_figures(name: str, billions: float) -> None:
    assert load_source(name).tokens_available == round(billions * 1e9)


def test_a_figure_that_is_assumed_says_so() -> None:
    for name in ("jupyter_notebooks", "dolma_books", "auggsm8k", "fineweb_edu_8k", "dclm_8k"):
        assert load_source(name).note == "tokens_available is assumed"
    assert load_source("dclm_edu").note == "tokens_available and score_shares are assumed"


def test_the_small_models_web_drops_score_0_and_thins_1_and_2() -> None:
    """arXiv 2502.02737, section 6."""
    spec = load_source("dclm_edu")
    assert spec.min_score == 1
    assert set(spec.score_shares) == {1, 2}
    assert all(0.0 < share < 1.0 for share in spec.score_shares.values())


@pytest.mark.parametrize("name", ["fineweb_edu_8k", "dclm_8k", "dolma_books"])
def test_long_documents_have_8k_tokens_and_more(name: str) -> None:
    assert load_source(name).min_tokens == 8192


@pytest.mark.parametrize(
    "added",
    [{"min_tokens": 5}, {"leave_out": {"a": ("b",)}}, {"score_column": "s", "min_score": 1}],
)
def test_a_filter_that_is_not_used_keeps_the_stores_of_before(added: dict[str, Any]) -> None:
    origin = FilesOrigin(kind="files", paths=("a.txt",))
    spec = SourceSpec(domain="english", tokens_available=1000, origin=origin, licence="MIT")
    assert spec.fingerprint() == MADE_BEFORE
    assert replace(spec, **added).fingerprint() != spec.fingerprint()


@pytest.mark.parametrize("name", ROWS_BEFORE)
def test_rows_without_pictures_have_the_fingerprint_they_had(name: str) -> None:
    assert load_source(name).fingerprint() == ROWS_BEFORE[name]


def test_the_fields_of_pictures_decide_a_store_of_pictures() -> None:
    spec = load_source("digits")
    assert spec.rows is not None
    changed = [
        replace(spec, rows=replace(spec.rows, **values))
        for values in ({"picture_size": 32}, {"max_pictures": 2}, {"frames": 2})
    ]
    assert len({one.fingerprint() for one in (spec, *changed)}) == 4


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"min_tokens": 0}, "above zero"),
        ({"min_tokens": 9, "max_tokens": 8}, "nothing is left"),
        ({"score_shares": {1: 0.5}}, "goes with score_column"),
        ({"score_column": "s", "score_shares": {1: 1.5}}, "not a share"),
    ],
)
def test_filters_that_cannot_be_are_refused(filters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(load_source("fineweb_edu"), **filters)


def test_an_unknown_source_brings_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fineweb_edu'"):
        load_source("fineweb_edx")
    with pytest.raises(ConfigError, match="did you mean 'cosmo2'"):
        load_tokenizer_spec("cosmo")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("heldout_share: 1.5", "source.mine.heldout_share"),
        ("max_bytes: 0", "source.mine.max_bytes"),
        ("min_score: 3", "source.mine.min_score"),
        ("max_byte: 3", "source.mine.max_byte"),
        ("shards: many", "source.mine.shards"),
        ("origin: {kind: files, paths: []}", "source.mine.origin.paths"),
        ("origin: {kind: hub}", "source.mine.origin.repo"),
        ("- a", "mine.yaml"),
    ],
)
def test_a_mistake_is_told_by_its_key(tmp_path: Path, change: str, where: str) -> None:
    key = change.partition(":")[0]
    kept = "".join(
        line for line in GOOD.splitlines(keepends=True) if not line.startswith(f"{key}:")
    )
    (tmp_path / "mine.yaml").write_text(kept + change + "\n")
    with pytest.raises(ConfigError) as caught:
        load_source("mine", [tmp_path])
    assert where in str(caught.value)


def test_a_later_folder_goes_before_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "wiki.yaml").write_text(GOOD)
    assert load_source("wiki", [config_folder("source"), tmp_path]).tokens_available == 1000


def test_the_fingerprint_follows_the_text_and_not_the_words_about_it() -> None:
    spec = make()
    assert (
        spec.fingerprint() == make(note="x", licence="y", url="z", tokens_available=5).fingerprint()
    )
    changes = {"max_bytes": 5, "heldout_share": 0.1, "text_column": "t", "shards": 2}
    prints = {make(**{key: value}).fingerprint() for key, value in changes.items()}
    assert len(prints | {spec.fingerprint()}) == len(changes) + 1


def test_the_catalogue_needs_no_heavy_import() -> None:
    code = (
        "import sys; from ablations.data.catalogue import load_source; load_source('wiki')\n"
        "import ablations.data.tokenizer, ablations.data.prepare\n"
        "heavy = {'torch', 'transformers', 'datasets', 'datatrove', 'pyarrow', 'pandas'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
