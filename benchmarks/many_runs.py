"""CPU seconds and memory of a study's decisions by its number of runs, and what fewer points cost.

    python benchmarks/many_runs.py proposal --runs 300 1000 3000
    python benchmarks/many_runs.py cut ../shared/data/swarms    # inducing points against all runs
    python benchmarks/many_runs.py verdict --runs 500 2000 20000

``proposal`` is a batch of four by the surrogate, as a driver asks for it, from trials of a synthetic
truth (``truths.py``) with six metrics. Beyond ``ProcessFamily.exact_runs`` it is compared in the same
run with a process conditioned on every run, at the smallest such number of runs asked for.

``cut`` fits RegMix's 512 runs with every run and with 256 and 128 inducing points, and synthetic studies
of 1,500 runs with every run and with the default's 512, and prints ranks, regrets and errors on runs
that no fit saw.

``verdict`` reads made-up records (20 tasks, 5 checkpoints, sealed; ``many_records.py``) and decides, in a
process of its own, imports counted (``one_verdict.py``). Once the best three are confirmed with three
seeds, once no trial has more than one seed. The yardstick is Python's JSON parser over the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from many_records import write_records
from regret import Study, space_of
from surrogates import ranks, regret
from truths import KINDS, Floats, Truth

from sweeps.search.proposals import Evidence, ProposalOptions, pick
from sweeps.search.proposals.propose import propose, search_families
from sweeps.search.surrogates import Family, ProcessFamily, Surrogate, family
from sweeps.study.strategy import TrialRequest
from sweeps.study.surrogate_proposer import evidence_of, surrogate_proposer
from sweeps.swarm.swarm_tables import read_pair


def exact(families: tuple[Family, ...]) -> ProposalOptions:
    """Options with a process that is conditioned on every run."""
    everything = tuple(
        replace(one, exact_runs=10**9) if isinstance(one, ProcessFamily) else one
        for one in families
    )
    return ProposalOptions(families=everything)


def study_of(runs: int, sources: int) -> Study:
    """A study whose runs are even draws of its space."""
    study = Study(Truth(sources, 0, "mixed", 0.3), 0)
    drawn = study.space.sample(runs, np.random.default_rng(0))
    for point in study.space.points(drawn):
        study.run(TrialRequest(phase="search", point=point))
    return study


def proposal(runs: int, sources: int, whole: bool) -> None:
    study = study_of(runs, sources)
    start = time.process_time()
    if whole:
        known = evidence_of(study.space, study.history, study.rule)
        propose(study.space, known, 4, seed=0, options=exact(search_families()))
    else:
        surrogate_proposer(study.space, 0, study.rule)(study.history, 4)
    cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    kind = "every run" if whole else "default"
    print(
        f"proposal {sources} sources {runs:>6} runs  {kind:9}  {cpu:6.1f} CPU-s  peak {peak:.0f} MB",
        flush=True,
    )


def cut_regmix(folder: Path) -> None:
    train = read_pair(folder / "train_mixture_1m.csv", folder / "train_pile_loss_1m.csv")
    small = read_pair(folder / "test_mixture_1m.csv", folder / "test_pile_loss_1m.csv")
    large = read_pair(folder / "test_mixture_60m.csv", folder / "test_pile_loss_60m.csv")
    process = family("gp")
    assert isinstance(process, ProcessFamily)
    for count in (len(train.runs), 256, 128):
        start = time.process_time()
        model = Surrogate(replace(process, exact_runs=0, inducing=count))
        model.fit(train.weights, train.values)
        near, far = model.predict(small.weights), model.predict(large.weights)
        error = np.sqrt(((near - small.values) ** 2).mean(axis=0)).mean()
        print(
            f"regmix {count:>4} of {len(train.runs)} points  rank 1M {ranks(near, small.values):.4f} "
            f"60M {ranks(far, large.values):.4f}  regret 1M {regret(near, small.values):.3f} "
            f"60M {regret(far, large.values):.3f}  error {error:.4f}  "
            f"{time.process_time() - start:.1f} CPU-s",
            flush=True,
        )


def cut_truths(runs: int, seeds: int) -> None:
    for sources in (4, 7):
        for kind in KINDS:
            for seed in range(seeds):
                truth = Truth(sources, seed, kind, 0.3)
                space, rng = space_of(sources), np.random.default_rng(seed)
                mixtures = space.sample(runs, rng)
                known = Evidence.of(
                    space,
                    space.points(mixtures),
                    truth.observe(mixtures, rng),
                    objectives=truth.weights,
                )
                process = (search_families()[-1],)
                found = []
                for options in (exact(process), ProposalOptions(families=process)):
                    start = time.process_time()
                    chosen = pick(space, known, seed=seed, options=options)
                    cpu = time.process_time() - start
                    at: Floats = space.coordinates([chosen.point])
                    error = chosen.errors[chosen.surrogate]
                    found.append(f"regret {truth.regret(at)[0]:.4f} error {error:.4f} {cpu:.0f} s")
                print(
                    f"{sources} sources {kind:6} seed {seed}, {runs} runs  every run: {found[0]}  "
                    f"inducing: {found[1]}",
                    flush=True,
                )


READ = ("manifest.json", "trial.json", "result.json", "scores.jsonl")
"""Files of a run that a verdict reads."""


def parse(folder: Path) -> None:
    """Parse the same files and keep nothing."""
    start = time.process_time()
    for name in READ:
        for file in (folder / "many").glob(f"*/{name}"):
            content = file.read_bytes()
            for line in content.splitlines() if name.endswith("l") else [content]:
                json.loads(line)
    print(f"           the parser alone {time.process_time() - start:6.1f} CPU-s", flush=True)


def verdicts(runs: list[int], tasks: int) -> None:
    """Measure studies of several sizes, with and without confirmed trials."""
    for count in runs:
        for confirmed in (True, False):
            with tempfile.TemporaryDirectory() as place:
                write_records(Path(place), count, tasks=tasks, checkpoints=5, confirmed=confirmed)
                print("confirmed" if confirmed else "one seed ", end="  ", flush=True)
                one = Path(__file__).with_name("one_verdict.py")
                subprocess.run([sys.executable, str(one), place, "many"], check=True)
                parse(Path(place))


def alone(*arguments: str) -> None:
    """Run one measurement in a process of its own, so that peaks of memory do not mix."""
    subprocess.run([sys.executable, __file__, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("proposal")
    asked.add_argument("--runs", type=int, nargs="+", default=[300, 1000, 3000])
    asked.add_argument("--sources", type=int, default=7)
    asked.add_argument("--alone", choices=["default", "every"], help=argparse.SUPPRESS)
    cut = commands.add_parser("cut")
    cut.add_argument("swarms", type=Path, help="folder with regmix/")
    cut.add_argument("--runs", type=int, default=1500)
    cut.add_argument("--seeds", type=int, default=1)
    records = commands.add_parser("verdict")
    records.add_argument("--runs", type=int, nargs="+", default=[500, 2000])
    records.add_argument("--tasks", type=int, default=20)
    options = parser.parse_args()
    if options.command == "cut":
        cut_regmix(options.swarms / "regmix")
        cut_truths(options.runs, options.seeds)
    elif options.command == "verdict":
        verdicts(options.runs, options.tasks)
    elif options.alone is not None:
        proposal(options.runs[0], options.sources, options.alone == "every")
    else:
        sources = ("--sources", str(options.sources))
        for runs in options.runs:
            alone("proposal", "--runs", str(runs), *sources, "--alone", "default")
        beyond = [runs for runs in options.runs if runs > ProcessFamily().exact_runs]
        if beyond:
            alone("proposal", "--runs", str(min(beyond)), *sources, "--alone", "every")


if __name__ == "__main__":
    main()
