"""Every shipped config is accepted by the code that reads it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations.config.composed import composed_problems
from ablations.config.schema import conf_dir, load, source_values
from ablations.data.catalogue import load_catalogue, load_source
from ablations.mixture.specs import LearningRateSpec, MixtureSpec
from ablations.plan import make_plan
from ablations.record.identity import run_name
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from sweeps.study.trial import trial_name

CONF = conf_dir()


def composed(*overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF)):
        config = OmegaConf.to_container(compose("run", overrides=list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


AFTER_PRETRAINING = {
    "demo_sft": "demo_sft",
    "demo_dpo": "demo_dpo",
    "smoltalk": "smoltalk_mixture",
    "smol_smoltalk": "smol_smoltalk",
    "ultrafeedback": "ultrafeedback_rounds",
    "smolvlm2_256m": "smolvlm_text_share",
    "smolvlm2_2b2": "smolvlm2_2b2",
    "smolvlm_vision": "smolvlm_vision",
    "demo_sight": "demo_sight",
    "demo_vision": "demo_vision",
}
"""Schedule in samples → experiment that it belongs to."""


def options(group: str) -> list[str]:
    names = [path.stem for path in sorted((CONF / group).glob("*.yaml"))]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("name", load_catalogue())
def test_every_source_loads(name: str) -> None:
    assert load_source(name).tokens_available > 0


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_is_a_valid_run(name: str) -> None:
    run = load(composed(f"experiment={name}"))
    assert run.build_schedule().total_steps > 0


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_is_what_a_command_accepts(name: str) -> None:
    assert composed_problems(composed(f"experiment={name}")) == []


def _begins_from(name: str) -> tuple[str, str, int] | None:
    """Study, run and step of the checkpoint that an experiment begins from, if it is a study's."""
    checkpoint = str(load(composed(f"experiment={name}")).warm_start.checkpoint)
    found = re.fullmatch(r"runs/([^/]+)/([^/]+)/checkpoints/(\d+)", checkpoint)
    return (found[1], found[2], int(found[3])) if found else None


@pytest.mark.parametrize("name", options("experiment"))
def test_a_checkpoint_to_begin_from_is_one_that_a_study_leaves(name: str) -> None:
    found = _begins_from(name)
    if found is None:
        return
    study, run, step = found
    if study == "demo_sight":  # a single run: the warm-up of the vision part
        before = composed(f"experiment={study}")
        assert run == f"{before['trial']}-0"
        assert step == load(before).build_schedule().total_steps
        return
    if study not in options("experiment"):
        assert (study, run) == ("demo_ratio-demo_full-001", "full-0")  # the demo's full run
        return
    before = composed(f"experiment={study}")
    assert run == run_name(trial_name(0), 0)  # of the first trial, which is the first baseline
    strategy = before["search"]["strategy"]
    assert strategy["baselines"][0] == strategy["baseline"]
    assert step == load(before).build_schedule().total_steps


def test_the_test_above_has_something_to_hold() -> None:
    assert sum(_begins_from(name) is not None for name in options("experiment")) >= 4


@pytest.mark.parametrize("name", ["web_proxy_30m", "web_proxy_150m"])
def test_the_first_real_experiments_break_no_rule(name: str, tmp_path: Path) -> None:
    plan = make_plan(load(composed(f"experiment={name}", f"data_dir={tmp_path}")))
    assert plan.problems == ()
    assert {one.basis for one in plan.to_prepare.values()} == {"published size"}
    assert plan.to_prepare["dclm_10b"].tokens == pytest.approx(10e9, rel=1e-3)


@pytest.mark.parametrize("name", options("schedule"))
def test_every_schedule_builds(name: str) -> None:
    base: tuple[str, ...] = (
        *("mixture=smollm2", "model=smollm2_1b7", "tokenizer=cosmo2", "training=smollm2_1b7"),
    )
    if name in AFTER_PRETRAINING:
        base = (f"experiment={AFTER_PRETRAINING[name]}",)
    elif name.startswith("demo"):
        base = ()
    run = load(composed(f"schedule={name}", *base))
    assert run.build_schedule().total_tokens > 0


@pytest.mark.parametrize("name", options("evaluation"))
def test_every_suite_is_valid(name: str) -> None:
    load(composed(f"evaluation={name}"))


@pytest.mark.parametrize("name", options("model"))
def test_every_model_is_valid(name: str) -> None:
    assert load(composed(f"model={name}")).model.parameters > 0


@pytest.mark.parametrize("name", options("training"))
def test_every_training_is_valid(name: str) -> None:
    longest = "model.max_position_embeddings=8192"
    load(composed(f"training={name}", "model=smollm2_1b7", longest, "schedule.total_tokens=1e9"))


@pytest.mark.parametrize("name", options("execution"))
def test_every_execution_fits_the_1_7b_model(name: str) -> None:
    run = load(composed("experiment=smollm2_1b7", f"execution={name}"))
    for device, planned in make_plan(run).memory.items():
        assert not isinstance(planned, str), f"{device}: {planned}"


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (MixtureSpec, ("mixture",)),
        (LearningRateSpec, ("schedule", "lr")),
        (ModelSpec, ("model",)),
        (TrainingSpec, ("training",)),
        (ExecutionSpec, ("execution",)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_run_config_lists_every_default_so_that_no_override_needs_a_plus(
    kind: type, where: tuple[str, ...]
) -> None:
    listed: Any = yaml.safe_load((CONF / "run.yaml").read_text())
    for key in where:
        listed = listed[key]
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }
    assert {
        name: type(value)(listed[name]) if value is not None else listed[name]
        for name, value in defaults.items()
    } == defaults
    assert set(listed) <= {field.name for field in dataclasses.fields(kind)}


def test_no_config_names_a_path_of_this_machine() -> None:
    for path in CONF.rglob("*.yaml"):
        assert str(Path.home()) not in path.read_text(), path


def test_a_users_source_goes_before_the_platforms_own(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    own = (CONF / "source/wiki.yaml").read_text().replace("domain: english", "domain: mine")
    (tmp_path / "source/wiki.yaml").write_text(own)
    run = load(composed(), [CONF, tmp_path])
    assert run.source["wiki"].domain == "mine"
    assert run.source["chat"].domain == "english"


def test_a_field_of_a_sources_rows_can_be_overridden_alone() -> None:
    run = load(composed("experiment=demo_sft", "+source.chat_turns.rows.max_turns=2"))
    own = load_source("chat_turns").rows
    assert own is not None
    assert run.source["chat_turns"].rows == dataclasses.replace(own, max_turns=2)


def test_rows_of_another_kind_replace_those_of_the_source() -> None:
    rows = "+source.cauldron_vqa.rows={kind: conversations, max_tokens: 64, messages_column: said}"
    values = composed("experiment=smolvlm_vision", rows)
    found = source_values(values)["cauldron_vqa"]["rows"]
    assert found == {"kind": "conversations", "max_tokens": 64, "messages_column": "said"}
