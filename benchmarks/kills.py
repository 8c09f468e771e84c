"""kill -9 at random moments of every command: what is lost, done twice, left behind, or different.

    python benchmarks/kills.py [--kills 300] [--seed 0] [--phase run] [--keep FOLDER]

Of each phase (preparing, a run, a study, two programs of many runs, verdict, promotion, the promoted run and
its baseline, report, score, export) one life is left alone: the yardstick. In each case the same command
is killed one to four times in a row: half of the kills at a moment, half just before an event of the
file system drawn from those that the yardstick's life had; killed are the driver, one of its workers
or everything. The next life begins at once, beside whatever the killed left running. Then the command
is given until it ends with 0, and everything in the folder is compared with the yardstick's.

    lost        a file that the yardstick has
    repeated    a row of scores, a trial, a run, a promotion or an export more than once
    wedged      the command did not end with 0 once nothing killed it any more
    differing   other losses, weights, scores, items, windows, decisions or texts but for dates and durations
    left        temporary files or processes, once all is over

Exits 1 unless all of them are 0.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.damage_scenes import SMALL
from benchmarks.kill_lives import Life, Strike, adopt_orphans, end_all, live, settle
from benchmarks.kill_outcomes import Difference, Picture, compare, picture

SOURCES = tuple(
    f"+source.synthetic_{skill}={{shards:2,origin:{{kind:synthetic,skill:{skill},documents:400,seed:0}}}}"
    for skill in ("facts", "arithmetic", "junk")
)
TINY = (*SMALL, *SOURCES)

SEARCH = (
    *("search=mixture", "search.strategy.baselines=[natural]", "search.strategy.design_trials=1"),
    *("search.budget.trials=2", "search.confirm.finalists=2", "search.confirm.pick=false"),
    *("search.confirm.seeds=[0,1]", "search.attempts=10", "hydra.launcher.slots=1"),
)
ARMS = (
    *("study=arms", "schedule.total_tokens=null", "~schedule.stages.main"),
    "++schedule.stages.before={tokens: 1024, weights: {synthetic_facts: 0.6, "
    "synthetic_arithmetic: 0.3, synthetic_junk: 0.1}}",
    "++schedule.stages.anneal={tokens: 1024, weights: null}",
    *("schedule.lr.warmup_steps=2", "++schedule.lr.decay_steps=4", "search.attempts=10"),
    "program={kind: annealing, arms: {facts: {synthetic_facts: 1.0}}}",
    "hydra.launcher.slots=1",
)
STAGES = (
    *("study=staged", "search=mixture", "search.budget.trials=2", "search.attempts=10"),
    *("search.strategy.baselines=[natural,uniform]", "search.confirm.finalists=0"),
    *("schedule.total_tokens=null", "~schedule.stages.main"),
    "++schedule.stages.one={tokens: 1024, weights: null}",
    "++schedule.stages.two={tokens: 1024, weights: null}",
    *("schedule.lr.warmup_steps=2", "++schedule.lr.decay_steps=4"),
    *("program={kind: stagewise}", "hydra.launcher.slots=1"),
)
FULL = (
    *("full=demo_full", "study=search", "tokenizer=synthetic_bpe", "evaluation=synthetic"),
    *("model.vocab_size=512", "model.hidden_size=32", "model.num_hidden_layers=2"),
    *("model.intermediate_size=64", "training.sequence_length=32", "training.checkpoints=2"),
    *("promotion.full.total_tokens=8192", "promotion.full.stages=null"),
    *("promotion.full.lr.decay_share=0.1", "mixture.epoch_cap=4.0", "training.batch_size=8"),
    *("evaluation.max_items=8", "evaluation.heldout_max_items=4", "promotion.pick=trial-0001"),
    "training.recovery_interval_steps=8",
    '+promotion.override={beats_baseline: "only a benchmark", surrogate_evidence: "only a benchmark"}',
    *SOURCES,
)
PROMOTED = "promotions/search-demo_full-001"


@dataclass(frozen=True)
class Phase:
    """A command, and the phase whose folder it begins from."""

    name: str
    base: str | None
    command: Sequence[str]
    share: float = 1.0
    """Of the kills, against the others': a long phase gets fewer."""
    ends: tuple[str, ...] = ()
    """Text that a command that makes nothing twice prints where the killed one had made it."""


