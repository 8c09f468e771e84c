"""A middle-size study with a low rung against one without, and kill -9 in every rung.

    python benchmarks/rungs_study.py compare            # 7 core-minutes
    python benchmarks/rungs_study.py kills --kills 40   # about 10 core-minutes

``compare`` runs two studies of generated skills with the same seeds. The one with a low rung has a budget
of half the FLOPs that the other one spent. It prints FLOPs, verdicts and picks, and exits 1 if more than
half the FLOPs were spent or the outcomes differ.

``kills`` runs a small study with a low rung, kills its driver and all its jobs at random moments, gives
the same command again until it ends, and compares it with a study that nobody disturbed: trials, choices,
scores and losses of all runs must be equal to the last bit, and no finished run may be trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ablations.record.run_record import list_runs

SKILLS = {
    "synthetic_facts": ("facts", 0),
    "synthetic_arithmetic": ("arithmetic", 0),
    "synthetic_junk": ("junk", 0),
    "facts_more": ("facts", 1),
    "junk_more": ("junk", 1),
}
LOSSES = "[heldout_synthetic_facts/bpb,heldout_synthetic_arithmetic/bpb]"
TODAY = (
    "{synthetic_facts:0.1,synthetic_arithmetic:0.1,synthetic_junk:0.4,facts_more:0.1,junk_more:0.3}"
)
"""Mixture that the verdict compares with: too much junk, so that there is something to find."""

ABLATE = [sys.executable, "-m", "ablations.cli"]


def run_overrides(steps: int, width: int, documents: int) -> list[str]:
    """Return the overrides of one run of ``steps`` steps of 1,024 tokens."""
    return [
        "experiment=synthetic",
        f"schedule.total_tokens={steps * 1024}",
        *(f"model.hidden_size={width}", f"model.intermediate_size={2 * width}"),
        *("training.sequence_length=64", "training.batch_size=16", "training.checkpoints=1"),
        *("evaluation.max_items=16", "evaluation.heldout_max_items=32", "progress=false"),
        *(f"++mixture.weights.{name}=0.2" for name in SKILLS),
        *(
            f"+source.{name}={{origin:{{kind:synthetic,skill:{skill},documents:{documents},"
            f"seed:{seed}}},domain:made_up,tokens_available:{100 * documents},licence:made_up}}"
            for name, (skill, seed) in SKILLS.items()
        ),
    ]


def search_overrides(trials: int, finalists: int) -> list[str]:
    """Return the overrides of a search on the loss of two held-out texts."""
    return [
        "search=mixture",
        "search.strategy.baselines=[uniform]",
        f"+search.strategy.mixtures.today={TODAY}",
        "search.strategy.baseline=today",
        f"search.budget.trials={trials}",
        f"+search.objectives.loss={{metrics:{LOSSES},direction:minimize}}",
        "search.objectives.score=null",
        f"search.confirm.finalists={finalists}",
        "search.confirm.seeds=[0,1,2]",
    ]


def ablate(folder: Path, *arguments: str) -> None:
    """Run a command to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*ABLATE, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(arguments[:2])} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    for line in done.stderr.splitlines():
        if line.startswith("study "):
            print(line, flush=True)


