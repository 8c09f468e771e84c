"""Searches, their metrics and known trials are checked before anything trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import SHORT_SOURCES, TINY, Ablate

SEARCH = (
    *TINY,
    *SHORT_SOURCES,
    "study=checked",
    "search=mixture",
    "search.strategy.design_trials=3",
    "search.budget.trials=6",
)
STAGES = (
    "~schedule.stages.main",
    "+schedule.stages={stable:{share:rest},decay:{share:0.2}}",
    "schedule.lr.decay_share=decay",
    "schedule.total_tokens=16384",
)
"""Two stages whose boundary is one number."""

BOUNDARY = "+search.space.parameters={schedule.stages.decay.share:{kind:float,low:0.05,high:0.4}}"

NOTHING = "matches no metric that the runs are scored on"
WRONG = {
    "a budget below zero": (("search.budget.trials=-3",), "search.budget.trials: not a budget"),
    "an unknown key": (("+search.strategie=x",), "search.strategie: unknown key"),
    "a baseline that is none": (
        ("search.strategy.baseline=natura",),
        "search.strategy.baseline: not among the mixtures",
    ),
    "a path that is not there": (
        ("+search.space.parameters={training.peek_lr:{kind:log,low:0.1,high:1}}",),
        "search.space.parameters.training.peek_lr: unknown key",
    ),
}
UNMEASURED = {
    "a term of a task that is not scored": (
        ("evaluation.score.terms.facts.metrics=synthetic_fact/acc",),
        f"evaluation.score.terms.facts.metrics: {NOTHING}; found: synthetic_fact/acc",
    ),
    "held-out text that is not scored": (
        ("evaluation.heldout=false", "evaluation.score.terms.facts.metrics='heldout_*/bpb'"),
        "set evaluation.heldout=true",
    ),
    "bits per byte above chance": (
        (
            "evaluation.score.terms.facts.metrics='*/bpb'",
            "+evaluation.score.terms.facts.rescale=true",
        ),
        "has no chance level to rescale by",
    ),
}
OF_A_STUDY = {
    "an objective": (
        (
            "search.objectives.score.metrics=[heldout_wikki/bpb]",
            "search.objectives.score.direction=minimize",
        ),
        f"search.objectives.score.metrics: {NOTHING}; found: heldout_wikki/bpb",
    ),
    "a constraint": (
        ("+search.constraints.code={metrics:[code/acc],bound:1.0}",),
        f"search.constraints.code.metrics: {NOTHING}; found: code/acc",
    ),
}


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        *(("plan", mistake) for mistake in (*WRONG, *UNMEASURED)),
        ("run", "a budget below zero"),
        ("run", "held-out text that is not scored"),
    ],
)
def test_a_single_run_and_its_plan_refuse_it(
    workspace: Path, ablate: Ablate, command: str, mistake: str
) -> None:
    overrides, message = {**WRONG, **UNMEASURED}[mistake]
    answer = ablate(command, *SEARCH, *overrides)
    assert answer.code == 2
    assert message in answer.err
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("plan", "an unknown key"),
        ("plan", "a path that is not there"),
        ("plan", "held-out text that is not scored"),
        *(("plan", mistake) for mistake in OF_A_STUDY),
        ("run", "an objective"),
    ],
)
def test_a_study_and_its_plan_refuse_it_before_anything_trains(
    workspace: Path, ablate: Ablate, command: str, mistake: str
) -> None:
    overrides, message = {**WRONG, **UNMEASURED, **OF_A_STUDY}[mistake]
    answer = ablate(command, "-m", *SEARCH, *overrides)
    assert answer.code == 2
    assert message in answer.err
    assert not list(workspace.glob("runs/*/trial-*"))


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_trial_that_cannot_be_run_is_refused_by_name(
    workspace: Path, ablate: Ablate, command: str
) -> None:
    given = ("-m", *SEARCH, *STAGES, BOUNDARY, "schedule.stages.stable.share=0.8")
    answer = ablate(command, *given)
    assert answer.code == 2
    assert "design 1: schedule.stages: the stages' budgets do not add up" in answer.err
    # No trial was begun, so the corrected command may define the study anew.
    assert not list(workspace.glob("runs/*/study.json"))


def test_the_ends_of_a_range_are_planned_too(workspace: Path, ablate: Ablate) -> None:
    beyond = BOUNDARY.replace("high:0.4", "high:1.0")
    answer = ablate("plan", "-m", *SEARCH, *STAGES, beyond, "search.strategy.design_trials=0")
    assert answer.code == 2
    assert "schedule.stages.decay.share=1.0: schedule.stages.stable: needs a budget" in answer.err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_combination_that_cannot_be_run_is_refused_by_name(
    workspace: Path, ablate: Ablate, command: str
) -> None:
    answer = ablate(command, "-m", *TINY, *SHORT_SOURCES, "training.peak_lr=0.001,-5")
    assert answer.code == 2
    assert "training.peak_lr=-5: training.peak_lr: must be positive" in answer.err


def test_a_stage_boundary_and_the_decay_with_it_are_planned(
    workspace: Path, ablate: Ablate
) -> None:
    answer = ablate("plan", "-m", *SEARCH, *STAGES, BOUNDARY)
    assert answer.code == 0, answer.err
    assert "schedule.stages.decay.share=0." in answer.out


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_a_trial_of_a_stage_boundary_composes_and_its_decay_follows(
    workspace: Path, share: float
) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir, load
    from ablations.plan import make_plan
    from sweeps.study.job_overrides import job_overrides
    from sweeps.study.trial import TrialSpec

    weights = dict.fromkeys(("synthetic_facts", "synthetic_arithmetic", "synthetic_junk"), 1 / 3)
    point = {"mixture.weights": weights, "schedule.stages.decay.share": share}
    overrides = job_overrides(
        TrialSpec(number=0, phase="design", point=point), 0, "s", (*SEARCH, *STAGES)
    )
    with initialize_config_dir(str(conf_dir())):
        composed = compose("run", overrides=[o for o in overrides if not o.startswith("hydra.")])
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    plan = make_plan(load({str(key): value for key, value in plain.items()}))
    stable, decay = plan.schedule.stages
    assert (stable.steps, decay.steps) == (64 - round(64 * share), round(64 * share))
    assert plan.learning_rate.decay_steps == decay.steps
