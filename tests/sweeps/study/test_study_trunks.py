"""Trunks of a study: which trials share one, who trains it, its cost, and studies that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import conf_dir
from ablations.errors import ConfigError
from ablations.files import write_json, write_sealed
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.budget import Account, ledger_of
from sweeps.study.driver import Driver
from sweeps.study.executor import Executor
from sweeps.study.progress_table import SilentView
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import BudgetSpec, ConfirmSpec, FidelitySpec, SearchSpec
from sweeps.study.study_state import Run
from sweeps.study.trunks import TrunkGroup, Trunks, find_trunks, trunk_account, waits_for_trunk
from tests.conftest import SHORT_SOURCES, TINY
from tests.sweeps.study.builders import SPACE, finish_as, outcome, spec, strategy, study, trial
from tests.sweeps.study.test_study_driver import Returned

STAGES = (
    *TINY,
    *SHORT_SOURCES,
    "~schedule.stages.main",
    "+schedule.stages.stable={share:rest}",
    "+schedule.stages.decay={share:0.375}",
    "schedule.lr.decay_share=decay",
)
STEP = 256.0
"""Tokens of a step; a run has eight steps, of which the last three decay."""


@pytest.fixture
def composed() -> Iterator[Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    def config(overrides: Sequence[str]) -> Any:
        return OmegaConf.to_container(compose("run", overrides=list(overrides)), resolve=True)

    with initialize_config_dir(str(conf_dir())):
        yield config


def found(composed: Any, *changes: Sequence[str], search: bool = False) -> Trunks:
    trials = [(f"t{n}", (*STAGES, *change)) for n, change in enumerate(changes)]
    return find_trunks(trials, composed, (), search=search)


def decay(facts: float) -> list[str]:
    weights = f"{{synthetic_facts:{facts},synthetic_arithmetic:{1 - facts}}}"
    return [f"+schedule.stages.decay.weights={weights}"]


def test_mixtures_of_the_last_stage_share_all_steps_before_it(composed: Any) -> None:
    trunks = found(composed, decay(0.9), decay(0.5), decay(0.1), search=True)
    (group,) = trunks.groups
    assert (group.steps, group.tokens, group.share) == (5, 5 * STEP, 5 / 8)
    assert trunks.tokens_of(["anything=else"]) == 5 * STEP, "a search has one group"
    assert trunks.share == 5 / 8


def test_arms_that_differ_from_the_first_step_share_nothing(composed: Any) -> None:
    for change in (
        ["model.hidden_size=48"],
        ["training.peak_lr=0.001"],
        ["mixture.weights.synthetic_facts=0.5", "mixture.weights.synthetic_junk=0.2"],
        ["schedule.lr.warmup_steps=3"],
        ["training.checkpoints=[256,2048]"],
    ):
        trunks = found(composed, decay(0.9), [*decay(0.9), *change], search=True)
        assert trunks.groups == (), change
        assert "no steps are equal" in trunks.reason
        assert trunks.tokens_of([]) is None


def test_arms_with_other_decays_share_the_steps_before_the_longest(composed: Any) -> None:
    shares = [[f"schedule.stages.decay.share={share}"] for share in (0.25, 0.375, 0.5)]
    trunks = found(composed, *shares)
    (group,) = trunks.groups
    assert (group.steps, len(group.keys)) == (4, 3)
    assert trunks.tokens_of([*STAGES, *shares[0]]) == 4 * STEP
    assert trunks.tokens_of([*STAGES, "schedule.stages.decay.share=0.3"]) is None


def test_a_sweep_is_grouped_so_that_most_steps_are_saved(composed: Any) -> None:
    models = ([], ["model.hidden_size=48"])
    trunks = found(
        composed,
        *([*model, *decay(facts)] for model in models for facts in (0.9, 0.1)),
        ["training.peak_lr=0.5"],
    )
    assert [(g.steps, len(g.keys)) for g in trunks.groups] == [(5, 2), (5, 2)]
    assert trunks.group_of([*STAGES, *models[0], *decay(0.9)]) != trunks.group_of(
        [*STAGES, *models[1], *decay(0.9)]
    )
    assert trunks.group_of([*STAGES, "training.peak_lr=0.5"]) is None


def test_steps_of_a_warm_up_are_no_trunk(composed: Any) -> None:
    warm = [["schedule.lr.warmup_steps=5"], ["schedule.lr.warmup_steps=5", *decay(0.5)]]
    assert found(composed, *warm).groups[0].steps == 5
    longer = [["schedule.lr.decay_steps=1", "schedule.lr.warmup_steps=6", *w[1:]] for w in warm]
    assert found(composed, *longer).groups == ()


def put_trunk(folder: Path, name: str, **cost: Any) -> None:
    place = folder / "trunks" / name
    place.mkdir(parents=True, exist_ok=True)
    paid = {
        "step": 5,
        "tokens": 50.0,
        "flops": 500.0,
        "wall_seconds": 36.0,
        "train_cpu_seconds": 30.0,
    }
    write_sealed(place / "trunk.json", {"status": "done", "reason": None, "cost": {**paid, **cost}})


def test_trunks_are_counted_once_and_named_in_the_ledger(tmp_path: Path) -> None:
    assert trunk_account(tmp_path) == Account()
    put_trunk(tmp_path, "abc-0", devices=2)
    put_trunk(tmp_path, "abc-1")
    trunks = trunk_account(tmp_path)
    assert (trunks.runs, trunks.tokens, trunks.flops) == (2, 100.0, 1000.0)
    assert trunks.device_hours == pytest.approx(0.03)
    ledger = ledger_of(BudgetSpec(flops=1.0, tokens=1000.0), [trial(0), trial(1)], trunks)
    assert ledger.plain()["trunks"]["runs"] == 2
    assert ledger.plain()["total"]["runs"] == 2, "a trunk is no run"
    assert ledger.plain()["total"]["tokens"] == 300.0
    alone = ledger_of(BudgetSpec(tokens=1000.0), [trial(0), trial(1)])
    assert "trunks" not in alone.plain()
    # A mean run has 100 tokens: with the trunks 3 x 100 are spent, and 700 of 1000 are for exploring.
    tight = BudgetSpec(tokens=400.0, confirm_share=0.0)
    assert ledger_of(tight, [trial(0), trial(1)], trunks).may_explore(0)
    assert not ledger_of(tight, [trial(0), trial(1)], trunks).may_explore(1)
    assert ledger_of(tight, [trial(0), trial(1)]).may_explore(1)


def test_tokens_of_a_trunk_are_not_those_of_the_run(tmp_path: Path) -> None:
    from sweeps.study.run_results import outcome_of

    state = study(tmp_path)
    wanted = trial(0).spec
    folder = state.folder / "trial-0000-0"
    folder.mkdir()
    content = {"status": "done", "score": 1.0, "metrics": {}, "tokens": 80, "cost": {"flops": 30.0}}
    shared = {"trunk": {"name": "abc-0", "step": 5, "tokens": 50}}
    write_json(folder / "result.json", {**content, **shared})
    ended = outcome_of(state.folder, wanted, 0)
    assert ended is not None
    assert (ended.tokens, ended.flops) == (30.0, 30.0)


class Launcher:
    """Launcher whose runs end when the test lets them, and which records what is in flight."""

    def __init__(self, state: Any) -> None:
        self.state, self.width = state, 3
        self.together: list[set[Run]] = []
        self._running: set[Run] = set()

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        named = dict(override.split("=", 1) for override in jobs[0])
        run = Run(int(named["trial"].removeprefix("trial-")), int(named["seed"]))
        self._running.add(run)
        time.sleep(0.1)
        self.together.append(set(self._running))
        folder = self.state.folder / f"trial-{run.number:04d}-{run.seed}"
        put_trunk(self.state.folder, f"abc-{run.seed}")
        RunRecord(folder).event("trunk", step=5, trunk=f"abc-{run.seed}")
        finish_as(self.state, run)
        self._running.discard(run)
        return [Returned(0)]


def test_the_first_run_of_a_trunk_is_launched_alone_and_the_others_after_it(tmp_path: Path) -> None:
    search = spec(confirm=ConfirmSpec(finalists=2, pick=False, seeds=(0, 1)))
    state = study(tmp_path, search)
    launcher = Launcher(state)
    group = TrunkGroup(steps=5, tokens=50.0, share=0.5, keys=frozenset())
    waits = waits_for_trunk(state, Trunks(groups=(group,), search=True))
    assert waits(
        Run(state.add_trial(strategy(search).next_drafts(state.history(), 1)[0]).number, 0)
    )
    driver = Driver(
        state,
        SearchScheduler(strategy(search), None),
        Executor(launcher, "thread", 3),
        overrides=lambda run: [f"trial=trial-{run.number:04d}", f"seed={run.seed}"],
        check=lambda _: None,
        view=SilentView(),
        waits=waits,
    )
    driver.run()
    assert launcher.together[0] == {Run(0, 0)}, "nobody waits in a slot"
    assert max(map(len, launcher.together)) == 3, "then all slots are used"
    first: dict[Hashable, set[Run]] = {}
    for running in launcher.together:
        for run in running:
            first.setdefault(run.seed, running)
    assert all(len(running) == 1 for running in first.values()), "of another seed too"


def test_runs_that_pause_have_no_trunk() -> None:
    with pytest.raises(ConfigError, match="start from a trunk do not pause"):
        SearchSpec(
            space=SPACE,
            budget=BudgetSpec(trials=4),
            trunks=True,
            fidelity=FidelitySpec(share=0.3),
        )
    assert outcome().tokens == 100.0


STUDY = (
    *STAGES,
    "study=arms",
    "search=mixture",
    "search.space.mixtures=null",
    "+search.space.mixtures={schedule.stages.decay.weights:{sources:[synthetic_facts,synthetic_junk]}}",
    "search.strategy.baselines=[uniform]",
    "search.strategy.baseline=uniform",
    "search.strategy.design_trials=2",
    "search.budget.trials=4",
    "search.confirm.finalists=1",
    "search.confirm.pick=false",
    "search.confirm.seeds=[0,1]",
    "+schedule.stages.decay.weights={synthetic_facts:0.5,synthetic_junk:0.5}",
)


def ablate(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ablations.cli", *arguments],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def measured(folder: Path) -> dict[str, Any]:
    return {
        record.path.name: (
            [(row["loss"], row["grad_norm"]) for row in record.metrics()],
            (record.result() or {}).get("metrics"),
            record.audit(),
        )
        for record in list_runs(folder, "arms")
    }


@pytest.mark.slow
def test_a_killed_study_with_trunks_measures_what_a_study_without_them_does(
    workspace: Path,
) -> None:
    plan = ablate(workspace, "plan", "-m", *STUDY, "search.trunks=true")
    assert "the first 5 steps (62%) are equal in all trials" in plan
    assert "trunks, one for each seed" in plan
    ablate(workspace, "run", "-m", *STUDY, "runs_dir=alone")
    command = [sys.executable, "-m", "ablations.cli", "run", "-m", *STUDY, "search.trunks=true"]
    process = subprocess.Popen(command, cwd=workspace, start_new_session=True)
    trunks = workspace / "runs/arms/trunks"
    while process.poll() is None and not list(trunks.glob("*/metrics.jsonl")):
        time.sleep(0.02)
    _kill(process)
    ablate(workspace, *command[3:])
    assert measured(workspace / "runs") == measured(workspace / "alone")
    (first, second) = sorted(trunks.iterdir())
    assert [f.name[-2:] for f in (first, second)] == ["-0", "-1"], "one for each seed"
    ledger = json.loads((workspace / "runs/arms/ledger.json").read_text())
    whole = json.loads((workspace / "alone/arms/ledger.json").read_text())
    assert ledger["trunks"]["runs"] == 2
    runs, flops = whole["total"]["runs"], whole["total"]["flops"]
    assert ledger["total"]["flops"] == pytest.approx(flops * (3 * runs + 2 * 5) / (8 * runs))


def _kill(process: subprocess.Popen[bytes]) -> None:
    import psutil

    own = psutil.Process(process.pid)
    for one in [own, *own.children(recursive=True)]:
        os.kill(one.pid, signal.SIGKILL)
    process.wait()
