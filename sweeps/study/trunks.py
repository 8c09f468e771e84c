"""Trunks of a study: up to which step its trials are equal, and which runs wait for a trunk.

    known trials ──▶ candidates: ends of stages ──▶ groups with equal first steps ──▶ execution.trunk_tokens

A search has one group: all its trials. The combinations of a plain sweep are grouped so that most steps
are saved. A run finds its trunk by itself (``ablations/trunks.py``), so a wrong group costs time and
changes no result. The first run of a group is launched alone, and the others after its trunk is there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.record.run_record import RunRecord
from ablations.trunks import TRUNK_FILE, trunk_costs, trunk_step_of, trunks_dir
from sweeps.study.budget import Account
from sweeps.study.job_overrides import identity
from sweeps.study.resources import is_run_config
from sweeps.study.run_results import run_folder

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig
    from sweeps.study.study_state import Run, StudyState

__all__ = ["Arm", "TrunkGroup", "Trunks", "find_trunks", "trunk_account", "waits_for_trunk"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Known trial, as far as its first steps are concerned."""

    name: str
    key: tuple[str, ...]
    """Identity of its overrides."""
    run: RunConfig
    total_steps: int
    candidates: frozenset[int]
    """Steps at which its trunk may end: ends of stages and the start of the decay, on the plateau."""
    low: int
    high: int
    """First and last step on the plateau."""


@dataclass(frozen=True, kw_only=True)
class TrunkGroup:
    """Trials that share their first steps."""

    steps: int
    tokens: float
    share: float
    """Share of the steps of a trial."""
    keys: frozenset[tuple[str, ...]]
    """Identities of the combinations; of a search, those of the known trials."""


@dataclass(frozen=True, kw_only=True)
class Trunks:
    """Trunks of a study."""

    groups: tuple[TrunkGroup, ...] = ()
    search: bool = False
    """True if all trials are one group, those not known yet included."""
    reason: str = ""
    """Reason why no trials share steps; empty if some do."""
    _by_key: dict[tuple[str, ...], int] = field(default_factory=dict, repr=False)

    def group_of(self, overrides: Sequence[str]) -> int | None:
        """Return the number of the group of a trial with these overrides; None if it trains alone."""
        if not self.groups:
            return None
        if self.search:
            return 0
        if not self._by_key:
            for number, group in enumerate(self.groups):
                self._by_key.update(dict.fromkeys(group.keys, number))
        return self._by_key.get(identity(overrides))

    def tokens_of(self, overrides: Sequence[str]) -> float | None:
        """Return ``execution.trunk_tokens`` of a trial with these overrides."""
        number = self.group_of(overrides)
        return None if number is None else self.groups[number].tokens

    @property
    def share(self) -> float:
        """Return the share of a run that the trunk of a search takes; 0 without one."""
        return self.groups[0].share if self.search and self.groups else 0.0


def find_trunks(
    trials: Iterable[tuple[str, Sequence[str]]],
    compose: Callable[[Sequence[str]], Mapping[str, Any]],
    config_dirs: Sequence[Path],
    *,
    search: bool,
) -> Trunks:
    """Return which of the known trials share their first steps.

    Args:
        trials: Name and task overrides of each trial.
        compose: Composes a config from overrides.
        config_dirs: Folders of the user's own configs.
        search: Whether the trials are those of a search, which share a trunk all together or not at all.
    """
    found = [_arm(name, lines, compose(lines), config_dirs) for name, lines in trials]
    arms, groups = [arm for arm in found if arm is not None], []
    while len(arms) > 1:
        steps, members = _best(arms)
        if not members or (search and len(members) < len(found)):
            break
        first = members[0]
        groups.append(
            TrunkGroup(
                steps=steps,
                tokens=float(steps * first.run.build_schedule().tokens_per_step),
                share=steps / max(arm.total_steps for arm in members),
                keys=frozenset(arm.key for arm in members),
            )
        )
        arms = [arm for arm in arms if arm not in members]
    reason = (
        "" if groups else "no steps are equal in all trials" if search else "no trials share steps"
    )
    return Trunks(groups=tuple(groups), search=search, reason=reason)


