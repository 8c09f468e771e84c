"""Study folders as runs leave them: real records, with scores and items drawn from a stated truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablations.files import write_json
from ablations.record.run_record import RunRecord

STEPS = (100, 200, 300, 400, 500)


@dataclass
class StudyFolder:
    """Writes run records of one study; higher accuracy is better, bits per byte lower."""

    runs_dir: Path
    study: str = "web"
    items: int = 200
    tasks: Mapping[str, str] = field(default_factory=lambda: {"arc": "acc", "wiki": "bpb"})
    run_sd: float = 0.01
    groups: Sequence[str] | None = None
    """Group of each item; None writes details as they were before groups were kept."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def run(
        self,
        trial: str,
        seed: int,
        *,
        effect: Mapping[str, float] | float = 0.0,
        weights: Mapping[str, float] | None = None,
        phase: str | None = None,
        name: str = "",
        asked_seeds: Sequence[int] = (0,),
        config: Mapping[str, Any] | None = None,
        item_ids: Sequence[str] | None = None,
        steps: Sequence[int] = STEPS,
        details: bool = True,
        flat: Sequence[str] = (),
        missing: Sequence[str] = (),
        result: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """One finished run; ``effect`` adds to every task's accuracy, or to those named."""
        record = RunRecord.create(
            self.runs_dir,
            study=self.study,
            trial=trial,
            seed=seed,
            config=self.config(seed, weights or {"edu": 0.5, "dclm": 0.5}, config or {}),
        )
        if phase is not None:
            spec = {"phase": phase, "name": name, "seeds": list(asked_seeds), "number": 0}
            write_json(record.path / "trial.json", spec)
        last: dict[str, float | None] = {}
        score: float | None = None
        for at, step in enumerate(steps):
            metrics: dict[str, Any] = {}
            for task, metric in self.tasks.items():
                extra = effect if isinstance(effect, float) else effect.get(task, 0.0)
                growth = 0.0 if task in flat else 0.05 * (at - len(steps) + 1)
                luck = self.run_sd * float(self.rng.standard_normal())
                mean = (
                    0.60 + growth + extra + luck if metric == "acc" else 2.0 - growth - extra + luck
                )
                values = self._items(task, mean)
                value: float | None = None if task in missing else float(values.mean())
                last[f"{task}/{metric}"] = value
                metrics[task] = {
                    metric: {
                        "value": value,
                        "stderr": None,
                        "n": self.items,
                        "higher_is_better": metric == "acc",
                        "chance": 0.25 if metric == "acc" else None,
                    }
                }
                if details and step == steps[-1]:
                    self._details(record, step, task, metric, values, item_ids)
            signs = {"acc": 1.0, "bpb": -1.0}
            parts = [
                None if (v := last[f"{task}/{metric}"]) is None else signs[metric] * v
                for task, metric in self.tasks.items()
            ]
            score = None if None in parts else float(np.mean([p for p in parts if p is not None]))
            record.add_scores(
                {
                    "step": step,
                    "tokens": step * 1000,
                    "score": score,
                    "direction": "maximize",
                    "metrics": metrics,
                }
            )
        record.set_status("done")
        record.write_result(
            {
                "status": "done",
                "reason": None,
                "score": score,
                "direction": "maximize",
                "metrics": last,
                "step": steps[-1],
                "tokens": steps[-1] * 1000,
                "cost": {},
                "audit_ok": True,
                **(result or {}),
            }
        )
        return record

    def config(
        self, seed: int, weights: Mapping[str, float], changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A resolved config with what a verdict looks at."""
        config: dict[str, Any] = {
            "study": self.study,
            "seed": seed,
            "tokenizer": {"name": "bpe"},
            "mixture": {"weights": dict(weights)},
            "schedule": {"total_tokens": 5e5, "stages": {"main": {"share": 1.0}}},
            "model": {"hidden_size": 64, "num_hidden_layers": 2},
            "evaluation": {
                "tasks": {task: {} for task in self.tasks},
                "score": {
                    "direction": "maximize",
                    "terms": {
                        "acc": {"metrics": "*/acc", "weight": 1.0},
                        "bpb": {"metrics": "*/bpb", "weight": 1.0},
                    },
                },
            },
        }
        return {**config, **changes}

    def _items(self, task: str, mean: float) -> np.ndarray:
        # Items keep their difficulty from run to run: hard is what pairing takes out.
        hard = np.random.default_rng(len(task)).standard_normal(self.items) * 0.2
        values = hard - hard.mean() + 0.02 * self.rng.standard_normal(self.items)
        return np.asarray(values - values.mean() + mean)

    def _details(
        self,
        record: RunRecord,
        step: int,
        task: str,
        metric: str,
        values: np.ndarray,
        item_ids: Sequence[str] | None,
    ) -> None:
        ids = list(item_ids or [f"{task}-{i}" for i in range(len(values))])
        order = self.rng.permutation(len(values))
        folder = record.path / "details" / str(step)
        folder.mkdir(parents=True, exist_ok=True)
        columns = {"item_id": [ids[i] for i in order], metric: values[order]}
        if self.groups is not None:
            columns["group"] = [self.groups[i] for i in order]
        table = pa.table(columns)
        pq.write_table(table, folder / f"{task}.parquet")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyFolder]:
    """A writer of studies under a fresh runs folder."""

    def make(**settings: Any) -> StudyFolder:
        return StudyFolder(runs_dir=tmp_path / "runs", **settings)

    return make
