"""Search the mixture of one stage after the other, each from the checkpoint of the stages before.

    stage 1   search ─▶ winner ─▶ its checkpoint ╲                        weak spots of stage 1
    stage 2   stage 1 fixed, from that checkpoint, search ─▶ winner ─▶ …  weak spots of stage 2
    stage 3   stages 1 and 2 fixed, …, the rate decays                    weak spots of stage 3

Each stage is a study of its own (``<study>-1-<stage>``, ``<study>-2-<stage>``, …) with its verdict; the
winner's own run is the trunk of the next stage, so nothing is trained twice. The runs of the last study
contain the whole schedule and can be promoted like any other. If the program was killed, the same command
resumes it, and finished stages are read from their verdicts.

    runs/<study>/stages.json      the winners so far
    runs/<study>/weak_spots_<k>_<stage>.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ablations.config.schema import RunConfig, load, validate
from ablations.errors import ConfigError, Problem
from ablations.files import write_json, write_text
from ablations.mixture.mixture import Mixture
from ablations.record.run_record import RunRecord, list_runs
from sweeps.nanotron_files.chain import slug
from sweeps.programs.stage_report import report, weak_spots
from sweeps.programs.subprocess_cli import Caller, newest_checkpoint
from sweeps.promotion.promotion_inputs import choose, picked_runs
from sweeps.verdict.verdict_record import Verdict, write_verdict

__all__ = ["StageWinner", "StagesSpec", "main", "show_plan", "study_name"]


@dataclass(frozen=True, kw_only=True)
class StagesSpec:
    """Options of the search of one stage after the other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Literal["stagewise"] = "stagewise"
    """Name of this program (:mod:`ablations.config.program_names`)."""
    module: Literal["sweeps.programs.stagewise"] | None = None
    """Name of this program in older configs."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """``task/metric`` → target value; the weak-spot reports show it."""
    trials: Mapping[str, int] = field(default_factory=dict)
    """Stage → trials of its study; other stages use ``search.budget.trials``."""


@dataclass(frozen=True, kw_only=True)
class StageWinner:
    """Winner of one searched stage."""

    stage: str
    study: str
    trial: str
    name: str
    """Name of the winner for people."""
    outcome: str
    """Outcome of the verdict."""
    weights: Mapping[str, float]
    run: str
    """Name of the winner's run, from which the next stage starts."""
    checkpoint: str
    """Folder of the run's last checkpoint."""


def study_name(study: str, number: int, stage: str) -> str:
    """Return the name of the study of stage number ``number`` (from 1)."""
    return f"{study}-{number}-{slug(stage)}"


def show_plan(config: Mapping[str, Any], run: RunConfig) -> None:
    """Print for ``ablate plan`` the studies that the program will run."""
    spec = validate(StagesSpec, config["program"])
    _require_stages(run, spec)
    trials = ((config.get("search") or {}).get("budget") or {}).get("trials")
    for number, (stage, tokens) in enumerate(run.schedule.budgets().items(), start=1):
        start = "from scratch" if number == 1 else "from the checkpoint of the stage before"
        print(
            f"study {study_name(run.study, number, stage)}: {spec.trials.get(stage, trials)} trials "
            f"of {tokens:,.0f} tokens, {start}"
        )


def main(config: Mapping[str, Any]) -> int:
    """Search one stage after the other; skip finished ones."""
    spec = validate(StagesSpec, config["program"])
    run = load(config, config.get("config_dirs", ()))
    stages = list(run.schedule.stages)
    _require_stages(run, spec)
    caller = Caller.of_this_command(config)
    winners: list[StageWinner] = []
    for number, stage in enumerate(stages, start=1):
        study = study_name(run.study, number, stage)
        overrides = _overrides(run, spec, stages, winners, number)
        caller.run(f"study={study}", *overrides, search=True)
        verdict = _judge(Path(run.runs_dir), study)
        winners.append(_winner(Path(run.runs_dir), study, stage, verdict))
        _write_report(run, spec, winners, number)
    return 0


