"""Annealing arms: one checkpoint, several continuations, each with one source under test.

    trunk  ── before: mixture M, learning rate warm then flat ──▶ checkpoint
                                                                    ├─▶ control  100% M            ╲ rate
    arms                                                            ├─▶ math      60% math + 40% M ─╲ to 0
                                                                    └─▶ code      60% code + 40% M ──╲

SmolLM2 chose its math and code sources this way (arXiv 2502.02737, sections 3.3 and 3.4). An arm is a
trial of an ordinary study whose baseline is the control, so it is scored, judged and promoted like any
other trial. The arms differ from the control only in the mixture: checkpoint, steps and learning rate are
the same.

    program:
      kind: annealing
      share: 0.6
      arms: {math: {math: 1.0}, code: {code: 1.0}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ablations.config.schema import RunConfig, load, validate
from ablations.errors import ConfigError, Problem
from ablations.mixture.mixture import Mixture
from ablations.mixture.specs import ScheduleSpec
from ablations.quantities import count
from ablations.record.identity import run_name
from ablations.terminal import table_console
from sweeps.programs.subprocess_cli import Caller, mapping_override, newest_checkpoint

__all__ = ["CONTROL", "ArmsSpec", "arm_mixtures", "main", "require_fork", "show_plan"]

CONTROL = "control"
"""Name of the arm that continues with the mixture of the trunk."""


@dataclass(frozen=True, kw_only=True)
class ArmsSpec:
    """Sources under test, and their share of the mixture."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Literal["annealing"] = "annealing"
    """Name of this program (:mod:`ablations.config.program_names`)."""
    module: Literal["sweeps.programs.annealing"] | None = None
    """Name of this program in older configs."""
    arms: Mapping[str, Mapping[str, float]]
    """Arm → sources under test and their parts of ``share``."""
    share: float = 0.6
    """Share of the tokens for the sources under test; the mixture of the trunk takes the rest."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the replicates of each arm, all from the same checkpoint."""
    checkpoint: str | None = None
    """Checkpoint to fork, a folder named by its step; null = train the trunk first."""

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.share <= 1.0:
            problems.append(
                Problem("program.share", "not a share", found=self.share, allowed="(0, 1]")
            )
        if not self.arms:
            problems.append(Problem("program.arms", "no arm"))
        if CONTROL in self.arms:
            problems.append(
                Problem(f"program.arms.{CONTROL}", "is added automatically", do="leave it out")
            )
        if problems:
            raise ConfigError(problems)


def arm_mixtures(before: Mapping[str, float], spec: ArmsSpec) -> dict[str, Mixture]:
    """Return arm → mixture, the control first."""
    control = Mixture(before, where="mixture.weights")
    tested = {
        name: control.blend(Mixture(sources, where=f"program.arms.{name}"), spec.share)
        for name, sources in spec.arms.items()
    }
    names = dict.fromkeys([*before, *(source for m in tested.values() for source in m)])
    return {
        name: Mixture({source: mixture.get(source, 0.0) for source in names}, normalize=True)
        for name, mixture in {CONTROL: control, **tested}.items()
    }


def require_fork(schedule: ScheduleSpec) -> tuple[str, str]:
    """Return the names of the two stages of an arm: before the fork, and after it.

    Raises:
        ConfigError: The schedule does not consist of two such stages.
    """
    stages = list(schedule.stages)
    own = [schedule.stages[name].weights is not None for name in stages]
    if own == [True, False]:
        return stages[0], stages[1]
    raise ConfigError(
        Problem(
            "schedule.stages",
            "arms fork a checkpoint: one stage before it, one after",
            found=", ".join(stages),
            allowed="a first stage with weights, a second one with weights: null (the arm's)",
        )
    )


def show_plan(config: Mapping[str, Any], run: RunConfig) -> None:
    """Print for ``ablate plan`` every arm, and how often it repeats its sources."""
    from rich.table import Table

    spec = validate(ArmsSpec, config["program"])
    _, after = require_fork(run.schedule)
    tokens = run.schedule.budgets()[after]
    table = Table(title=f"arms: {count(tokens)} tokens each from one checkpoint")
    for heading in ("arm", "under test", "of the arm", "most repeated", "epochs in the arm"):
        table.add_column(heading)
    for name, mixture in arm_mixtures(run.mixture.weights, spec).items():
        tested = {source: mixture[source] for source in spec.arms.get(name, {})}
        epochs = {s: w * tokens / run.source[s].tokens_available for s, w in mixture.items() if w}
        most = max(epochs, key=lambda source: epochs[source])
        shown = ", ".join(list(tested)[:3]) + (", …" if len(tested) > 3 else "")
        share = f"{sum(tested.values()):.0%}" if tested else "–"
        table.add_row(name, shown or "the mixture before", share, most, f"{epochs[most]:.2f}")
    table_console().print(table)
    runs = (len(spec.arms) + 1) * len(spec.seeds)
    print(f"{runs} runs: {len(spec.arms)} arms and the control, seeds {list(spec.seeds)}")


def main(config: Mapping[str, Any]) -> int:
    """Train the trunk if no checkpoint is given, then train the arms as a study and judge it."""
    spec = validate(ArmsSpec, config["program"])
    run = load(config, config.get("config_dirs", ()))
    _, after = require_fork(run.schedule)
    mixtures = arm_mixtures(run.mixture.weights, spec)
    caller = Caller.of_this_command(config)
    checkpoint = spec.checkpoint or str(_trunk(caller, run, after))
    caller.run(*_study_overrides(run, spec, mixtures, checkpoint), search=True)
    _judge(run)
    return 0


def _trunk(caller: Caller, run: RunConfig, after: str) -> Path:
    """Return the checkpoint that all arms fork; train it with a flat learning rate if it is missing."""
    study = f"{run.study}-trunk"
    folder = Path(run.runs_dir) / study / run_name("trunk", run.seed)
    caller.run(
        f"study={study}",
        "trial=trunk",
        f"~schedule.stages.{after}",
        "schedule.lr.decay_steps=0",
        "training.checkpoints=1",
        "training.keep_checkpoints=last",
        "search=none",
    )
    return newest_checkpoint(folder)


def _study_overrides(
    run: RunConfig, spec: ArmsSpec, mixtures: Mapping[str, Mixture], checkpoint: str
) -> list[str]:
    sources = ",".join(next(iter(mixtures.values())))
    named = [
        override
        for name, mixture in mixtures.items()
        for override in mapping_override(f"search.strategy.mixtures.{name}", mixture)
    ]
    return [
        f"warm_start.checkpoint={checkpoint}",
        # Seeds change the order of the data after the fork; the weights come from the checkpoint.
        f"search.seeds=[{','.join(str(seed) for seed in spec.seeds)}]",
        "search.strategy.baselines=[]",
        f"search.strategy.baseline={CONTROL}",
        f"search.budget.trials={len(mixtures)}",
        "search.confirm.finalists=0",
        f"++search.space={{mixtures: {{mixture.weights: {{sources: [{sources}]}}}}}}",
        *named,
    ]


def _judge(run: RunConfig) -> None:
    from sweeps.verdict.decide import VerdictOptions, decide
    from sweeps.verdict.render import show
    from sweeps.verdict.study_observations import gather
    from sweeps.verdict.verdict_record import write_verdict

    runs_dir = Path(run.runs_dir)
    verdict = decide(gather(runs_dir, run.study), VerdictOptions(baseline=CONTROL))
    write_verdict(runs_dir / run.study, verdict)
    show(verdict)
