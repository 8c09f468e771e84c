"""The thresholds and tilts of docs/search.md: planned as on the page, and run on the test's own text."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tests.conftest import SHORT_SOURCES, TINY, Ablate

PAGE = Path(__file__).resolve().parents[3] / "docs/search.md"
GIVEN = ("--config-dir", "my_conf", "experiment=web_filter")
SMALL = (
    "tokenizer=synthetic_bpe",
    "model=demo",
    "model.vocab_size=512",
    "training=demo",
    "schedule=demo",
    "evaluation=synthetic",
    "evaluation.score.direction=minimize",
    # The page's second source is the demo's, which a test does not download.
    "++mixture.weights={web:0.5,synthetic_facts:0.5}",
    "~mixture.weights.wiki",
    "search.space.mixtures={mixture.weights:{sources:[web,synthetic_facts]}}",
    "evaluation.score.terms.text.metrics=heldout_synthetic_facts/bpb",
    "mixture.epoch_cap=1000",
    SHORT_SOURCES[0],
    *(o for o in TINY if not o.startswith("experiment=")),
)
"""Overrides that make the page's experiment as small as a test."""


@pytest.fixture
def written(workspace: Path) -> Path:
    """Write the page's experiment to a file."""
    text = PAGE.read_text()
    start = text.index("    # @package _global_\n    defaults:\n      - override /mixture: null")
    block = text[start : text.index("\nThe epoch cap of `web`", start)]
    path = workspace / "my_conf/experiment/web_filter.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(textwrap.dedent(block))
    return workspace


def test_the_page_s_experiment_is_planned(written: Path, ablate: Ablate) -> None:
    answer = ablate("plan", "-m", *GIVEN)
    assert answer.code == 0, answer.err
    assert "source.web.select.min_bucket" in answer.out
    assert "source.web.select.tilt" in answer.out


@pytest.mark.slow
def test_the_page_s_experiment_is_run(written: Path, ablate: Ablate) -> None:
    rows = [
        {"text": f"page {i} tells of {i % 7} things and {i * i} more of them", "score": i % 5}
        for i in range(600)
    ]
    (written / "texts").mkdir()
    (written / "texts/web.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answer = ablate("prepare", *GIVEN, *SMALL, "prepare.contamination=false")
    assert answer.code == 0, answer.err
    budget = ("search.budget.trials=5", "search.confirm.finalists=0")
    answer = ablate("run", "-m", *GIVEN, *SMALL, *budget)
    assert answer.code == 0, answer.err
    results = [json.loads(p.read_text()) for p in written.glob("runs/web_filter/*/result.json")]
    assert len(results) == 5
    assert all(result["score"] is not None for result in results)
