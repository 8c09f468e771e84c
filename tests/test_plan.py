"""The plan of a run: the full run's caps and epochs, a warm start's cost; and the audit of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.config.schema import RunConfig, conf_dir, load
from ablations.errors import AuditError
from ablations.execute import Work, open_work
from ablations.plan import make_plan
from ablations.training.train_job import TrainOutcome
from tests.conftest import SHORT_SOURCES, TINY

SOURCES = ("synthetic_facts", "synthetic_arithmetic", "synthetic_junk")
EVEN = tuple(f"mixture.weights.{name}={1 / 3}" for name in SOURCES)
STATED = tuple(f"++source.{name}.tokens_available=30_000" for name in SOURCES)
FULL = ("schedule.full_tokens=180_000", "schedule.total_tokens=18432", "mixture.epoch_cap=10")
"""A full run of 2 epochs of every source, and a proxy of about a tenth of it: 72 steps."""


def composed_plain(*overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_dir())):
        plain = OmegaConf.to_container(
            compose("run", overrides=[*TINY, *SHORT_SOURCES, *overrides]), resolve=True
        )
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def composed(*overrides: str) -> RunConfig:
    return load(composed_plain(*overrides))


def test_a_source_over_its_cap_at_the_full_budget_is_refused_by_name() -> None:
    # Sources are not prepared: there are no slices, and the proxy itself reads each source at most once.
    given = (*EVEN, *STATED, *FULL, "data_dir=nowhere")
    tight, within = (
        make_plan(composed(*given, f"++source.synthetic_junk.tokens_available={tokens}"))
        for tokens in (5_900, 6_100)
    )
    (problem,) = tight.problems
    assert problem.where == "source.synthetic_junk"
    assert "10.17 epochs" in str(problem)
    assert within.problems == ()


def test_the_proxy_s_epochs_are_the_full_run_s(workspace: Path) -> None:
    plan = make_plan(composed(*EVEN, *STATED, *FULL))
    assert plan.slices is not None
    # 30,000 stated tokens × 18,432 / 180,000, in windows of 32.
    assert plan.slices == dict.fromkeys(SOURCES, 96)
    assert plan.epochs == pytest.approx(dict.fromkeys(SOURCES, 2.0))
    assert make_plan(composed(*EVEN, *STATED)).slices is None


def read_evenly(work: Work, counts: list[int]) -> TrainOutcome:
    steps = work.plan.schedule.total_steps
    return TrainOutcome(
        status="done",
        reason=None,
        last_step=steps,
        checkpoints=(steps,),
        windows=(tuple(counts),),
    )


def test_the_audit_counts_epochs_of_the_slices(workspace: Path) -> None:
    work = open_work(composed(*EVEN, *STATED, *FULL))
    work.outcome = read_evenly(work, [192, 192, 192])
    work.check()
    audit = work.record.audit()
    assert audit is not None
    assert audit["epochs"] == pytest.approx(work.plan.epochs)


def test_a_run_that_read_another_mixture_fails_its_audit(workspace: Path) -> None:
    work = open_work(composed(*EVEN, *STATED, *FULL))
    work.outcome = read_evenly(work, [288, 192, 96])
    with pytest.raises(AuditError, match="synthetic_facts"):
        work.check()
    work.fail("the audit")
    result = work.record.result()
    assert result is not None
    assert (result["status"], result["audit_ok"], work.record.status) == ("failed", False, "failed")


def test_a_warm_start_costs_only_the_steps_that_it_trains(workspace: Path) -> None:
    config = composed()
    whole = make_plan(config)
    start = replace(config.warm_start, checkpoint="somewhere", first_step=4)
    half = make_plan(replace(config, warm_start=start))
    assert whole.schedule.total_steps == 8
    assert half.flops == whole.flops / 2
    assert half.seconds["2 CPU cores"] == whole.seconds["2 CPU cores"] / 2
    assert np.isfinite(half.flops)
