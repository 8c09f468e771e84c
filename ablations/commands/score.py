"""``ablate score checkpoint=…``: score a training checkpoint, or any transformers folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config.options import ScoreOptions
from ablations.config.schema import RunConfig, load, validate
from ablations.documents import Answer
from ablations.errors import CheckpointError, Problem
from ablations.evaluation.results import CheckpointScores, MetricScore
from ablations.evaluation.scoring_process import resolved_device
from ablations.precision import with_precision
from ablations.record.checksums import require_unchanged

__all__ = ["ScoreResult", "answer", "main"]


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Scores of one folder."""

    checkpoint: str
    """The folder that was scored."""
    out: str
    """Folder of ``scores.json`` and of the details of each item."""
    score: float | None
    """The suite's score; None if it has none, or if it is missing."""
    direction: str | None
    """Direction in which the score is better."""
    reason: str | None
    """Reason why the score is missing."""
    metrics: Mapping[str, Mapping[str, MetricScore]]
    """Task → metric → its value."""
    missing: Mapping[str, str]
    """Task that could not be scored → the reason."""


def main(config: Mapping[str, Any]) -> int:
    """Score, print and leave ``scores.json`` and the per-item details."""
    scores, out = _score(config)
    for name, value in sorted(scores.flat().items()):
        print(f"{name:<36} {'missing' if value is None else format(value, '.4f')}")
    if scores.direction is not None:
        said = "missing" if scores.score is None else f"{scores.score:.4f}"
        print(f"score {said} ({scores.direction}){'; ' + scores.reason if scores.reason else ''}")
    print(f"details in {out}")
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Score as :func:`main` does, and return the scores for a program."""
    scores, out = _score(config)
    result = ScoreResult(
        checkpoint=str(config["checkpoint"]),
        out=str(out),
        score=scores.score,
        direction=scores.direction,
        reason=scores.reason,
        metrics={name: dict(task.metrics) for name, task in scores.tasks.items()},
        missing={name: task.reason for name, task in scores.tasks.items() if task.reason},
    )
    return Answer(result=result)


def _score(config: Mapping[str, Any]) -> tuple[CheckpointScores, Path]:
    """Score the folder of the config; return the scores and the folder that they were written to."""
    from ablations.evaluation.scoring import ScoringPlace, score_folder
    from ablations.files import write_json

    run = with_precision(load(config, config.get("config_dirs", ())))
    options = validate(ScoreOptions, {key: config.get(key) for key in ("checkpoint", "out")})
    checkpoint = Path(options.checkpoint)
    out = Path(options.out) if options.out else checkpoint / "scores"
    if not checkpoint.is_dir():
        raise CheckpointError(
            Problem("checkpoint", "no such folder", found=checkpoint, do="see `ablate ls`")
        )
    folder = _as_transformers(checkpoint, run, out)
    out.mkdir(parents=True, exist_ok=True)
    stores = {name: run.store_folder(name) for name in run.read_sources}
    place = ScoringPlace(
        data_dir=Path(run.data_dir),
        stores={name: path for name, path in stores.items() if (path / "manifest.json").exists()},
        device=resolved_device(run.execution.device),
        dtype=run.evaluation.dtype,
    )
    scores = score_folder(folder, run.evaluation, out, place=place)
    write_json(out / "scores.json", scores.row())
    return scores, out


def _as_transformers(checkpoint: Path, run: RunConfig, out: Path) -> Path:
    """Return the folder itself where transformers can load it, else an export of the checkpoint."""
    require_unchanged(checkpoint, "restore it from a copy, or export it again")
    if (checkpoint / "config.json").exists():
        return checkpoint
    from ablations.prepared import tokenizer_folder
    from ablations.training.checkpoints import require_whole
    from ablations.training.export import export_checkpoint

    require_whole(checkpoint)
    return export_checkpoint(checkpoint, out / "export", tokenizer_folder(run))
