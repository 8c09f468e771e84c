"""False winners and power of the verdict's rule, over simulated studies whose truth is known.

    python benchmarks/verdict_error_rates.py [--studies 1000] [--power-studies 200] [--plain] [--json FILE]

Prints, per kind of study: how often a winner is named although all candidates are equal (the goal is at
most 5%), how often item noise alone and no correction would have named one (the yardstick, the same
studies), and how often an effect of 1, 2, 3 noise SDs is found. Exit code 1 where false winners pass 5%
beyond what chance allows (exact binomial, one in a thousand).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.error_rates import Rates, Setting, rates
from sweeps.verdict.decide import decide
from sweeps.verdict.published import published_table

GOAL = 0.05
EFFECTS = (1.0, 2.0, 3.0)


def settings() -> dict[str, Setting]:
    """The kinds of study, by name."""
    grid = {
        f"{candidates} candidates, {seeds} seed{'s' * (seeds > 1)}": Setting(
            candidates=candidates, seeds=seeds
        )
        for candidates in (2, 5, 12)
        for seeds in (1, 2, 3, 5)
    }
    special = {
        "5 candidates, 3 seeds, 1 task of 1,000 items": Setting(tasks=1, items=1000),
        "5 candidates, 3 seeds, 10 tasks of 30 items": Setting(tasks=10, items=30),
        "5 candidates, 3 seeds, item noise as large as training noise": Setting(liked=1.0),
        "5 candidates, 3 seeds, no baseline": Setting(baseline=False),
        "13 in search, best judged on the search": Setting(candidates=13, design="search"),
        "13 in search, best 3 confirmed with 3 seeds": Setting(candidates=13, design="confirm"),
    }
    hidden = {
        f"{candidates} candidates, 1 seed, checkpoints share {share}": Setting(
            candidates=candidates, seeds=1, whole_run=part
        )
        for share, part in (("half", 0.5), ("three quarters", 0.75))
        for candidates in (2, 5, 12)
    }
    return {**grid, **special, **hidden, **not_ideal()}


def not_ideal() -> dict[str, Setting]:
    """Return the kinds of study whose noise is not that which the pooled rule was made for."""
    quiet = (1.0,) * 11
    confirmed = Setting(candidates=41, design="confirm", liked=1.0)
    rows = {
        "40 candidates, 3 seeds": Setting(candidates=40),
        "40 candidates, 3 seeds, t noise with 3 df": Setting(candidates=40, tails="t3"),
        "40 candidates, 3 seeds, lognormal SDs (0.7)": Setting(candidates=40, sd_spread=0.7),
        "items in clusters of 5, item noise 0.35": Setting(cluster=5),
        "items in clusters of 5, item noise 1.0": Setting(cluster=5, liked=1.0),
        "40 searched, best 3 confirmed x 3, item noise 1.0": confirmed,
        "40 searched, best 3 confirmed x 5, item noise 1.0": replace(confirmed, seeds=5),
    }
    for others in (4, 11):
        rows |= {
            f"{others + 1} candidates, 3 seeds, baseline with 3 x the SD": Setting(
                candidates=others + 1, sds=(3.0, *quiet[:others])
            ),
            f"{others + 1} candidates, 3 seeds, baseline with 25 x the SD": Setting(
                candidates=others + 1, sds=(25.0, *quiet[:others])
            ),
            f"{others + 1} candidates, 3 seeds, one with 25 x the SD": Setting(
                candidates=others + 1, sds=(*quiet[:others], 25.0)
            ),
            f"{others + 1} candidates, 3 seeds, SDs from 1 to 25": Setting(
                candidates=others + 1, sds=tuple(np.geomspace(1.0, 25.0, others + 1).tolist())
            ),
        }
    for half in (3, 6):
        rows[f"{2 * half} candidates, half with 3 x the SD and 2 seeds, not 5"] = Setting(
            candidates=2 * half,
            runs=(5,) * half + (2,) * half,
            sds=(1.0,) * half + (3.0,) * half,
        )
    for candidates in (2, 5, 12):
        rows |= {
            f"{candidates} candidates, 1 seed, correlation 0.8, half hidden": Setting(
                candidates=candidates, seeds=1, correlation=0.8, whole_run=0.5
            ),
            f"{candidates} candidates, 1 seed, correlation 0.95": Setting(
                candidates=candidates, seeds=1, correlation=0.95
            ),
        }
    return rows


def line(name: str, null: Rates, found: list[Rates]) -> str:
    """One row of the table."""
    power = "  ".join(f"{rate.right:5.0%}" for rate in found)
    return f"{name:<62} {null.wrong:6.1%} (≤ {null.wrong_upper:5.1%})  {null.naive:6.1%}   {power}"


def judged_plainly(setting: Setting, arguments: argparse.Namespace) -> tuple[float, list[float]]:
    """Return false winners and power of the pooled noise alone, on the same studies."""
    null, *found = (
        rates(replace(setting, effect=effect), studies, arguments.seed, plain=True)
        for effect, studies in (
            (0.0, arguments.studies),
            *((effect, arguments.power_studies) for effect in EFFECTS),
        )
    )
    return null.wrong, [rate.right for rate in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="studies with equal candidates")
    parser.add_argument("--power-studies", type=int, default=200, help="studies of each effect")
    parser.add_argument(
        "--plain", action="store_true", help="also judge the same studies by the pooled noise alone"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only kinds of study that contain this text")
    parser.add_argument("--json", type=Path, default=None, help="also write the rates there")
    arguments = parser.parse_args()
    began, rows, over = time.process_time(), {}, []
    print(f"{'kind of study':<62} {'false winners':<18} item noise power at 1, 2, 3 SD")
    for name, setting in settings().items():
        if arguments.only not in name:
            continue
        null = rates(setting, arguments.studies, arguments.seed)
        found = [
            rates(replace(setting, effect=effect), arguments.power_studies, arguments.seed)
            for effect in EFFECTS
        ]
        print(line(name, null, found), flush=True)
        rows[name] = {
            "false_winners": null.wrong,
            "upper": null.wrong_upper,
            "naive": null.naive,
            "power": [rate.right for rate in found],
        }
        if arguments.plain:
            wrong, right = judged_plainly(setting, arguments)
            rows[name] |= {"plain_false_winners": wrong, "plain_power": right}
            power = "  ".join(f"{share:5.0%}" for share in right)
            print(
                f"{'    by the pooled noise alone':<62} {wrong:6.1%} {'':18}   {power}", flush=True
            )
        wrong = round(null.wrong * null.studies)
        if stats.binomtest(wrong, null.studies, GOAL, alternative="greater").pvalue < 1e-3:
            over.append(name)
    print(f"\npublished table: {decide(published_table('smollm2_web_ratio')).sentence}")
    print(f"{time.process_time() - began:.0f} CPU-seconds")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if over:
        print(f"more than {GOAL:.0%} false winners: {'; '.join(over)}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
