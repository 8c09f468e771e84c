"""A threshold that a study picked, promoted: the full run reads the buckets from it on, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ablations.files import read_json
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.data.test_buckets import write_scored
from tests.sweeps.promotion.conftest import FULL

SOURCE = """\
domain: english
tokens_available: 100_000
licence: MIT
origin: {kind: files, paths: [web.jsonl]}
score_column: score
heldout_share: 0.2
buckets: {edges: [1, 2, 3]}
"""
WEIGHTS = "{web: 1.0, synthetic_facts: 0.0}"
"""The score is that of a source that is not read, as in `experiment=demo_quality`."""
SCORED = (
    "~mixture.weights",
    f"+mixture.weights={WEIGHTS}",
    "evaluation=heldout",
    "evaluation.heldout_max_items=4",
    "evaluation.score={terms: {text: {metrics: heldout_synthetic_facts/bpb}}}",
)


@pytest.mark.slow
def test_a_promoted_threshold_reads_its_buckets(workspace: Path, ablate: Ablate) -> None:
    write_scored(workspace / "web.jsonl", count=600)
    (workspace / "mine/source").mkdir(parents=True)
    (workspace / "mine/source/web.yaml").write_text(SOURCE)
    run = (*TINY, *SHORT_SOURCES, *SCORED, "--config-dir", "mine", "study=proxies")
    assert ablate("prepare", *run).code == 0
    answer = ablate(
        "run",
        "-m",
        *run,
        "+source.web={select: {min_bucket: 0}}",
        "+search.space.parameters={source.web.select.min_bucket: {kind: int, low: 0, high: 3}}",
        "search.strategy={baselines: [natural], baseline: natural, design_trials: 3}",
        "search.budget.trials=4",
        "search.confirm={finalists: 1, pick: false, seeds: [0, 1]}",
    )
    assert answer.code == 0, answer.err
    assert ablate("verdict", "study=proxies").code == 0
    picked = next(
        path.parent.name.rpartition("-")[0]
        for path in sorted(Path("runs/proxies").glob("trial-*/result.json"))
        if min_bucket(path.parent) == 2
    )
    scored = [one for one in FULL if one != "evaluation=synthetic"]
    answer = ablate(
        "promote",
        "--config-dir",
        "mine",
        *scored,
        *SCORED[2:],
        f"promotion.pick={picked}",
        "promotion.full.stages={whole: {share: 0.5}, decay: {share: 0.5}}",
        "++promotion.override.beats_baseline=noise decides at this size",
    )
    assert answer.code == 0, answer.err
    folder = Path("promotions/proxies-demo_full-001")
    chain = yaml.safe_load(next(folder.glob("nanotron/1*.yaml")).read_text())
    read = chain["data_stages"][0]["data"]["dataset"]["dataset_folder"]
    assert read == [f"data/synthetic_bpe/web/b{bucket}/train" for bucket in (2, 3)]
    answer = ablate(
        "run",
        "--config-dir",
        str(folder / "conf"),
        "experiment=promoted",
        "progress=false",
        "execution.threads=1",
    )
    assert answer.code == 0, answer.err
    full = Path("runs") / folder.name / "full-0"
    audit = read_json(full / "audit.json")
    assert audit["ok"]
    tokens = {row["source"]: row["tokens"] for row in audit["stages"]}
    assert {name for name, count in tokens.items() if count} == {"web-b2", "web-b3"}
    counted = read_json(Path("data/synthetic_bpe/web/manifest.json"))["buckets"]["tokens"]
    asked = counted[2] / (counted[2] + counted[3])
    for row in audit["stages"]:
        if row["source"] == "web-b2":
            assert row["asked"] == pytest.approx(asked, abs=1e-6)
    # The score is that of text which the full run does not read.
    assert read_json(full / "result.json")["score"] is not None


def min_bucket(run: Path) -> int:
    """Return the lowest bucket that a run read, by its audit."""
    read = [row["source"] for row in read_json(run / "audit.json")["stages"] if row["tokens"]]
    return min(int(name.rpartition("-b")[2]) for name in read)
