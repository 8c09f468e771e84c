"""Records of studies with pictures, whose runs have stated gains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from ablations.record.run_record import RunRecord
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import Verdict

TASK = "heldout_digits"
TEXT = {"text": 0.5, "digits": 0.5}
MORE = {"text": 0.2, "digits": 0.8}
ERROR = 0.02
"""Standard error of each gain over its items."""


class PictureStudy:
    """Writes runs scored on text and on pictures; less bits per byte are better."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.rng = np.random.default_rng(5)

    def run(
        self,
        trial: str,
        seed: int,
        *,
        bpb: float,
        gain: float | None,
        shuffled: float | None,
        weights: Mapping[str, float] = TEXT,
        phase: str = "design",
        error: float | None = ERROR,
        groups: int | None = 100,
        text: float = 2.0,
        metrics: str = f"{TASK}/bpb",
        luck: float = 0.01,
        seeds: int = 3,
        shown: bool = True,
        kind: str = "pictures",
    ) -> RunRecord:
        """Write a finished run; gains have the noise of a seed, ``luck``."""
        rule = {"direction": "minimize", "terms": {"one": {"metrics": metrics}}}
        config = {
            "study": "look",
            "seed": seed,
            "tokenizer": {"name": "t"},
            "mixture": {"weights": dict(weights)},
            "source": {"digits": {"rows": {"kind": kind}}, "text": {"rows": None}},
            "evaluation": {"tasks": {}, "score": rule},
        }
        record = RunRecord.create(
            self.runs_dir, study="look", trial=trial, seed=seed, config=config
        )
        name = "natural" if phase == "baseline" else trial
        about = {"phase": phase, "name": name, "seeds": list(range(seeds)), "number": 0}
        (record.path / "trial.json").write_text(json.dumps(about))
        noise = luck * self.rng.standard_normal(4)

        def entry(value: float | None, higher: bool, own: float | None) -> dict[str, Any]:
            row = {"value": value, "stderr": own, "n": 400, "higher_is_better": higher}
            return {**row, "chance": None, **({"groups": groups} if groups else {})}

        values: dict[str, dict[str, Any]] = {"heldout_text": {}, TASK: {}}
        values["heldout_text"]["bpb"] = entry(text + noise[0], False, 0.01)
        if shown:
            known = [
                None if g is None else g + n
                for g, n in zip((gain, shuffled), noise[2:], strict=True)
            ]
            values[TASK]["gain"] = entry(known[0], True, error)
        values[TASK]["bpb"] = entry(bpb + noise[1], False, ERROR)
        if shown:
            values[TASK]["shuffled_gain"] = entry(known[1], True, error)
        flat = {f"{t}/{m}": one["value"] for t, of in values.items() for m, one in of.items()}
        matched = [value for key, value in flat.items() if fnmatchcase(key, metrics)]
        score = float(np.mean([value for value in matched if value is not None]))
        record.add_scores(
            {
                "step": 10,
                "tokens": 1000,
                "score": score,
                "direction": "minimize",
                "metrics": values,
            }
        )
        record.set_status("done")
        record.write_result(
            {
                "status": "done",
                "reason": None,
                "score": score,
                "direction": "minimize",
                "metrics": flat,
                "step": 10,
                "tokens": 1000,
                "cost": {},
                "audit_ok": True,
            }
        )
        return record

    def verdict(self, **options: Any) -> Verdict:
        return decide(gather(self.runs_dir, "look"), VerdictOptions(**options))


def two_arms(
    study: PictureStudy,
    base: tuple[float | None, float | None],
    mix: tuple[float | None, float | None],
    *,
    lead: float = 0.5,
    seeds: int = 3,
    **values: Any,
) -> PictureStudy:
    """Write a baseline and a mixture that leads it, each with its gain and its gain over another picture."""
    for seed in range(seeds):
        study.run(
            *("trial-0000", seed),
            bpb=2.0,
            gain=base[0],
            shuffled=base[1],
            phase="baseline",
            seeds=seeds,
            **values,
        )
        study.run(
            *("trial-0001", seed),
            bpb=2.0 - lead,
            gain=mix[0],
            shuffled=mix[1],
            weights=MORE,
            seeds=seeds,
            **values,
        )
    return study


SEES = (0.4, 0.5)
BLIND = (0.01, 0.0)
