"""What a plan says of preparation, cost and a full run, before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.data.synthetic import documents
from ablations.price import PriceSpec, cost_of
from ablations.quantities import byte_size
from tests.conftest import Ablate

SOURCE = """\
domain: english
tokens_available: 1_000_000_000_000
origin: {kind: hub, repo: team/web, subset: large}
subsets:
  large: {tokens: 1_000_000, documents: 1000, text_bytes: 4_600_000, download_bytes: 2_000_000}
heldout_share: 0.0
licence: MIT
"""
RUN = ("mixture.weights={web:1.0}", "schedule.total_tokens=512000", "evaluation=heldout")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABLATIONS_MIRROR", raising=False)
    (tmp_path / "mine/source").mkdir(parents=True)
    (tmp_path / "mine/source/web.yaml").write_text(SOURCE)
    (tmp_path / "mine/mixture").mkdir()
    (tmp_path / "mine/mixture/mine.yaml").write_text("weights: {web: 1.0}\n")
    return tmp_path


def plan(ablate: Ablate, *more: str) -> str:
    answer = ablate("plan", "--config-dir", "mine", "mixture=mine", *RUN[1:], *more)
    assert answer.code == 0, answer.err
    return answer.out


def row(printed: str, name: str) -> list[str]:
    """The cells of the last row that begins with a name."""
    lines = [line for line in printed.splitlines() if line.split("│")[1:2] == [f" {name:<6} "]]
    return [cell.strip() for cell in lines[-1].split("│")[1:-1]]


def test_a_plan_counts_epochs_over_the_subset_and_its_caps(ablate: Ablate, mine: Path) -> None:
    assert "0.512" in plan(ablate)
    assert "1.026" in plan(ablate, "+source.web.max_bytes=2_298_000")  # half, less half a document
    assert "1.024" in plan(ablate, "+source.web.max_documents=500")
    assert not (mine / "data").exists()


def test_a_plan_prints_what_prepare_will_download_tokenise_and_store(
    ablate: Ablate, mine: Path
) -> None:
    cells = row(plan(ablate), "web")
    assert cells == ["web", "1k", "4.6 MB", "1M", "2 MB", "2.01 MB", "4.01 MB", "published size"]


def test_a_plan_looks_at_the_mirror(ablate: Ablate, mine: Path) -> None:
    folder = mine / "mirror/team/web"
    (folder / "large").mkdir(parents=True)
    card = "---\nconfigs:\n- config_name: large\n  data_files: large/*.jsonl\n---\n"
    (folder / "README.md").write_text(card)
    texts = [text.text for text in documents("dialogue", 300, seed=0)]
    rows = [json.dumps({"text": text}) for text in texts]
    (folder / "large/a.jsonl").write_text("\n".join(rows))
    cells = row(plan(ablate, "prepare.mirror=mirror", "schedule.total_tokens=5120"), "web")
    assert cells[1:3] == ["300", byte_size(sum(len(text.encode()) for text in texts))]
    assert (cells[4], cells[-1]) == ("0 bytes", "its text")


def test_a_plan_costs_the_execution_that_is_configured(ablate: Ablate, mine: Path) -> None:
    on_gpus = plan(ablate, "execution=gpu8", "price.usd_per_device_hour=1000000", "price.mfu=0.5")
    assert "8 × H100 SXM, bfloat16, training alone" in on_gpus
    flops = float(on_gpus.split("training FLOPs")[1].split("│")[1])
    shown = float(on_gpus.split(" of one device, ")[1].split(" dollars")[0].replace(",", ""))
    price = PriceSpec(mfu=0.5, usd_per_device_hour=1e6, overhead=0.0)
    assert shown == pytest.approx(cost_of(flops, price, 8).usd, rel=0.01)
    assert "on 2 CPU cores, training alone" in plan(ablate, "execution.device=cpu")


def test_a_study_s_plan_has_a_column_of_dollars_where_devices_have_a_price(
    ablate: Ablate, mine: Path
) -> None:
    given = (
        "-m",
        "search=ratio",
        "mixture=demo",
        "execution=gpu",
        "search.strategy.design_trials=1",
    )
    answer = ablate("plan", *given)
    assert answer.code == 0, answer.err
    assert "dollars" in answer.out
    assert "dollars" not in ablate("plan", *given[:-2], "execution.device=cpu").out


def test_a_full_run_has_a_bill_before_any_study(ablate: Ablate, mine: Path) -> None:
    answer = ablate("plan", "full=smollm2_135m", "mixture=smollm2")
    assert answer.code == 0, answer.err
    # 2.10T tokens × 1.23 GFLOP a token over 64 H100s at 30%, with 5% overhead and 2 dollars an hour.
    assert "bill of smollm2_135m" in answer.out
    assert "2,539 │ 39.7 hours │ 5,077.88" in answer.out
    assert "2.097T" in answer.out
    assert not list(mine.glob("promotions"))


def test_the_bill_s_stages_are_those_of_a_promotion(ablate: Ablate, mine: Path) -> None:
    answer = ablate("plan", "full=demo_full", "mixture=wiki_code")
    assert answer.code == 0, answer.err
    for stage in ("stable", "more_code", "decay"):
        assert f"│ {stage:<9} │" in answer.out
    # 10% of the second stage is reserved for code, and the mixture fills the rest.
    assert answer.out.count("code") > 1


def test_a_full_run_that_is_not_there_is_named_with_the_nearest(ablate: Ablate, mine: Path) -> None:
    answer = ablate("plan", "full=smollm2_135")
    assert answer.code == 2
    assert "smollm2_135m" in answer.err


@pytest.mark.parametrize(
    "wrong", ["price.mfu=0", "price.usd_per_device_hour=-1", "price.peak_tflops=0", "price.what=1"]
)
def test_a_price_that_cannot_be_is_refused(ablate: Ablate, mine: Path, wrong: str) -> None:
    more = f"+{wrong}" if "what" in wrong else wrong
    answer = ablate("plan", "--config-dir", "mine", "mixture=mine", *RUN[1:], more)
    assert answer.code == 2
    assert "price." in answer.err


def test_a_program_reads_the_cost_and_the_preparation(ablate: Ablate, mine: Path) -> None:
    result = json.loads(
        ablate("plan", "--config-dir", "mine", "mixture=mine", *RUN[1:], "json=true").out
    )["result"]
    (web,) = result["to_prepare"]
    assert (web["name"], web["download_bytes"]) == ("web", 2e6)
    assert web["tokens"] == pytest.approx(1e6)
    assert (result["cost"]["usd"], result["full_run"]) == (None, None)
    full = json.loads(ablate("plan", "full=smollm2_135m", "mixture=smollm2", "json=true").out)
    assert full["result"]["full_run"]["usd"] == pytest.approx(5077.88, abs=0.01)
    assert full["result"]["total_tokens"] == 2_097_152_000_000