def _require_stages(run: RunConfig, spec: StagesSpec) -> None:
    stages = run.schedule.stages
    problems = [
        Problem(f"schedule.stages.{name}", "brings its own weights, so it cannot be searched")
        for name, stage in stages.items()
        if stage.weights is not None
    ]
    problems += [
        Problem(f"schedule.stages.{name}", "needs a budget in tokens: stages are trained in turn")
        for name, stage in stages.items()
        if stage.tokens is None
    ]
    problems += [
        Problem(f"program.trials.{name}", "no such stage", allowed=", ".join(stages))
        for name in spec.trials
        if name not in stages
    ]
    if run.schedule.lr.warmup_steps is None or run.schedule.lr.decay_steps is None:
        problems.append(
            Problem(
                "schedule.lr",
                "warm-up and decay must be in steps: shares change with every stage appended",
                do="give schedule.lr.warmup_steps and schedule.lr.decay_steps",
            )
        )
    if problems:
        raise ConfigError(problems)


def _overrides(
    run: RunConfig, spec: StagesSpec, stages: list[str], winners: list[StageWinner], number: int
) -> list[str]:
    """Return the overrides that turn the user's command into the search of one stage."""
    stage, last = stages[number - 1], number == len(stages)
    sources = list(run.mixture.weights)
    overrides = [f"~schedule.stages.{later}" for later in stages[number:]]
    for before in winners:
        # The weights are null in the user's config, and null can only be replaced by a whole mapping.
        weights = ", ".join(f"{s}: {w!r}" for s, w in before.weights.items())
        overrides.append(f"schedule.stages.{before.stage}.weights={{{weights}}}")
    even = Mixture(run.mixture.weights, normalize=run.mixture.normalize)
    start = ", ".join(f"{source}: {weight!r}" for source, weight in even.items())
    path = f"schedule.stages.{stage}.weights"
    overrides.append(f"{path}={{{start}}}")
    overrides.append(f"++search.space={{mixtures: {{{path}: {{sources: [{','.join(sources)}]}}}}}}")
    if not last:
        # The next stage starts from this one's checkpoint, so only the last stage decays the rate.
        overrides.append("schedule.lr.decay_steps=0")
    if winners:
        overrides.append(f"warm_start.checkpoint={winners[-1].checkpoint}")
    if stage in spec.trials:
        overrides.append(f"search.budget.trials={spec.trials[stage]}")
    return overrides


def _judge(runs_dir: Path, study: str) -> Verdict:
    from sweeps.verdict.decide import decide
    from sweeps.verdict.render import show
    from sweeps.verdict.study_observations import gather

    verdict = decide(gather(runs_dir, study))
    write_verdict(runs_dir / study, verdict)
    show(verdict)
    return verdict


def _winner(runs_dir: Path, study: str, stage: str, verdict: Verdict) -> StageWinner:
    """Return the verdict's winner or its baseline; after a tie, the candidate with the best mean."""
    row = verdict.candidates[0] if verdict.outcome == "tie" else choose(verdict, None)
    record = picked_runs(runs_dir, study, row)[0]
    weights = record.manifest.config["schedule"]["stages"][stage]["weights"]
    return StageWinner(
        stage=stage,
        study=study,
        trial=row.trial,
        name=row.name,
        outcome=verdict.outcome,
        weights=dict(weights),
        run=record.name,
        checkpoint=str(newest_checkpoint(record.path).absolute()),
    )


def _write_report(
    run: RunConfig, spec: StagesSpec, winners: list[StageWinner], number: int
) -> None:
    """Write the winners so far and the weak spots of the stage that ended."""
    runs_dir = Path(run.runs_dir)
    folder = runs_dir / run.study
    folder.mkdir(parents=True, exist_ok=True)
    now = winners[-1]
    before = RunRecord(runs_dir / winners[-2].run) if len(winners) > 1 else None
    found = weak_spots(
        now.stage,
        before,
        RunRecord(runs_dir / now.run),
        _trials(runs_dir, now.study, now.stage),
        spec.targets,
    )
    text = report(found)
    write_text(folder / f"weak_spots_{number}_{slug(now.stage)}.md", text)
    write_json(
        folder / "stages.json",
        {"format": 1, "stages": [vars(stage) for stage in winners], "weak_spots": found.plain()},
    )
    print(text)


def _trials(
    runs_dir: Path, study: str, stage: str
) -> list[tuple[Mapping[str, float], Mapping[str, float | None]]]:
    """Return the weights of the stage and the metrics of every finished run of a study."""
    found = []
    for record in list_runs(runs_dir, study):
        result = record.result()
        if result is None or result["status"] != "done":
            continue
        weights = record.manifest.config["schedule"]["stages"][stage]["weights"]
        found.append((weights, result["metrics"]))
    return found
