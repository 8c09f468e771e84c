"""Presets of SmolVLM: published shares, and the plan of the experiment on the share of text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ablations.config.schema import conf_dir, load
from ablations.data.catalogue import load_source
from ablations.plan import Plan, make_plan
from tests.test_conf import composed

MODALITIES = {
    "smolvlm2_256m": {"text": 0.2149, "one picture": 0.3383, "several": 0.1156, "video": 0.3312},
    "smolvlm2_2b2": {"text": 0.2026, "one picture": 0.3431, "several": 0.1235, "video": 0.3308},
}
"""Shares by modality that `ablate import` prints of the published files."""


def weights(name: str) -> dict[str, float]:
    found = yaml.safe_load((conf_dir() / "mixture" / f"{name}.yaml").read_text())
    return {str(source): float(weight) for source, weight in found["weights"].items()}


def modality(source: str) -> str:
    rows = load_source(source).rows
    assert rows is not None
    if rows.kind == "conversations":
        return "text"
    return "video" if rows.frames else ("one picture" if rows.max_pictures == 1 else "several")


@pytest.mark.parametrize("name", MODALITIES)
def test_a_mixture_of_groups_has_the_published_shares_of_modalities(name: str) -> None:
    shares: dict[str, float] = {}
    for source, weight in weights(name).items():
        kind = modality(source)
        shares[kind] = shares.get(kind, 0.0) + weight
    assert shares == pytest.approx(MODALITIES[name], abs=0.001)


@pytest.mark.parametrize(
    ("name", "documents", "captions"),
    [("smolvlm_vision", 0.41, 0.14), ("smolvlm_vision_2b2", 0.25, 0.18)],
)
def test_the_vision_stage_has_its_published_shares(
    name: str, documents: float, captions: float
) -> None:
    found = weights(name)
    assert found["openhermes"] == 0.14
    assert found["cauldron_captions"] == captions
    assert found["cauldron_two_pictures"] == 0.02
    read = ("docmatix", "cauldron_documents", "mathwriting")
    assert sum(found[source] for source in read) == pytest.approx(documents, abs=1e-5)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("data")
    overrides = ("execution.device=cuda", f"data_dir={folder}")
    return make_plan(load(composed("experiment=smolvlm_text_share", *overrides)))


def test_the_share_of_text_is_planned_as_published(planned: Plan) -> None:
    """3,027,050 rows in whole steps of 512, at a cosine of 2e-5 after 3% of warm-up."""
    assert planned.problems == ()
    assert planned.schedule.total_steps == 5912
    assert planned.learning_rate.peak == 2e-5
    assert planned.learning_rate.warmup_steps == 177
    rows = {row.source: row.tokens for row in planned.rows}
    assert sum(rows.values()) == 5912 * 512
    assert rows["onevision_text"] == pytest.approx(650_591, rel=1e-3)
    assert planned.epochs["onevision_text"] == pytest.approx(0.6998, rel=1e-3)
    assert planned.epochs["m4_instruct"] == pytest.approx(1.0, rel=1e-3)
    assert planned.parameters == 256_484_928


def test_the_bill_counts_pictures(planned: Plan) -> None:
    assert planned.cost.usd is not None
    assert planned.cost.usd > 0
    text_alone = 0.0
    for row in planned.rows:
        spec = load_source(row.source)
        assert spec.rows is not None
        assert spec.rows.available is not None
        text_alone += 6 * 163e6 * row.tokens * spec.tokens_available / spec.rows.available
    assert planned.flops > 1.5 * text_alone


def test_the_last_stage_of_2_2b_is_planned_as_published(tmp_path: Path) -> None:
    plan = make_plan(load(composed("experiment=smolvlm2_2b2", f"data_dir={tmp_path}")))
    assert plan.problems == ()
    assert plan.schedule.total_steps == 6550
    assert plan.parameters == 2_246_272_880


@pytest.mark.parametrize("share", ["text00", "text07", "text14", "text30", "published"])
def test_every_arm_is_a_mixture_that_keeps_the_other_proportions(share: str) -> None:
    search = composed("experiment=smolvlm_text_share")["search"]
    arm = search["strategy"]["mixtures"][share]
    base = weights("smolvlm2_256m")
    asked = base["onevision_text"] if share == "published" else int(share[4:]) / 100
    assert sum(arm.values()) == pytest.approx(1.0, abs=1e-6)
    assert arm["onevision_text"] == asked
    kept = (1 - asked) / (1 - base["onevision_text"])
    for source, weight in base.items():
        if source != "onevision_text":
            assert arm[source] == pytest.approx(weight * kept, abs=5e-6)
