"""Evaluation configs: accepted and refused values, and every shipped file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import conf_dir, validate
from ablations.errors import ConfigError
from ablations.evaluation.dataset_readers import COLUMNS
from ablations.evaluation.specs import (
    METRICS,
    EvaluationSpec,
    HubData,
    ScoreRule,
    ScoreTerm,
    TaskSpec,
)

CONF = conf_dir() / "evaluation"
SUITES = sorted(path.stem for path in CONF.glob("*.yaml"))
SMOLLM2 = (
    "hellaswag arc_easy arc_challenge mmlu mmlu_letters mmlu_pro piqa winogrande "
    "openbookqa commonsenseqa triviaqa gsm8k math humaneval boolq siqa"
)


def composed(suite: str, *overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_dir())):
        config = compose(overrides=[f"+evaluation={suite}", *overrides])
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    evaluation: dict[str, Any] = plain["evaluation"]
    return evaluation


def task(**changes: Any) -> TaskSpec:
    return TaskSpec(
        **{"form": "cloze", "domain": "english", "items": "quiz", "metrics": ("acc",), **changes}
    )


@pytest.mark.parametrize("suite", SUITES)
def test_a_shipped_suite_is_valid(suite: str) -> None:
    spec = validate(EvaluationSpec, composed(suite))
    for name, one in spec.tasks.items():
        assert one.hub is None or one.hub.columns in COLUMNS, name
        assert set(one.metrics) <= set(METRICS[one.form]), name


@pytest.mark.parametrize("path", sorted((CONF / "tasks").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_task_file_holds_the_task_of_its_name(path: Path) -> None:
    tasks = composed("none", f"+evaluation/tasks=[{path.stem}]")["tasks"]
    assert list(tasks) == [path.stem]
    validate(TaskSpec, tasks[path.stem])


def test_the_smollm2_suite_is_complete_and_its_score_uses_every_task() -> None:
    spec = validate(EvaluationSpec, composed("smollm2"))
    assert list(spec.tasks) == SMOLLM2.split()
    assert spec.score is not None
    covered = " ".join(term.metrics for term in spec.score.terms.values())
    assert all(name in covered or name.startswith("arc_") for name in SMOLLM2.split())
    assert all(term.rescale for term in spec.score.terms.values())


def test_the_demo_has_eight_offline_tasks_or_more() -> None:
    spec = validate(EvaluationSpec, composed("demo"))
    assert spec.origin == "items"
    assert sum(one.items is not None for one in spec.tasks.values()) >= 8


def test_a_value_of_one_task_can_be_overridden() -> None:
    tasks = composed("demo", "evaluation.tasks.arc_easy.max_items=7")["tasks"]
    assert tasks["arc_easy"]["max_items"] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("accuracy",)}, "no such metric"),
        ({"metrics": ()}, "needs a metric"),
        ({"metrics": ("exact_match",)}, "no such metric"),
        ({"form": "generative", "metrics": ("exact_match",)}, "max_new_tokens"),
        ({"items": None}, "needs items"),
        ({"source": "wiki"}, "does not read held-out documents"),
        ({"form": "rolling", "items": None, "metrics": ("bpb",)}, "needs a source"),
        ({"form": "letters"}, "shows the options"),
        ({"prompt": "{qestion}"}, "unknown field"),
        ({"prompt": "{question"}, "not a template"),
        ({"chance": 1.0}, "not a chance level"),
        ({"max_items": 0}, "too small"),
        ({"shots": -1}, "too small"),
        ({"shots": 5, "hub": HubData(repo="a/b", columns="arc")}, "need a split"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task(**changes)


def test_all_problems_of_a_task_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        task(metrics=("accc",), prompt="{x}", max_items=0)
    assert len(caught.value.problems) == 3
    assert "did you mean 'acc'" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"metrics": "acc"}, {"metrics": "*/acc", "weight": 0.0}, {"metrics": "a/b/c"}]
)
def test_a_score_term_needs_a_pattern_and_a_weight(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ScoreTerm(**changes)


def test_a_score_needs_terms() -> None:
    with pytest.raises(ConfigError, match="at least one term"):
        ScoreRule(direction="maximize", terms={})


@pytest.mark.parametrize("changes", [{"batch_tokens": 0}, {"tasks": {"a/b": task()}}])
def test_a_suite_that_cannot_be_run_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EvaluationSpec(**changes)


def test_held_out_tasks_are_added_for_the_sources_of_a_run() -> None:
    spec = EvaluationSpec(tasks={"quiz": task()}, heldout_max_items=5, max_items=9)
    tasks = spec.all_tasks(("wiki", "chat"))
    assert list(tasks) == ["quiz", "heldout_wiki", "heldout_chat"]
    assert spec.limit(tasks["heldout_wiki"]) == 5
    assert spec.limit(tasks["quiz"]) == 9
    assert spec.limit(task(max_items=3)) == 3
    assert list(EvaluationSpec(heldout=False).all_tasks(("wiki",))) == []


def test_specs_need_neither_torch_nor_lighteval() -> None:
    import subprocess
    import sys

    code = (
        "import sys, ablations.evaluation.specs\n"
        "heavy = {'torch', 'transformers', 'lighteval', 'pandas', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
