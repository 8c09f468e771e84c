"""A middle-size study with a low rung against one without, and kill -9 in every rung.

    python benchmarks/rungs_study.py compare            # 8 core-minutes
    python benchmarks/rungs_study.py kills --kills 40   # about 10 core-minutes
    python benchmarks/rungs_study.py kills --case trunks

``compare`` runs ``experiment=synthetic_rungs`` as it is shipped, with a low rung and half the FLOPs, and
the same study without the rung, with the same seeds. It prints FLOPs and verdicts, and exits 1 if more
than half the FLOPs were spent or the outcomes differ.

``kills`` runs a small study with a low rung, kills its driver and all its jobs at random moments, gives
the same command again until it ends, and compares it with a study that nobody disturbed: trials, choices,
scores, losses and weights of all runs must be equal to the last bit, and no finished run may be trained
again. Studies follow each other until there were enough kills. ``--case model`` explores with a smaller
model, and ``--case trunks`` searches the mixture of the last stage with shared trunks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ablations.record.run_record import RunRecord, list_runs

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

CASES = {
    "rung": ["search.fidelity.share=0.3"],
    "model": ["search.fidelity.share=0.3", "search.fidelity.model={hidden_size:16}"],
    "trunks": [
        "search.trunks=true",
        "~schedule.stages.main",
        "+schedule.stages.stable={share:rest}",
        "+schedule.stages.decay={share:0.4}",
        "schedule.lr.decay_share=decay",
        *(f"+schedule.stages.decay.weights.{name}=0.2" for name in SKILLS),
        "search.space.mixtures=null",
        f"+search.space.mixtures={{schedule.stages.decay.weights:{{sources:[{','.join(SKILLS)}]}}}}",
    ],
}
"""Overrides of the studies that are killed."""

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


def compare(folder: Path, trials: int) -> bool:
    """Run both studies, print them, and return whether the rung halves the FLOPs at the same verdict."""
    shipped = ["experiment=synthetic_rungs", "progress=false"]
    ablate(folder, "prepare", *shipped)
    plain = ["search.fidelity.share=null", f"search.budget.trials={trials}"]
    plain += ["search.budget.flops=null", "search.budget.confirm_share=0.25"]
    found = {}
    for study, changes in (("full", plain), ("rungs", [])):
        began = cpu_seconds()
        ablate(folder, "run", "-m", *shipped, f"study={study}", *changes)
        ablate(folder, "verdict", f"study={study}")
        ledger, verdict = (
            read(folder / "runs" / study / f"{n}.json") for n in ("ledger", "verdict")
        )
        paused = ledger.get("paused", {}).get("runs", 0)
        found[study] = ledger["total"]["flops"], verdict["outcome"]
        print(
            f"{study:<6} {ledger['explored_trials']} mixtures, {ledger['total']['runs']} runs "
            f"({paused} paused), {ledger['total']['flops']:.3g} FLOPs, "
            f"{cpu_seconds() - began:.0f} CPU-s\n       {verdict['sentence']}",
            flush=True,
        )
    share = found["rungs"][0] / found["full"][0]
    same = found["rungs"][1] == found["full"][1]
    print(f"FLOPs with rungs / without: {share:.2f}; outcomes {'equal' if same else 'DIFFER'}")
    return share <= 0.5 and same


def table(runs: Path) -> dict[str, Any]:
    """Return what a study decided and measured, run by run; times are left out, as they always differ."""
    found: dict[str, Any] = {}
    for record in list_runs(runs, "s"):
        result = record.result() or {}
        losses = [row["loss"] for row in record.metrics()]
        scores = [timeless(row) for row in record.scores()]
        found[record.path.name] = (
            record.status,
            timeless(result),
            losses,
            scores,
            weights_of(record.path),
        )
    for name in ("rungs.json", "finalists.json", "pick.json"):
        path = runs / "s" / name
        found[name] = read(path) if path.exists() else None
    return found


def timeless(content: Any) -> Any:
    """Return a record without its cost, its times and the checksum over them."""
    if isinstance(content, dict):
        left_out = ("cost", "cpu_seconds", "content_sha256")
        return {key: timeless(value) for key, value in content.items() if key not in left_out}
    return [timeless(entry) for entry in content] if isinstance(content, list) else content


def weights_of(run: Path) -> dict[str, str]:
    """Return digests of the tensors of weights and optimiser in the checkpoints that a run keeps.

    The header of a file is left out: safetensors writes its metadata in any order.
    """
    found = {}
    for path in sorted(run.glob("checkpoints/*/*/**/*.safetensors")):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        name = str(path.relative_to(run / "checkpoints"))
        found[name] = hashlib.sha256(content[start:]).hexdigest()
    return found


def trained_again(runs: Path) -> list[str]:
    """Return the runs that were trained after they had ended, or from a step that they had passed."""
    wrong = []
    trunks = [RunRecord(path) for path in sorted(runs.glob("s/trunks/*"))]
    for record in (*list_runs(runs, "s"), *trunks):
        reached = 0
        for event in record.events():
            if event["kind"] == "checkpoint":
                reached = max(reached, event["step"])
            if event["kind"] in ("start", "resume") and event["step"] < reached:
                wrong.append(f"{record.path.name}: {event['kind']} at {event['step']} < {reached}")
    return wrong


def kills(folder: Path, case: str, count: int, seed: int) -> bool:
    """Kill studies at random moments, and compare each with one that nobody disturbed."""
    run = run_overrides(20, 32, 400)
    ablate(folder, "prepare", *run)
    study = [*run, *search_overrides(16, 2), "study=s", *CASES[case]]
    study += ["search.attempts=1000", "search.confirm.seeds=[0,1]"]
    began = time.monotonic()
    ablate(folder, "run", "-m", *study, "runs_dir=whole")
    whole = time.monotonic() - began
    undisturbed = table(folder / "whole")
    rng, moments, wrong, studies = random.Random(seed), Counter[str](), Counter[str](), 0
    while moments.total() < count:
        name = f"killed-{studies}"
        studies += 1
        command = [*ABLATE, "run", "-m", *study, f"runs_dir={name}"]
        killed_until_done(
            command, folder / name, 0.6 * whole, count - moments.total(), rng, moments
        )
        disturbed = table(folder / name)
        found = {
            "lost": [one for one in undisturbed if one not in disturbed],
            "differ": [n for n in undisturbed if n in disturbed and undisturbed[n] != disturbed[n]],
            "added": [one for one in disturbed if one not in undisturbed],
            "trained again": trained_again(folder / name),
        }
        wrong += Counter({what: len(runs) for what, runs in found.items()})
        bad = {what: runs for what, runs in found.items() if runs}
        print(f"{name}: {moments.total()} kills so far; {bad or 'equal'}", flush=True)
    print(f"{moments.total()} kills in {studies} studies of {len(undisturbed) - 3} runs:")
    print(f"  {dict(moments)}")
    print("  " + ", ".join(f"{what} {wrong[what]}" for what in found))
    print(f"{cpu_seconds():.0f} CPU-s", flush=True)
    return not wrong.total()


def killed_until_done(
    command: list[str],
    runs: Path,
    longest: float,
    most: int,
    rng: random.Random,
    moments: Counter[str],
) -> None:
    """Give a command again after each kill until it ends by itself; count the moments of the kills.

    A life begins when the driver holds the study, because the imports before it write nothing. One life
    in eight ends during the start.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    hit = 0
    while True:
        process = subprocess.Popen(
            command, cwd=runs.parent, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if hit >= most:
            if process.wait() != 0:
                raise SystemExit(f"{' '.join(command)} failed")
            return
        early = rng.random() < 1 / 8
        while not early and process.poll() is None and driver_of(runs) != process.pid:
            time.sleep(0.02)
        try:
            if process.wait(timeout=rng.uniform(0.0, longest)) == 0:
                return
            raise SystemExit(f"{' '.join(command)} failed")
        except subprocess.TimeoutExpired:
            moments["the start" if early else moment(runs)] += 1
            hit += 1
            _kill(process)


def driver_of(runs: Path) -> int | None:
    """Return the process that drives the study; None before the first one wrote its name."""
    try:
        return int(read(runs / "s/driver.json")["pid"])
    except (OSError, ValueError, KeyError):
        return None


def moment(runs: Path) -> str:
    """Return what the study does now."""
    rungs = runs / "s/rungs.json"
    stage = read(rungs) if rungs.exists() else {}
    if (runs / "s/finalists.json").exists():
        return "seeds of the finalists"
    if stage.get("finalists"):
        return "finalists"
    if stage.get("guard"):
        return "proposals"
    if stage.get("pairs"):
        return "pairs"
    if any(not (trunk / "trunk.json").exists() for trunk in runs.glob("s/trunks/*")):
        return "a trunk"
    return "baselines and design" if (runs / "s/trial-0000-0").exists() else "the start"


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
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--case", choices=sorted(CASES), default="rung")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the studies here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "compare":
            good = compare(folder, options.trials)
        else:
            good = kills(folder, options.case, options.kills, options.seed)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
