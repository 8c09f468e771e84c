"""A Hydra application whose runs are a formula: what the sweeper is tested with.

It keeps the contract of a run: the record in ``runs/<study>/<trial>-<seed>/``, one process at a
time, work that goes on where a killed process left it, ``result.json`` last. Every piece of work is
written to ``work.jsonl``, so that a test can count what was done twice.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from ablations.errors import ConfigError, Problem, TrainingError
from ablations.files import append_json_line, mend_lines, read_json_lines
from ablations.record.run_record import RunRecord

STEPS = 4
BEST = {"web": 0.55, "math": 0.35, "code": 0.10}


def loss(config: dict[str, Any]) -> float:
    """Distance from the best mixture, and a little noise that the seed decides."""
    weights = config["mixture"]["weights"]
    distance = sum((weights.get(name, 0.0) - best) ** 2 for name, best in BEST.items())
    return 2.0 + distance + abs(config["peak_lr"] - 0.01) + 0.001 * (config["seed"] % 7)


def execute(config: dict[str, Any]) -> float:
    """Run one run."""
    if config["mistake"]:
        raise ConfigError(Problem("mistake", "was asked for"))
    kept = {k: v for k, v in config.items() if k not in ("seconds", "fail", "crash", "search")}
    record = RunRecord.create(
        Path(config["runs_dir"]),
        study=config["study"],
        trial=config["trial"],
        seed=config["seed"],
        config=kept,
        labels=config["labels"],
    )
    with record.hold():
        if (result := record.result()) is not None:
            return float(result["score"])
        _work(record, config)
        score = loss(config)
        _finish(record, score)
    return score


def _work(record: RunRecord, config: dict[str, Any]) -> None:
    work = record.path / "work.jsonl"
    mend_lines(work)
    record.set_status("training")
    if config["fail"] == config["trial"] and not Path("mended").exists():
        raise TrainingError("the loss left the rails", step=3)
    done = len(list(read_json_lines(work)))
    if config["crash"] == config["trial"] and not done:
        append_json_line(work, {"step": 0, "pid": os.getpid()})
        os.kill(os.getpid(), signal.SIGKILL)
    for step in range(done, STEPS):
        time.sleep(config["seconds"] / STEPS)
        append_json_line(
            work,
            {
                "step": step,
                "pid": os.getpid(),
                "parent": os.getppid(),
                "slot": os.environ.get("ABLATIONS_SLOT"),
            },
        )


def _finish(record: RunRecord, score: float) -> None:
    record.set_status("done")
    manifest = record.manifest
    record.write_result(
        {
            "status": "done",
            "reason": None,
            "score": score,
            "direction": "minimize",
            "metrics": {"web/bpb": score, "math/bpb": 5.0 - score},
            "step": STEPS,
            "tokens": 1000,
            "cost": {
                "train_cpu_seconds": 0.1,
                "eval_cpu_seconds": 0.1,
                "wall_seconds": time.time() - (manifest.started or 0.0),
                "flops": 1e6,
                "device": "cpu",
            },
            "audit_ok": True,
        }
    )


@hydra.main(config_path="conf", config_name="app")
def main(config: Any) -> float:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return execute({str(key): value for key, value in plain.items()})


if __name__ == "__main__":
    from ablations.errors import AblationError

    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except AblationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