def _full_run(experiment: str) -> list[str]:
    conf = ["--config-dir", f"{PROMOTED}/conf", f"experiment={experiment}"]
    return ["run", *conf, "progress=false", "execution.threads=1"]


PHASES = (
    Phase(
        "prepare", None, ["prepare", TINY[0], *SOURCES, "progress=false", "prepare.workers=2"], 1.4
    ),
    Phase("run", "prepare", ["run", *TINY, "study=single", "trial=a"], 1.4),
    Phase("study", "prepare", ["run", "-m", *TINY, *SEARCH, "study=search"], 0.8),
    Phase("arms", "prepare", ["run", *TINY, *ARMS], 0.5),
    Phase("stages", "prepare", ["run", *TINY, *STAGES], 0.5),
    Phase("verdict", "study", ["verdict", "study=search"], 0.8),
    Phase("promote", "verdict", ["promote", *FULL], 1.2),
    Phase("full run", "promote", _full_run("promoted"), 1.2),
    Phase("baseline", "full run", _full_run("baseline"), 0.8),
    Phase(
        "report",
        "baseline",
        ["report", "study=search", "surrogates=none", "markdown=report.md", f"card={PROMOTED}"],
        0.8,
    ),
    Phase("score", "run", ["score", *TINY, "checkpoint=runs/single/a-0/checkpoints/8"], 0.8),
    Phase(
        "export",
        "promote",
        ["export", "format=megatron", f"promotion={PROMOTED}"],
        1.2,
        ("is there already",),
    ),
)
CALM_TRIES = 40
"""Tries of a command that is refused because an earlier life's processes still work: half a minute."""
HELD = ("is being worked on", "another driver is running", "another process")


@dataclass(frozen=True)
class Yardstick:
    """The life that was left alone."""

    life: Life
    picture: Picture


class Bench:
    """The folders: one that every case runs in, and one a phase to begin from.

    All cases run in the same folder, since records hold absolute paths.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.case, self.bases = root / "case", root / "bases"
        self.rng = random.Random(seed)
        self._yardsticks: dict[str, Yardstick] = {}
        self._phases = {phase.name: phase for phase in PHASES}

    def yardstick(self, phase: Phase) -> Yardstick:
        """The life of ``phase`` that is left alone, made once; its folder is what later phases begin from."""
        if phase.name not in self._yardsticks:
            self.begin(phase)
            life = live(self.case, phase.command, [], self.rng)
            left = settle(30.0)
            if life.code != 0 or left:
                said = (self.case / "out.txt").read_text()[-3000:]
                raise SystemExit(f"{phase.name}, left alone: {life}, {left}\n{said}")
            self._yardsticks[phase.name] = Yardstick(life, picture(self.case))
            shutil.copytree(self.case, self.bases / phase.name, symlinks=True)
        return self._yardsticks[phase.name]

    def begin(self, phase: Phase) -> None:
        """Fill the case's folder with what the phase begins from."""
        if phase.base is not None:
            self.yardstick(self._phases[phase.base])
        shutil.rmtree(self.case, ignore_errors=True)
        if phase.base is None:
            self.case.mkdir()
        else:
            shutil.copytree(self.bases / phase.base, self.case, symlinks=True)
            (self.case / "out.txt").unlink()
        (self.case / "tmp").mkdir(exist_ok=True)

    def strike(self, calm: Life, before: int) -> Strike:
        """Draw whom to kill and when; the more strikes were before it, the less there is left to do."""
        target = self.rng.choice(("driver", "worker", "everything"))
        share = 1.0 / (1.0 + before)
        if self.rng.random() < 0.5:
            return Strike(target, seconds=self.rng.uniform(0.0, share * calm.seconds))
        return Strike(target, event=self.rng.randint(1, max(1, round(share * calm.events))))

    def disturbed(self, phase: Phase, most: int) -> tuple[int, Difference, list[str]]:
        """One case: kills that happened, how its folder differs, why it is wedged."""
        calm = self.yardstick(phase).life
        self.begin(phase)
        strikes = [self.strike(calm, number) for number in range(self.rng.randint(1, most))]
        kills, code = 0, None
        while strikes and code != 0:
            life = live(self.case, phase.command, strikes, self.rng)
            kills, code = kills + life.kills, life.code
            if code is None:
                break
            time.sleep(self.rng.choice((0.0, 0.0, 0.3)))
        wedged = self.finish(phase) if code is not None else ["a killed life did not end"]
        left = settle(20.0)
        end_all()
        difference = compare(self.yardstick(phase).picture, picture(self.case))
        difference.left += left
        return kills, difference, wedged

    def finish(self, phase: Phase) -> list[str]:
        """Give the command until it ends with 0; why it does not."""
        out = self.case / "out.txt"
        code: int | None = None
        for _ in range(CALM_TRIES):
            before = out.stat().st_size if out.exists() else 0
            code = live(self.case, phase.command, [], self.rng).code
            said = out.read_bytes()[before:].decode(errors="replace")
            if code == 0 or any(words in said for words in phase.ends):
                return []
            if code is None or not any(words in said for words in HELD):
                return [f"exit code {code}: {said[-600:]}"]
            time.sleep(0.5)
        return [f"exit code {code} after {CALM_TRIES} tries: {said[-600:]}"]


