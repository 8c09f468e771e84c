"""Compare the direction of verdicts with the scores that studies optimise.

    python benchmarks/one_score.py                          50 simulated studies
    python benchmarks/one_score.py runs/demo_ratio …        and recorded ones

A simulated study has seven mixtures with one seed, then fresh seeds of the best two and the baseline; its
metrics have effects, noise and learning curves of their own. For each study: the sign of the verdict's
advantage, and the sign of the difference of the declared objective over the same runs, read from their
``result.json``. A second count takes all runs of the two candidates, search included, as ``ablate ls``
shows them: where that sign differs, the verdict's first line has to name it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablations.files import read_json, write_json
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.objective import objective_of
from sweeps.verdict.decide import decide
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import Verdict

METRICS = {
    "heldout_wiki/bpb": False,
    "heldout_code/bpb": False,
    "arc/acc": True,
    "coding/bpb": False,
}
TERMS = {
    "text": {"metrics": "heldout_*/bpb", "weight": 3.0},
    "arc": {"metrics": "arc/acc", "rescale": True},
    "coding": {"metrics": "coding/bpb"},
}
STEPS = (100, 200, 300)


def simulate(folder: Path, seed: int) -> None:
    """Write the records of one study: 7 mixtures, then 2 fresh seeds of three of them."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0.0, 0.1, size=(7, len(METRICS))) * rng.choice([0.0, 0.3, 1.0], 4)
    noise = 0.03 * rng.choice([0.3, 1.0, 3.0], len(METRICS))
    flat = rng.random(len(METRICS)) < 0.3
    asked = list(range(7))
    first = [_run(folder, k, 0, effects[k], noise, flat, rng) for k in asked]
    best = sorted(asked[1:], key=lambda k: first[k])[:2]
    for k in (0, *best):
        for fresh in (1, 2):
            _run(folder, k, fresh, effects[k], noise, flat, rng)


def _run(
    folder: Path,
    trial: int,
    seed: int,
    effect: np.ndarray[Any, Any],
    noise: np.ndarray[Any, Any],
    flat: np.ndarray[Any, Any],
    rng: np.random.Generator,
) -> float:
    from ablations.evaluation.score_rule import MetricFacts, linear_form

    share = 0.1 + 0.1 * trial
    config = {
        "study": folder.name,
        "seed": seed,
        "mixture": {"weights": {"wiki": share, "code": 1.0 - share}},
        "evaluation": {"score": {"direction": "minimize", "terms": TERMS}},
    }
    record = RunRecord.create(
        folder.parent, study=folder.name, trial=f"trial-{trial:04d}", seed=seed, config=config
    )
    name = "today" if trial == 0 else ""
    phase = "baseline" if trial == 0 else "design"
    write_json(
        record.path / "trial.json", {"phase": phase, "name": name, "seeds": [0], "number": trial}
    )
    facts = {key: MetricFacts(up, 0.25 if up else None) for key, up in METRICS.items()}
    form = linear_form(TERMS, "minimize", facts)
    luck = rng.normal(0.0, noise)
    score, values = None, {}
    for at, step in enumerate(STEPS):
        values = {}
        for i, (key, up) in enumerate(METRICS.items()):
            growth = 0.0 if flat[i] else 0.05 * (at - len(STEPS))
            level = 0.5 + growth - effect[i] if up else 2.0 - growth + effect[i]
            values[key] = float(level + luck[i] + rng.normal(0.0, noise[i] / 3))
        score = form.value(values)
        rows: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            task, metric = key.split("/")
            rows.setdefault(task, {})[metric] = {
                "value": value,
                "stderr": None,
                "n": 100,
                "higher_is_better": METRICS[key],
                "chance": facts[key].chance,
            }
        record.add_scores(
            {
                "step": step,
                "tokens": step * 1000,
                "score": score,
                "direction": "minimize",
                "metrics": rows,
            }
        )
    record.set_status("done")
    result = {"status": "done", "score": score, "direction": "minimize", "metrics": values}
    record.write_result({**result, "step": STEPS[-1], "tokens": 1000 * STEPS[-1], "audit_ok": True})
    assert score is not None
    return score


def difference(folder: Path, verdict: Verdict, runs: Sequence[str] | None) -> float:
    """Return the pick's advantage in the declared objective, over ``runs`` or over all."""
    objective = objective_of(folder)
    trials = {row.name: row.trial for row in verdict.candidates}
    means = []
    for name in (verdict.pick, verdict.reference):
        values = [
            value
            for record in list_runs(folder.parent, folder.name)
            if record.manifest.trial == trials[name]
            and (runs is None or record.path.name in runs)
            and (value := objective.value(_result(record))) is not None
        ]
        means.append(float(np.mean(values)))
    sign = 1.0 if verdict.direction == "maximize" else -1.0
    return sign * (means[0] - means[1])


def _result(record: RunRecord) -> Mapping[str, Any]:
    path = record.path / "result.json"
    return read_json(path) if path.exists() else {}


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path)
    parser.add_argument("--simulated", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [path.resolve() for path in arguments.studies]
        for k in range(arguments.simulated):
            folder = Path(scratch) / "runs" / f"study{k}"
            simulate(folder, arguments.seed + k)
            folders.append(folder)
        same_runs = all_runs = unnamed = 0
        for folder in folders:
            verdict = decide(gather(folder.parent, folder.name))
            judged = verdict.advantage.value
            other = judged * difference(folder, verdict, None) < 0.0
            same_runs += judged * difference(folder, verdict, verdict.runs) < 0.0
            all_runs += other
            unnamed += other and not verdict.disagreements
    print(f"studies                                            {len(folders)}")
    print(f"verdict against the objective of the same runs      {same_runs} with another sign")
    print(f"verdict against the objective of all their runs     {all_runs} with another sign")
    print(f"of these not named in the verdict's first line      {unnamed}")


if __name__ == "__main__":
    main()