def read(path: Path) -> dict[str, Any]:
    """Return a JSON object."""
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def cpu_seconds() -> float:
    """Return the CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(folder: Path, trials: int, steps: int) -> bool:
    """Run both studies, print them, and return whether the rung halves the FLOPs at the same verdict."""
    run = run_overrides(steps, 64, 4000)
    ablate(folder, "prepare", *run)
    plain = [*run, *search_overrides(trials, 2)]
    ablate(folder, "run", "-m", *plain, "study=full")
    spent = read(folder / "runs/full/ledger.json")["total"]["flops"]
    # 9 of the 24 units are the seeds of the finalists, which both studies need for their verdict.
    rungs = ["study=rungs", "search.fidelity.share=0.3", f"search.budget.flops={0.5 * spent!r}"]
    rungs += ["search.budget.confirm_share=0.4"]
    ablate(folder, "run", "-m", *plain, "search.budget.trials=null", *rungs)
    found = {}
    for study in ("full", "rungs"):
        ablate(folder, "verdict", f"study={study}")
        ledger, verdict = (
            read(folder / "runs" / study / f"{n}.json") for n in ("ledger", "verdict")
        )
        paused = ledger.get("paused", {}).get("runs", 0)
        found[study] = ledger["total"]["flops"], verdict["outcome"]
        print(
            f"{study:<6} {ledger['explored_trials']} mixtures, {ledger['total']['runs']} runs "
            f"({paused} paused), {ledger['total']['flops']:.3g} FLOPs\n       {verdict['sentence']}",
            flush=True,
        )
    share = found["rungs"][0] / found["full"][0]
    same = found["rungs"][1] == found["full"][1]
    print(f"FLOPs with rungs / without: {share:.2f}; outcomes {'equal' if same else 'DIFFER'}")
    print(f"{cpu_seconds():.0f} CPU-s", flush=True)
    return share <= 0.5 and same


def table(runs: Path) -> dict[str, Any]:
    """Return what a study decided and measured, run by run."""
    found: dict[str, Any] = {}
    for record in list_runs(runs, "s"):
        result = record.result() or {}
        kept = {
            key: value for key, value in result.items() if key not in ("cost", "content_sha256")
        }
        losses = [row["loss"] for row in record.metrics()]
        scores = [
            {k: v for k, v in row.items() if k != "content_sha256"} for row in record.scores()
        ]
        found[record.path.name] = (record.status, kept, losses, scores)
    for name in ("rungs.json", "finalists.json", "pick.json"):
        path = runs / "s" / name
        found[name] = read(path) if path.exists() else None
    return found


def trained_again(runs: Path) -> list[str]:
    """Return the runs that were trained after they had ended, or from a step that they had passed."""
    wrong = []
    for record in list_runs(runs, "s"):
        reached = 0
        for event in record.events():
            if event["kind"] == "checkpoint":
                reached = max(reached, event["step"])
            if event["kind"] in ("start", "resume") and event["step"] < reached:
                wrong.append(f"{record.path.name}: {event['kind']} at {event['step']} < {reached}")
    return wrong


def kills(folder: Path, count: int, seed: int) -> bool:
    """Kill a study at random moments and compare it with one that nobody disturbed."""
    run = run_overrides(20, 32, 400)
    ablate(folder, "prepare", *run)
    study = [*run, *search_overrides(16, 2), "study=s", "search.fidelity.share=0.3"]
    study += ["search.attempts=1000", "search.confirm.seeds=[0,1]"]
    began = time.monotonic()
    ablate(folder, "run", "-m", *study, "runs_dir=whole")
    whole = time.monotonic() - began
    rng, hit = random.Random(seed), 0
    command = [*ABLATE, "run", "-m", *study, "runs_dir=killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    moments: dict[str, int] = {}
    while True:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # A start takes some seconds, so that each life does a part of the study.
        life = rng.uniform(0.3, 1.0) * max(18.0, 2.5 * whole / max(1, count))
        try:
            if process.wait(timeout=life if hit < count else 3600) == 0:
                break
            continue
        except subprocess.TimeoutExpired:
            pass
        rungs = folder / "killed/s/rungs.json"
        stage = read(rungs) if rungs.exists() else {}
        name = "before the first run" if not stage else "design"
        for part in ("pairs", "guard", "finalists"):
            name = part if stage.get(part) else name
        moments[name] = moments.get(name, 0) + 1
        _kill(process)
        hit += 1
    undisturbed, disturbed = table(folder / "whole"), table(folder / "killed")
    lost = [name for name in undisturbed if name not in disturbed]
    differ = [n for n in undisturbed if n in disturbed and undisturbed[n] != disturbed[n]]
    extra = [name for name in disturbed if name not in undisturbed]
    again = trained_again(folder / "killed")
    print(f"{hit} kills: {moments}")
    print(f"lost {lost or 0}, differ {differ or 0}, added {extra or 0}, trained again {again or 0}")
    print(f"{len(undisturbed) - 3} runs; {cpu_seconds():.0f} CPU-s", flush=True)
    return not (lost or differ or extra or again)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the driver and every process that it started, each in whatever session."""
    import psutil

    try:
        own = psutil.Process(process.pid)
        family = [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for one in family:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def main() -> None:
    """Run what is asked for in a temporary folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("compare", "kills"))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the studies here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "compare":
            good = compare(folder, options.trials, options.steps)
        else:
            good = kills(folder, options.kills, options.seed)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