def main() -> int:
    """Kill, finish, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phase", choices=[phase.name for phase in PHASES], action="append")
    parser.add_argument("--keep", type=Path, help="keep the folders of cases that fail in here")
    arguments = parser.parse_args()
    phases = [phase for phase in PHASES if phase.name in (arguments.phase or [phase.name])]
    import ablations.preload  # noqa: F401 - once, for all forks

    adopt_orphans()
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    total: Counter[str] = Counter()
    try:
        bench = Bench(root, arguments.seed)
        shares = sum(phase.share for phase in phases)
        for phase in phases:
            total += run_phase(bench, phase, arguments.kills * phase.share / shares, arguments.keep)
    finally:
        end_all()
        shutil.rmtree(root, ignore_errors=True)
    print(_line("all", total), flush=True)
    return 1 if sum(total[name] for name in FAULTS) or total["kills"] < arguments.kills else 0


FAULTS = ("lost", "repeated", "wedged", "differing", "left")


def run_phase(bench: Bench, phase: Phase, kills: float, keep: Path | None) -> Counter[str]:
    """Cases of one phase until ``kills`` kills have happened."""
    found: Counter[str] = Counter()
    calm = bench.yardstick(phase).life
    began = time.monotonic()
    while found["kills"] < kills and found["cases"] < 10 * kills:
        count, difference, wedged = bench.disturbed(
            phase, min(4, round(kills) - found["kills"] or 1)
        )
        found += Counter(cases=1, kills=count)
        faults = {"wedged": wedged} | {
            name: getattr(difference, name) for name in FAULTS if name != "wedged"
        }
        found += Counter({name: len(what) for name, what in faults.items() if what})
        if any(faults.values()):
            print(f"{phase.name}, case {found['cases']}:", file=sys.stderr)
            for name, what in faults.items():
                for line in what[:12]:
                    print(f"  {name}: {line}", file=sys.stderr, flush=True)
            if keep is not None:
                shutil.copytree(bench.case, keep / f"{phase.name}-{found['cases']}", symlinks=True)
    seconds = time.monotonic() - began
    print(
        f"{_line(phase.name, found)}  "
        f"(left alone {calm.seconds:.1f} s, {calm.events} events; {seconds:.0f} s)",
        flush=True,
    )
    return found


def _line(name: str, found: Counter[str]) -> str:
    counts = ", ".join(f"{found[fault]} {fault}" for fault in FAULTS)
    return f"{name:<9} {found['kills']:>3} kills in {found['cases']:>3} cases: {counts}"


if __name__ == "__main__":
    sys.exit(main())
