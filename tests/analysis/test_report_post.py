"""Reports and cards of fine-tuning: what was trained, what it counts, the stages after a full run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.frames.config_columns import varied_parameters
from analysis.promotions import promotions
from analysis.report import ReportContent, gather_report, model_card, render_markdown
from analysis.report.charts import charts
from analysis.report.facts import facts
from analysis.report.index import gather_index
from analysis.report.post_training import after_section, method_sentence, stage_scores

FIXTURES = Path(__file__).parent / "fixtures"

AFTER = [
    {
        "name": "sft",
        "study": "demo_sft_ratio",
        "candidate": "chat50",
        "trial": "trial-0001",
        "verdict": "Winner: chat_turns 50%.",
        "method": {"kind": "sft", "unit": "samples", "loss": "all"},
        "samples": 640,
        "steps": 80,
        "peak_lr": 0.002,
        "weights": {"chat_turns": 0.5, "code_tasks": 0.5},
    },
    {
        "name": "dpo",
        "study": "demo_dpo",
        "candidate": "trial-0003",
        "trial": "trial-0003",
        "verdict": "Winner: trial-0003.",
        "method": {"kind": "dpo", "beta": 0.3, "rounds": 2},
        "samples": 240,
        "steps": 30,
        "peak_lr": 0.001,
        "weights": {"whole_solutions": 1.0},
    },
]


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return gather_report(FIXTURES / "post", "demo_sft_ratio")


@pytest.fixture
def promoted(tmp_path: Path) -> Path:
    """A promotion that ends in two stages after its full run."""
    folder = tmp_path / "promotions/quick-demo_full-001"
    shutil.copytree(FIXTURES / "promotions/quick-demo_full-001", folder)
    record = json.loads((folder / "promotion.json").read_text())
    record.pop("content_sha256", None)
    (folder / "promotion.json").write_text(json.dumps({**record, "after": AFTER}))
    return folder


def test_a_report_states_how_the_runs_were_trained(content: ReportContent) -> None:
    text = render_markdown(content)
    start = "runs/demo_ratio-demo_full-001/full-0/checkpoints/600"
    assert f"Fine-tuned with TRL from {start}: loss of all tokens; weights are shares of" in text
    assert "3,840 conversations trained on" in text


def test_figures_count_conversations_and_not_tokens(content: ReportContent) -> None:
    made = {chart.key: chart for chart in charts(content)}
    assert "share of conversations" in made["ratio"].figure.layout.xaxis.title.text
    assert "Shares of conversations in each stage" in made["timeline"].caption
    assert made["timeline"].figure.layout.xaxis.range[1] == 640
    for chart in made.values():
        axes = [chart.figure.layout.xaxis.title.text, chart.figure.layout.yaxis.title.text]
        assert not any("tokens" in str(text) for text in axes), chart.key


def test_figures_of_pretraining_count_tokens() -> None:
    made = charts(gather_report(FIXTURES / "runs", "demo_ratio"))
    (ratio,) = [chart for chart in made if chart.key == "ratio"]
    assert "share of tokens" in ratio.figure.layout.xaxis.title.text


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ([{"kind": "pretrain"}], None),
        ([{}], None),
        ([{"kind": "sft"}, {"kind": "dpo"}], None),
        (
            [{"kind": "sft", "loss": "answers", "unit": "tokens"}],
            "loss of the answers alone; weights are shares of tokens that the loss counts",
        ),
        ([{"kind": "sft", "loss": "all"}, {"kind": "sft", "loss": "answers"}], "several values of"),
        ([{"kind": "dpo", "beta": 0.1, "rounds": 3}], "beta 0.1; 3 rounds"),
        (
            [{"kind": "dpo", "beta": 0.1, "rounds": 1}, {"kind": "dpo", "beta": 0.5, "rounds": 1}],
            "from model: several values of beta; weights",
        ),
    ],
)
def test_the_method_is_one_sentence(methods: list[dict[str, Any]], said: str | None) -> None:
    configs = [
        {"method": {"unit": "samples", **method}, "warm_start": {"checkpoint": "model"}}
        for method in methods
    ]
    found = method_sentence(configs)  # type: ignore[arg-type]
    assert (found is None) if said is None else (said in str(found))


def test_beta_is_a_parameter_of_a_study() -> None:
    runs = [
        (name, {"method": {"kind": "dpo", "beta": beta}}) for name, beta in (("a", 1), ("b", 2))
    ]
    assert varied_parameters(runs) == {"method.beta": {"a": 1, "b": 2}}


def test_a_promotion_names_the_studies_after_its_full_run(promoted: Path) -> None:
    (one,) = promotions(promoted.parent)
    of_its_study = gather_report(FIXTURES / "runs", "demo_ratio")
    shown = next(f for f in facts(replace(of_its_study, promoted=(one,))) if f.name == "Promoted")
    assert "then the picks of demo_sft_ratio, demo_dpo" in shown.lines
    assert one.after == ["demo_sft_ratio", "demo_dpo"]
    found = gather_report(FIXTURES / "post", "demo_sft_ratio", promotions_dir=promoted.parent)
    promotion = next(fact for fact in facts(found) if fact.name == "Promoted")
    assert promotion.value == "after demo_full"
    assert promotion.lines[0].startswith("a stage of promotion quick-demo_full-001")
    text = render_markdown(found)
    assert "goes on after its full run demo_full: the pick of study demo_sft_ratio, then" in text
    assert "an estimate" not in text  # the full run is not this study's
    rows = gather_index(FIXTURES / "post", promotions_dir=promoted.parent)
    assert [row.promoted[0].split(",")[0] for row in rows] == ["after demo_full"]


def test_the_model_card_has_the_stages_after_the_full_run(promoted: Path) -> None:
    text = model_card(promoted)
    assert "## After pretraining" in text
    assert "**sft** (sft): 640 conversations in 80 steps, learning rate 0.002" in text
    assert "240 pairs in 30 steps, learning rate 0.001; whole" in text
    assert "Beta 0.3, 2 rounds. Chosen by study" in text
    assert "have not been scored yet" in text
    assert "A base model: not aligned" not in text
    assert "## After pretraining" not in model_card(FIXTURES / "promotions/quick-demo_full-001")


def test_the_stages_are_compared_task_by_task() -> None:
    rows = [
        ("full", "heldout_wiki", "bpb", 3.0),
        ("sft", "heldout_wiki", "bpb", 3.1),
        ("sft", "heldout_chat", "bpb", 2.5),
        ("dpo", "heldout_chat", "bpb", 2.6),
    ]
    table = pd.DataFrame(rows, columns=["trial", "task", "metric", "value"])
    lines = list(after_section({"after": AFTER}, stage_scores(table)))
    assert "| task | full | sft | dpo |" in lines
    joined = "\n".join(lines)
    assert "| 3 | 3.1 | – |" in joined
    assert "| – | 2.5 | 2.6 |" in joined
