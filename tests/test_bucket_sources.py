"""Buckets in a run: selections become weights, are planned, trained, audited and searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.config.bucket_sources import least_tokens
from ablations.config.schema import RunConfig, dump, load
from ablations.data.prepare import prepare
from ablations.errors import ConfigError
from ablations.execute import execute
from ablations.files import read_json
from ablations.mixture.sampler import Sampler
from ablations.plan import make_plan
from sweeps.search.space.specs import ParameterSpec, SearchSpaceSpec, SimplexSpec
from sweeps.study.resources import resources_of
from tests.conftest import Ablate
from tests.data.test_buckets import write_scored
from tests.test_plan import composed_plain

STATED = [0.4, 0.3, 0.2, 0.1]


def web(path: Path = Path("web.jsonl"), **more: Any) -> dict[str, Any]:
    return {
        "domain": "english",
        "tokens_available": 100_000,
        "licence": "MIT",
        "origin": {"kind": "files", "paths": [str(path)]},
        "score_column": "score",
        "heldout_share": 0.2,
        "buckets": {"edges": [1, 2, 3], "shares": STATED},
        **more,
    }


def plain_of(source: dict[str, Any], weights: dict[str, float], *more: str) -> dict[str, Any]:
    plain = composed_plain(*more)
    plain["source"] = {**(plain.get("source") or {}), "web": source}
    plain["mixture"] = {**plain["mixture"], "weights": weights}
    return plain


def config_of(
    source: dict[str, Any], weights: dict[str, float] | None = None, *more: str
) -> RunConfig:
    mixed = weights or {"web": 0.8, "synthetic_facts": 0.2}
    return load(plain_of(source, mixed, *(more or ("data_dir=nowhere",))))


@pytest.mark.parametrize(
    ("select", "shares"),
    [
        ({}, STATED),
        ({"min_bucket": 2}, [0.0, 0.0, 2 / 3, 1 / 3]),
        ({"tilt": 2.0}, [0.4 / 2.6, 0.6 / 2.6, 0.8 / 2.6, 0.8 / 2.6]),
        ({"keep": {0: 0, 1: 0.5}}, [0.0, 0.15 / 0.45, 0.2 / 0.45, 0.1 / 0.45]),
    ],
)
def test_a_selection_becomes_weights_of_buckets(
    select: dict[str, Any], shares: list[float]
) -> None:
    config = config_of(web(select=select))
    expected = {f"web-b{n}": 0.8 * share for n, share in enumerate(shares)}
    assert config.mixture.weights == pytest.approx({**expected, "synthetic_facts": 0.2})
    assert config.source["web-b3"].tokens_available == 10_000
    assert config.store_folder("web-b3") == Path("nowhere/synthetic_bpe/web/b3")


def test_a_recorded_config_loads_as_itself() -> None:
    config = config_of(web(select={"min_bucket": 1}))
    again = load(dump(config))
    assert again == config
    assert set(again.whole_sources) >= {"web", "synthetic_facts"}
    assert "web" not in again.read_sources


def test_a_bucket_can_be_weighted_by_name() -> None:
    config = config_of(web(), {"web-b3": 0.1, "synthetic_facts": 0.9})
    assert config.build_schedule().sources == ("web-b3", "synthetic_facts")
    assert set(config.whole_sources) >= {"web", "synthetic_facts"}
    assert make_plan(config).available_tokens["web-b3"] == 10_000


def test_a_bucket_that_is_not_prepared_counts_with_its_share_of_the_text(workspace: Path) -> None:
    path = workspace / "web.jsonl"
    write_scored(path, count=200)
    plan = make_plan(config_of(web(path), None, "data_dir=data"))
    found = {name: plan.to_prepare[name].tokens for name in plan.to_prepare}
    assert found["web-b0"] == pytest.approx(0.4 / 0.1 * found["web-b3"])
    assert sum(found.values()) < 40_000  # 200 short documents, counted once


def test_stages_and_exemptions_name_the_source_as_a_whole() -> None:
    plain = plain_of(web(), {"web": 1.0}, "data_dir=nowhere")
    plain["schedule"] = {
        **plain["schedule"],
        "stages": {
            "stable": {"share": 0.5},
            "decay": {"share": 0.5, "weights": {"web": 0.5, "synthetic_facts": 0.5}},
        },
    }
    plain["mixture"]["epoch_cap_exempt"] = {"web": "a test"}
    config = load(plain)
    decay = config.build_schedule().stages[1].mixture
    assert decay["web-b0"] == pytest.approx(0.2)
    assert config.mixture.epoch_cap_exempt["web-b3"] == "a test"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"web-b4": 1.0}, "no such bucket; allowed: 0 to 3"),
        ({"web": 0.5, "web-b1": 0.5}, "weighted twice"),
        ({"web-b1": 0.5, "web": 0.5}, "weighted twice"),
        ({"synthetic_facts-b1": 1.0}, "source.synthetic_facts.buckets is not set"),
        ({"weh-b1": 1.0}, "unknown source"),
    ],
)
def test_weights_of_buckets_that_cannot_be_are_refused(
    weights: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(web(), weights)


def test_the_bucket_that_is_read_most_often_sets_the_epochs() -> None:
    config = config_of(web(select={"keep": {3: 4.0}}))
    spec = config.source["web"]
    # Of 1.3 parts that are read, 0.4 come from bucket 3, which has a tenth of the tokens.
    assert least_tokens("web", spec, config.stores, [0]) == pytest.approx(10_000 / (0.4 / 1.3))
    # At threshold 3 the source is its last bucket.
    assert least_tokens("web", spec, config.stores, range(4)) == pytest.approx(10_000)


@pytest.mark.parametrize(
    ("searched", "limit"),
    [
        (None, 100_000 * 4 / 2048),
        (ParameterSpec(kind="int", low=0, high=2), 30_000 * 4 / 2048),
        (ParameterSpec(kind="choice", choices=(0, 3)), 10_000 * 4 / 2048),
    ],
)
def test_the_caps_of_a_search_hold_at_its_highest_threshold(
    searched: ParameterSpec | None, limit: float
) -> None:
    path = "source.web.select.min_bucket"
    space = SearchSpaceSpec(
        mixtures={"mixture.weights": SimplexSpec(sources=("web", "synthetic_facts"))},
        parameters={path: searched} if searched else {},
    )
    plain = plain_of(
        web(select={"min_bucket": 0}),
        {"web": 0.5, "synthetic_facts": 0.5},
        "data_dir=nowhere",
    )
    found = resources_of(plain, space)
    assert found.caps is not None
    assert found.caps.limit("web") == pytest.approx(limit)


def test_the_plan_of_a_study_shows_each_threshold(ablate: Ablate) -> None:
    answer = ablate("plan", "-m", "experiment=stack_edu_thresholds")
    assert answer.code == 0
    rows = [line.split("│")[1:-1] for line in answer.out.splitlines() if line.count("│") == 8]
    cells = [[cell.strip() for cell in row] for row in rows]
    languages = [row[0] for row in cells if row[0].startswith("starcoder2data_")]
    assert len(languages) == 15
    python = cells[[row[0] for row in cells].index("starcoder2data_python") :][:4]
    assert [row[3] for row in python] == ["1", "2", "3", "4"]
    # 50.6B tokens of two bytes; 8.3% of the 200B tokens that a run of 3,223 dollars trains on.
    assert python[0][1:3] == ["101 GB", "$269"]
    assert python[1][:3] == ["", "", ""]
    # Stack-Edu has 21.8B tokens of Python, and 60% of 200B tokens are read in proportion to its languages.
    assert python[2][4:] == ["21.8B", "16.68B", "0.77"]


def test_a_plan_shows_the_store_of_a_source_once(ablate: Ablate) -> None:
    answer = ablate("plan", "experiment=stack_edu_thresholds")
    assert answer.code == 0
    _, _, after = answer.out.partition("`ablate prepare` will make")
    table, _, _ = after.partition("the run")
    rows = [line.split("│")[1:-1] for line in table.splitlines() if line.count("│") == 9]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    languages = [name for name in cells if name.startswith("starcoder2data_")]
    assert len(languages) == 15
    assert not any("-b" in name for name in cells)
    # Every bucket is in the store, also those below the threshold.
    assert cells["starcoder2data_python"][2:5] == ["50.6B", "153 GB", "101 GB"]


@pytest.mark.parametrize("name", ["fineweb_edu_threshold", "finemath_vs_owm", "demo_quality"])
def test_studies_of_thresholds_plan(ablate: Ablate, name: str) -> None:
    answer = ablate("plan", "-m", f"experiment={name}")
    assert answer.code == 0, answer.err
    assert "trials known beforehand" in answer.out


def test_shares_over_buckets_are_exact_to_a_thousandth() -> None:
    config = config_of(
        web(select={"tilt": 1.7}), None, "schedule.total_tokens=4_000_000", "data_dir=nowhere"
    )
    schedule = config.build_schedule()
    windows = dict.fromkeys(schedule.sources, 5_000)
    counts = Sampler(schedule, windows, seed=3).counts(schedule.total_samples)
    for name, weight in config.mixture.weights.items():
        assert abs(counts[name] / schedule.total_samples - weight) < 1e-3


@pytest.fixture
def prepared_web(workspace: Path) -> Path:
    """The workspace, with a prepared source of four buckets."""
    path = workspace / "web.jsonl"
    write_scored(path, count=600)
    config = config_of(web(path), None, "data_dir=data")
    prepare({"web": config.source["web"]}, config.tokenizer, workspace / "data")
    return path


def test_a_run_reads_audits_and_scores_its_buckets(prepared_web: Path) -> None:
    select = {"min_bucket": 1, "tilt": 1.5}
    config = config_of(web(prepared_web, select=select), None, "data_dir=data", "study=buckets")
    counted = read_json(Path("data/synthetic_bpe/web/manifest.json"))["buckets"]["tokens"]
    read = [0.0, *(tokens * 1.5**n for n, tokens in enumerate(counted[1:]))]
    assert config.mixture.weights["web-b2"] == pytest.approx(0.8 * read[2] / sum(read))
    execute(config, in_process=True)
    folder = Path("runs/buckets")
    (run,) = (path for path in folder.iterdir() if path.is_dir())
    audit = read_json(run / "audit.json")
    assert audit["ok"]
    rows = {row["source"]: row for row in audit["stages"]}
    assert rows["web-b0"]["tokens"] == 0
    assert rows["web-b3"]["tokens"] > rows["web-b1"]["tokens"] > 0
    result = read_json(run / "result.json")
    assert result["status"] == "done"
    assert {name for name in result["metrics"] if name.startswith("heldout_web")} == {
        f"heldout_web-b{bucket}/bpb" for bucket in range(4)
    }
