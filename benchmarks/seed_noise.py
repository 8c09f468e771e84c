"""Compare the noise between seeds with the noise between late checkpoints, on real runs.

    ablate run -m study=noise experiment=demo_ratio search=none seed=0,1,2,3,4,5,6,7 training.checkpoints=10
    python benchmarks/seed_noise.py runs noise [--last 5]

Prints the variance of the final score over seeds against its yardstick, the variance of the last
checkpoints of each run about a line in tokens, for the score and for every task; the score's ratio
with its 95% interval. A verdict on one seed a candidate rests on the ratio that it assumes
(``sweeps.verdict.training_noise``: the product of the two inflations).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from ablations.record.run_record import list_runs
from sweeps.verdict.training_noise import (
    CHECKPOINT_INFLATION,
    HIDDEN_INFLATION,
    Floats,
    TrainingNoise,
    checkpoint_noise,
)


def late_noise(tokens: Floats, values: Floats, last: int) -> TrainingNoise:
    """Noise of the last checkpoints, as the verdict takes it: variance times two."""
    return checkpoint_noise([(tokens, row) for row in values], last)


def ratio(tokens: Floats, values: Floats, last: int) -> float:
    """Variance of the final values over seeds, over that of late checkpoints.

    Args:
        tokens: ``[checkpoints]``.
        values: ``[seeds, checkpoints]``.
        last: Checkpoints that count as late.
    """
    noise = late_noise(tokens, values, last)
    return float(values[:, -1].var(ddof=1) / (noise.variance / CHECKPOINT_INFLATION))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs_dir", type=Path)
    parser.add_argument("study")
    parser.add_argument("--last", type=int, default=5)
    options = parser.parse_args()
    rows = [r.scores() for r in list_runs(options.runs_dir, options.study) if r.result()]
    tokens = np.array([row["tokens"] for row in rows[0]], dtype=np.float64)
    scores = np.array([[row["score"] for row in run] for run in rows])
    found, seeds = ratio(tokens, scores, options.last), len(rows) - 1
    df = late_noise(tokens, scores, options.last).df
    low, high = found / stats.f.ppf([0.975, 0.025], seeds, df)
    assumed = CHECKPOINT_INFLATION * HIDDEN_INFLATION
    print(
        f"score: {len(rows)} seeds, SD {scores[:, -1].std(ddof=1):.4f}; variance over that of the last "
        f"{options.last} checkpoints: {found:.1f} (95%: {low:.1f} to {high:.1f}); assumed: {assumed:g}"
    )
    for task, metrics in rows[0][0]["metrics"].items():
        for metric in metrics:
            path = [[row["metrics"][task][metric]["value"] for row in run] for run in rows]
            values = np.array(path, dtype=np.float64)
            print(f"  {task + '/' + metric:<44} {ratio(tokens, values, options.last):6.1f}")


if __name__ == "__main__":
    main()
