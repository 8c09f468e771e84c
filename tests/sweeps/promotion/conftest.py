"""Studies for the tests of promotion: real records, verdicts and audits, scores from a given truth.

Nothing is trained. A run's config is the composed one, its audit is counted from its own sampler, and its
scores are drawn around a mean that the test gives. A promotion reads the same files as from a real run.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.config.schema import RunConfig, dump, load
from ablations.mixture.audit import audit
from ablations.mixture.sampler import Sampler
from ablations.record.run_record import RunRecord
from sweeps.verdict.decide import decide
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import Verdict, write_verdict
from tests.conftest import SHORT_SOURCES, TINY
from tests.oracles.counts import closed_counts

SOURCES = ("synthetic_facts", "synthetic_arithmetic", "synthetic_junk")
TASKS = ("arc", "hellaswag", "math", "code", "facts", "books")
STEPS = (3, 6, 8)


def composed(*overrides: str, config: str = "run") -> dict[str, Any]:
    """Return a composed config as plain values."""
    return copy.deepcopy(_composed(config, overrides))


@cache
def _composed(config: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        values = OmegaConf.to_container(compose(config, overrides=list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def weights(*values: float) -> dict[str, float]:
    return dict(zip(SOURCES, values, strict=True))


@dataclass
class MadeStudy:
    """Writer of the run records of one study under ``runs/``."""

    runs_dir: Path
    study: str = "proxies"
    run_sd: float = 0.01
    overrides: Sequence[str] = ()
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def config(self, trial: str, seed: int, mixture: Mapping[str, float]) -> RunConfig:
        plain = composed(*TINY, *SHORT_SOURCES, *self.overrides)
        plain["mixture"]["weights"] = dict(mixture)
        return load(
            {**plain, "study": self.study, "trial": trial, "seed": seed, "runs_dir": "runs"}
        )

    def run(
        self,
        trial: str,
        seed: int,
        mixture: Mapping[str, float],
        *,
        effect: Mapping[str, float] | float = 0.0,
        counts: Any = None,
    ) -> RunRecord:
        """Write one finished run; ``effect`` lowers bits per byte by the end."""
        config = self.config(trial, seed, mixture)
        record = RunRecord.create(
            self.runs_dir, study=self.study, trial=trial, seed=seed, config=dump(config)
        )
        self.finish(record, config, effect=effect, counts=counts)
        return record

    def finish(
        self,
        record: RunRecord,
        config: RunConfig,
        *,
        effect: Mapping[str, float] | float = 0.0,
        counts: Any = None,
    ) -> None:
        """Write scores, audit and result as a run does."""
        schedule = config.build_schedule()
        for at, step in enumerate(STEPS):
            metrics = {task: self._metric(task, at, effect) for task in TASKS}
            values = [metrics[task]["bpb"]["value"] for task in TASKS]
            score = float(np.mean(values))
            record.add_scores(
                {
                    "step": step,
                    "tokens": step * schedule.tokens_per_step,
                    "score": score,
                    "direction": "minimize",
                    "metrics": metrics,
                }
            )
        if counts is None:
            sampler = Sampler(schedule, dict.fromkeys(schedule.sources, 10_000), config.seed, None)
            counts = closed_counts(sampler, schedule.total_samples).array
        windows = dict.fromkeys(schedule.sources, 10_000)
        found = audit(schedule, np.asarray(counts), windows, tolerance=1e-3)
        record.write_audit(found.to_json())
        final = {f"{task}/bpb": metrics[task]["bpb"]["value"] for task in TASKS}
        record.write_result(
            {
                "status": "done",
                "reason": None,
                "score": score,
                "direction": "minimize",
                "metrics": final,
                "step": STEPS[-1],
                "tokens": schedule.total_tokens,
                "cost": {},
                "audit_ok": found.ok,
            }
        )
        record.set_status("done")

    def _metric(self, task: str, at: int, effect: Mapping[str, float] | float) -> dict[str, Any]:
        extra = effect if isinstance(effect, float) else effect.get(task, 0.0)
        share = (at + 1) / len(STEPS)
        value = 3.0 - (0.5 + extra) * share + self.run_sd * float(self.rng.standard_normal())
        row = {"value": value, "stderr": 0.01, "n": 100, "higher_is_better": False, "chance": None}
        return {"bpb": row}

    def judge(self, baseline: str = "trial-0000") -> Verdict:
        from sweeps.verdict.decide import VerdictOptions

        verdict = decide(gather(self.runs_dir, self.study), VerdictOptions(baseline=baseline))
        write_verdict(self.runs_dir / self.study, verdict)
        return verdict


GOOD = weights(0.6, 0.3, 0.1)
PLAIN = weights(0.2, 0.3, 0.5)


@pytest.fixture(scope="session")
def won(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the runs of a study whose second trial clearly beats its first, the baseline."""
    made = MadeStudy(tmp_path_factory.mktemp("won"))
    for seed in (0, 1, 2):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD, effect=0.4)
    made.judge()
    return made.runs_dir


@pytest.fixture
def study(workspace: Path, won: Path) -> MadeStudy:
    """Copy that study into the workspace of the test."""
    shutil.copytree(won, workspace / "runs")
    return MadeStudy(workspace / "runs")


FULL = (
    "full=demo_full",
    "study=proxies",
    "tokenizer=synthetic_bpe",
    "evaluation=synthetic",
    "model.vocab_size=512",
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.intermediate_size=64",
    "training.sequence_length=32",
    "promotion.full.total_tokens=8192",
    "promotion.full.stages=null",
    "promotion.full.lr.decay_share=0.1",
    "mixture.epoch_cap=4.0",
    *SHORT_SOURCES,
)
"""Overrides of ``ablate promote`` for a study of the synthetic sources."""
