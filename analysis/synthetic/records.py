"""Records of a made-up study, in the layout of `docs/architecture.md`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.frames.config_columns import planned_sources
from analysis.synthetic.study import (
    DOMAINS,
    START,
    SyntheticStudy,
    SyntheticTrial,
    Truth,
    synthetic_trials,
)

__all__ = ["write_study"]


def write_study(runs_dir: Path, study: SyntheticStudy) -> Path:
    """Write every record of ``study`` under ``runs_dir``; return the study's folder."""
    folder = Path(runs_dir) / study.name
    truth = Truth(study)
    for number, trial in enumerate(synthetic_trials(study)):
        for seed in range(trial.seeds):
            draw = np.random.default_rng([study.seed, study.luck, number, seed])
            _write_run(folder / f"{trial.trial}-{seed}", study, trial, seed, truth, draw)
    return folder


def _write_run(
    path: Path,
    study: SyntheticStudy,
    trial: SyntheticTrial,
    seed: int,
    truth: Truth,
    draw: np.random.Generator,
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    config = _config(study, trial, seed, truth)
    (path / "manifest.json").write_text(json.dumps(_manifest(study, trial, seed, config), indent=1))
    reached = study.steps if trial.status == "done" else study.steps // 2
    _lines(path / "metrics.jsonl", _metric_rows(study, reached, draw))
    rows, details = _score_rows(study, trial, reached, truth, draw)
    _lines(path / "scores.jsonl", rows)
    for (step, task), items in details.items():
        _write_details(path / "details" / str(step) / f"{task}.parquet", items)
    if trial.status == "training":
        return
    if trial.status == "done":
        (path / "audit.json").write_text(json.dumps(_audit(study, config, draw), indent=1))
    (path / "result.json").write_text(json.dumps(_result(study, trial, rows, reached), indent=1))


def _config(
    study: SyntheticStudy, trial: SyntheticTrial, seed: int, truth: Truth
) -> dict[str, Any]:
    """Return a config in the schema's names, with the keys that the analysis reads."""
    count = len(study.sources)
    total = study.steps * study.tokens_per_step
    domains = {s: DOMAINS[i % len(DOMAINS)] for i, s in enumerate(study.sources)}
    stages = {}
    for place, stage in enumerate(study.stages):
        lean = place / max(1, len(study.stages)) * 0.5
        weights = {s: (1 - lean) * w for s, w in trial.weights.items()}
        weights[study.sources[-1]] += lean
        stages[stage] = {"share": 1.0 / len(study.stages), "tokens": None, "weights": weights}
    tasks = {
        task: {
            "form": "cloze",
            "domain": domains[study.sources[truth.home[place]]],
            "metrics": ["bpb", "acc_char"] if place % 3 == 0 else ["bpb"],
        }
        for place, task in enumerate(truth.tasks)
    }
    return {
        "study": study.name,
        "trial": trial.trial,
        "seed": seed,
        "source": {
            s: {"domain": domains[s], "tokens_available": total * (count - i) * 0.3}
            for i, s in enumerate(study.sources)
        },
        "mixture": {"weights": dict(trial.weights), "normalize": False, "epoch_cap": 4.0},
        "schedule": {
            "total_tokens": total,
            "stages": stages if len(stages) > 1 else {"main": {"share": 1.0}},
            "lr": {"kind": "wsd", "warmup_share": 0.05, "decay_share": 0.2, "shape": "linear"},
            "full_tokens": None,
        },
        "model": {
            "vocab_size": 1024,
            "hidden_size": study.hidden_size,
            "intermediate_size": 4 * study.hidden_size,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        "training": {
            "sequence_length": 64,
            "batch_size": study.tokens_per_step // 64,
            "peak_lr": 3e-3,
        },
        "evaluation": {
            "tasks": tasks,
            "score": {"direction": "minimize", "terms": {"bpb": {"metrics": "*/bpb"}}},
        },
    }


def _manifest(
    study: SyntheticStudy, trial: SyntheticTrial, seed: int, config: Mapping[str, Any]
) -> dict[str, Any]:
    number = int(trial.trial.rsplit("-", 1)[1])
    started = START + 60.0 * number + 5.0 * seed
    over = trial.status in ("done", "failed")
    command = ["ablate", "run", f"study={study.name}", f"trial={trial.trial}", f"seed={seed}"]
    command += [f"++mixture.weights.{s}={w!r}" for s, w in trial.weights.items()]
    labels: dict[str, Any] = {"phase": trial.phase, "synthetic": True}
    if trial.name:
        labels["name"] = trial.name
    return {
        "study": study.name,
        "trial": trial.trial,
        "seed": seed,
        "fingerprint": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "config": config,
        "status": trial.status,
        "reason": "step 20: loss is not finite" if trial.status == "failed" else None,
        "labels": labels,
        "versions": {"python": "3.11", "ablations": "0.1.0"},
        "git_commit": None,
        "command": command,
        "created": started,
        "started": started + 1.0,
        "finished": started + 31.0 if over else None,
        "host": "synthetic",
        "pid": 0,
        "format": 1,
    }


def _metric_rows(
    study: SyntheticStudy, reached: int, draw: np.random.Generator
) -> Iterator[dict[str, Any]]:
    noise = draw.normal(0.0, 0.03, reached)
    for step in range(1, reached + 1):
        progress = step / study.steps
        yield {
            "step": step,
            "tokens": step * study.tokens_per_step,
            "loss": round(3.0 + 3.5 * math.exp(-5.0 * progress) + float(noise[step - 1]), 5),
            "lr": round(3e-3 * min(1.0, progress / 0.05, (1.0 - progress) / 0.2 + 1e-3), 7),
            "grad_norm": round(1.0 + 0.2 * abs(float(noise[step - 1])), 5),
            "tokens_per_second": 20000.0,
            "seconds": round(step * study.tokens_per_step / 20000.0, 4),
        }


def _score_rows(
    study: SyntheticStudy,
    trial: SyntheticTrial,
    reached: int,
    truth: Truth,
    draw: np.random.Generator,
) -> tuple[list[dict[str, Any]], dict[tuple[int, str], dict[str, Any]]]:
    weights = np.array([trial.weights[s] for s in study.sources])
    shift = draw.normal(0.0, study.noise)
    own = draw.normal(0.0, 0.5 * study.noise, study.tasks)
    count = max(1, study.items)
    rows, details = [], {}
    for point in range(1, study.checkpoints + 1):
        step = round(study.steps * point / study.checkpoints)
        if step > reached:
            break
        values = truth.bpb(weights, step / study.steps) + shift + own
        metrics: dict[str, Any] = {}
        for place, task in enumerate(truth.tasks):
            items = _items(study, place, float(values[place]), draw)
            with_accuracy = place % 3 == 0
            metrics[task] = _cells(items, count, with_accuracy)
            if study.items and step == reached:
                details[step, task] = items if with_accuracy else items | {"acc_char": None}
        score = float(np.mean([cell["bpb"]["value"] for cell in metrics.values()]))
        rows.append(
            {
                "step": step,
                "tokens": step * study.tokens_per_step,
                "score": score,
                "direction": "minimize",
                "metrics": metrics,
            }
        )
    return rows, details


def _items(
    study: SyntheticStudy, task: int, value: float, draw: np.random.Generator
) -> dict[str, Any]:
    """Draw item values around ``value``; difficulty depends on the item, so that runs can be paired."""
    if not study.items:
        return {
            "bpb": np.array([value]),
            "acc_char": np.array([min(0.95, max(0.05, 1 - value / 4))]),
        }
    count = study.items
    hard = np.random.default_rng([study.seed, 7, task]).normal(0.0, 0.5, count)
    bpb = value + (hard - hard.mean()) + draw.normal(0.0, 0.02, count)
    right = draw.random(count) < np.clip(0.25 + 0.35 * (3.0 - bpb), 0.05, 0.95)
    return {"bpb": bpb, "acc_char": right.astype(float)}


def _cells(items: Mapping[str, Any], count: int, with_accuracy: bool) -> dict[str, Any]:
    cells = {"bpb": _cell(items["bpb"], count, False, None)}
    if with_accuracy:
        cells["acc_char"] = _cell(items["acc_char"], count, True, 0.25)
    return cells


def _cell(
    values: np.ndarray[Any, Any], count: int, higher: bool, chance: float | None
) -> dict[str, Any]:
    return {
        "value": float(values.mean()),
        "stderr": float(values.std() / math.sqrt(count)),
        "n": count,
        "higher_is_better": higher,
        "chance": chance,
    }


def _audit(
    study: SyntheticStudy, config: Mapping[str, Any], draw: np.random.Generator
) -> dict[str, Any]:
    rows = []
    epochs: dict[str, float] = {}
    for plan in planned_sources(config):
        realised = plan.weight + float(draw.normal(0.0, 2e-4)) * (0.0 < plan.weight < 1.0)
        rows.append(
            {
                "stage": plan.stage,
                "source": plan.source,
                "asked": plan.weight,
                "realised": realised,
                "tokens": round(plan.tokens),
                "windows": round(plan.tokens / 64),
            }
        )
        epochs[plan.source] = epochs.get(plan.source, 0.0) + plan.tokens / (plan.available or 1.0)
    return {"ok": True, "tolerance": 1e-3, "stages": rows, "epochs": epochs}


def _result(
    study: SyntheticStudy, trial: SyntheticTrial, rows: list[dict[str, Any]], reached: int
) -> dict[str, Any]:
    done = trial.status == "done"
    tokens = reached * study.tokens_per_step
    last = rows[-1] if done and rows else None
    metrics: dict[str, float] = {}
    if last:
        for task, cells in last["metrics"].items():
            metrics |= {f"{task}/{metric}": cell["value"] for metric, cell in cells.items()}
    return {
        "status": trial.status,
        "reason": None if done else "step 20: loss is not finite",
        "score": last["score"] if last else None,
        "direction": "minimize",
        "metrics": metrics,
        "step": reached,
        "tokens": tokens,
        "cost": {
            "train_cpu_seconds": tokens / 18000.0,
            "eval_cpu_seconds": 3.0,
            "wall_seconds": tokens / 18000.0 + 3.5,
            "flops": 6.0 * 3e5 * (study.hidden_size / 64) ** 2 * tokens,
            "device": "cpu",
        },
        "audit_ok": True if done else None,
    }


def _lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_details(path: Path, items: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(items["bpb"])
    columns = {name: values for name, values in items.items() if values is not None}
    table = pa.table(
        {"item_id": [f"item-{n:05d}" for n in range(count)], **columns}
        | {"gold": np.zeros(count, dtype=np.int64), "length_baseline": np.zeros(count)}
    )
    parquet.write_table(table, path)
