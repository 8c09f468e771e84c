"""SmolLM2's and SmolLM3's schedules as configs: the plan gives the numbers of the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations.config.schema import RunConfig, conf_dir, load
from ablations.plan import make_plan
from sweeps.nanotron_files import read
from tests.conftest import Ablate
from tests.sweeps.promotion.conftest import composed

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "nanotron_configs"


def run(*overrides: str) -> RunConfig:
    return load(composed(*overrides))


def domain_shares(config: RunConfig, stage: int) -> dict[str, float]:
    shares: dict[str, float] = {}
    for name, weight in config.build_schedule().stages[stage].mixture.items():
        domain = config.source[name].domain
        shares[domain] = shares.get(domain, 0.0) + weight
    return {domain: round(share, 6) for domain, share in shares.items() if share}


@pytest.mark.parametrize(
    ("stage", "shares"),
    [
        (0, {"english": 0.90, "code": 0.10}),
        (1, {"english": 0.75, "code": 0.20, "math": 0.05}),
        (2, {"english": 0.74, "code": 0.16, "math": 0.10}),
        (3, {"english": 0.58, "code": 0.24, "math": 0.14, "synthetic": 0.04}),
    ],
)
def test_the_stages_of_the_1b7_have_the_papers_shares(stage: int, shares: dict[str, float]) -> None:
    assert domain_shares(run("experiment=smollm2_1b7"), stage) == pytest.approx(shares, abs=2e-6)


def test_the_plan_of_the_1b7_shows_its_epochs_and_its_exemption(ablate: Ablate) -> None:
    plan = make_plan(run("experiment=smollm2_1b7"))
    assert plan.schedule.total_tokens == pytest.approx(11e12, rel=1e-6)
    assert plan.parameters == 1_711_376_384
    assert plan.epochs["starcoderdata"] == pytest.approx(4.0, abs=1e-3)  # the reason for its 10%
    assert plan.epochs["fineweb_edu"] == pytest.approx(3.82, abs=0.01)
    assert plan.epochs["dclm"] == pytest.approx(1.05, abs=0.01)
    # 5% of 2T tokens are 8.3 epochs of OpenWebMath's 12B: over any cap by the published figures.
    assert plan.epochs["openwebmath"] == pytest.approx(12.2, abs=0.1)
    assert plan.problems == ()
    shown = ablate("plan", "experiment=smollm2_1b7")
    assert shown.code == 0
    assert "over the cap, exempt" in shown.out
    assert "12.25 epochs; published recipe" in shown.out
    refused = ablate("plan", "experiment=smollm2_1b7", "~mixture.epoch_cap_exempt.openwebmath")
    assert refused.code == 2
    assert "source.openwebmath" in refused.err
    assert "mixture.epoch_cap_exempt.openwebmath" in refused.err


def test_smollm1_reads_its_corpus_as_published() -> None:
    config = run("experiment=smollm1_135m")
    schedule = config.build_schedule()
    rate = config.build_learning_rate(schedule)
    assert schedule.total_steps == 600_000
    assert (rate.warmup_steps, rate.decay_steps, rate.shape) == (5000, 100_000, "1-sqrt")
    mixture = schedule.stages[0].mixture
    cosmopedia = {n: w for n, w in mixture.items() if n.startswith("cosmopedia_v2_")}
    assert sum(cosmopedia.values()) == pytest.approx(0.15)
    assert {n.removeprefix("cosmopedia_v2_"): w / 0.15 for n, w in cosmopedia.items()} == (
        pytest.approx({"middle_school": 0.4, "college": 0.3, "other": 0.3})
    )
    tokens = [config.source[name].tokens_available for name in cosmopedia]
    assert tokens == pytest.approx([0.4 * 28e9, 0.3 * 28e9, 0.3 * 28e9])
    assert (mixture["fineweb_edu_dedup"], mixture["python_edu"]) == (0.7, 0.08)
    assert make_plan(config).problems == ()


@pytest.mark.parametrize("name", ["smollm2_135m", "smollm2_360m"])
def test_the_small_models_read_the_filtered_dclm_with_cosmopedia(name: str) -> None:
    weights = _weights(name, "stable")
    assert weights["dclm_edu"] == 0.82
    assert "dclm" not in weights
    assert weights["cosmopedia_v2"] > 0


@pytest.mark.parametrize(
    ("name", "steps", "tokens_per_step", "decay"),
    [("smollm2_135m", 2_000_000, 1_048_576, 0.2), ("smollm2_360m", 2_600_000, 1_572_864, 0.2)],
)
def test_the_small_models_have_their_published_steps(
    name: str, steps: int, tokens_per_step: int, decay: float
) -> None:
    config = run(f"schedule={name}", f"model={name}", f"training={name}", "mixture=smollm2")
    schedule = config.build_schedule()
    rate = config.build_learning_rate(schedule)
    assert (schedule.total_steps, schedule.tokens_per_step) == (steps, tokens_per_step)
    assert (rate.warmup_steps, rate.decay_steps / steps) == (2000, decay)
    assert make_plan(config).problems == ()


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/nanotron_configs")
@pytest.mark.parametrize(("name", "file"), [("135m", "135M"), ("360m", "360M"), ("1b7", "1B")])
def test_models_and_training_equal_the_published_files(name: str, file: str) -> None:
    config = run(*(f"{group}=smollm2_{name}" for group in ("schedule", "model", "training")))
    published = read(SHARED / f"config_smollm2_{file}.yaml")
    ours, theirs = config.model, published.model.model_config
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        assert getattr(ours, key) == getattr(theirs, key), key
    assert config.training.tokens_per_step == published.tokens_per_step
    assert config.training.peak_lr == published.optimizer.learning_rate_scheduler.learning_rate


def test_smollm3_has_its_three_stages() -> None:
    config = run("schedule=smollm3", "training.sequence_length=256", "training.batch_size=9216")
    schedule = config.build_schedule()
    assert schedule.tokens_per_step == 2_359_296
    starts = [schedule.first_step(stage) + 1 for stage in range(3)]
    assert starts == [1, 3_450_001, 4_198_001]
    assert schedule.total_steps == 4_720_000
    assert [len(stage.mixture.support) for stage in schedule.stages] == [41, 46, 56]
    raw = [sum((stage.weights or {}).values()) for stage in config.schedule.stages.values()]
    assert raw == pytest.approx([1.0, 1.00005, 1.00565], abs=1e-9)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/nanotron_configs")
def test_smollm3s_first_stage_has_the_published_weights() -> None:
    stage = read(SHARED / "stage1_8T.yaml").data_stages[0]
    from sweeps.nanotron_files import folders_of

    weights = run("schedule=smollm3").schedule.stages["stable"].weights
    assert weights is not None
    assert list(weights.values()) == list(folders_of(stage).values())


@pytest.mark.parametrize("experiment", ["smollm2_math_arms", "smollm2_code_arms", "demo_arms"])
def test_arms_plan_here(experiment: str) -> None:
    plan = make_plan(run(f"experiment={experiment}"))
    assert plan.problems == ()
    rate = plan.learning_rate
    assert rate.decay_steps == plan.schedule.stages[1].steps  # the decay is the arm, all of it


def test_what_is_assumed_is_marked() -> None:
    for path in sorted((conf_dir() / "schedule").glob("smollm2_*m.yaml")):
        assert "assumed" in path.read_text(), path.name
    text = (conf_dir() / "schedule" / "smollm2_1b7.yaml").read_text()
    assert text.lower().count("assumed") >= 6


def test_the_context_extension_is_forty_percent_long_documents_and_sixty_of_stage_four() -> None:
    four = _weights("smollm2_1b7", "decay")
    long = _weights("smollm2_context_8k", "long_context")
    documents = {"dolma_books": 0.2, "fineweb_edu_8k": 0.1, "dclm_8k": 0.1}
    assert {name: long.pop(name) for name in documents} == documents
    assert set(long) == set(four)
    for name, weight in four.items():
        assert long[name] == pytest.approx(0.6 * weight, abs=1e-6), name


def _weights(schedule: str, stage: str) -> dict[str, float]:
    values: Any = yaml.safe_load((conf_dir() / "schedule" / f"{schedule}.yaml").read_text())
    found: dict[str, float] = values["stages"][stage]["weights"]
    return found