def _best(arms: Sequence[Arm]) -> tuple[int, list[Arm]]:
    """Return the step and the trials that save most: all but one of them are spared the steps."""
    best: tuple[int, list[Arm]] = (0, [])
    for step in sorted({step for arm in arms for step in arm.candidates}):
        equal: dict[str, list[Arm]] = defaultdict(list)
        for arm in arms:
            if arm.low <= step <= arm.high:
                equal[_signature(arm, step)].append(arm)
        for members in equal.values():
            if step * (len(members) - 1) > best[0] * max(0, len(best[1]) - 1):
                best = step, members
    return best


def _arm(
    name: str, overrides: Sequence[str], plain: Mapping[str, Any], dirs: Sequence[Path]
) -> Arm | None:
    """Return a trial whose first steps can be shared; None for others."""
    if not is_run_config(plain):
        return None
    # Imported here: studies of other applications have no schema.
    from ablations.config.schema import load
    from ablations.precision import with_precision

    run = with_precision(load(plain, dirs))
    started = run.warm_start.checkpoint is not None
    # A run on rows begins from a model: one of pictures shares its first steps, the others are short.
    if (run.method.of_rows or started) and run.method.kind != "vlm":
        return None
    schedule = run.build_schedule()
    rate = run.build_learning_rate(schedule)
    low, high = max(1, rate.warmup_steps), min(rate.decay_start, rate.total_steps - 1)
    ends = {schedule.first_step(number) for number in range(1, len(schedule.stages))}
    return Arm(
        name=name,
        key=identity(overrides),
        run=run,
        total_steps=schedule.total_steps,
        candidates=frozenset(step for step in {*ends, high} if low <= step <= high),
        low=low,
        high=high,
    )


def _signature(arm: Arm, step: int) -> str:
    """Return all that the first ``step`` steps of a trial depend on, the seed left out."""
    from ablations.config.schema import dump
    from ablations.training.trunk import first_steps

    run = arm.run
    schedule = run.build_schedule()
    prefix = first_steps(schedule, step)
    training, execution = dump(run.training), dump(run.execution)
    in_samples = run.method.of_rows
    steps = run.training.checkpoint_steps(arm.total_steps, in_samples=in_samples)
    del training["checkpoints"], execution["trunk_tokens"], execution["stop_tokens"]
    full = run.schedule.full_tokens
    content = {
        "model": dump(run.model),
        "training": training,
        "execution": execution,
        "tokenizer": dump(run.tokenizer),
        "sources": {name: dump(run.source[name]) for name in prefix.sources},
        "stages": [[stage.steps, list(stage.mixture.items())] for stage in prefix.stages],
        "warmup": run.build_learning_rate(schedule).warmup_steps,
        "checkpoints": [one for one in steps if one < step],
        **({"method": dump(run.method), "start": run.warm_start.checkpoint} if in_samples else {}),
        "full": None if full is None else [full, schedule.total_tokens],
    }
    return json.dumps(content, default=str)


def waits_for_trunk(state: StudyState, trunks: Trunks) -> Callable[[Run], Hashable | None]:
    """Return a function from a run to what it waits for: None once the trunk of its group is there."""
    there: set[Hashable] = set()

    def waits(run: Run) -> Hashable | None:
        group = trunks.group_of(state.trial(run.number).spec.overrides)
        if group is None or (group, run.seed) in there:
            return None
        if any(trunks_dir(state.folder).glob(f"*-{run.seed}/{TRUNK_FILE}")):
            for trial in state.trials:
                folder = run_folder(state.folder, trial.spec, run.seed)
                # Without an event the trunk diverged, and the trial trained alone.
                ended = (folder / "result.json").exists() or trunk_step_of(RunRecord(folder))
                if ended and trunks.group_of(trial.spec.overrides) == group:
                    there.add((group, run.seed))
                    return None
        return group, run.seed

    return waits


def trunk_account(study: Path) -> Account:
    """Return the cost of a study's trunks that have ended."""
    costs = trunk_costs(study)
    return Account(
        runs=len(costs),
        tokens=sum(cost.tokens for cost in costs),
        flops=sum(cost.flops for cost in costs),
        device_hours=sum(cost.wall_seconds * cost.devices for cost in costs) / 3600.0,
    )
