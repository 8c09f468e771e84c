"""Next step after a verdict, by the method of its study: a full run of text, a stage after one, or a run.

A promotion freezes a schedule of text. The pick of an SFT or DPO study is a stage of the promotion of its
pretraining study; that of a study with pictures is trained by a run with its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem, UserError
from ablations.record.run_record import list_runs

__all__ = ["method_of", "method_of_study", "next_command", "require_text"]


def method_of(config: Mapping[str, Any]) -> str:
    """Return the kind of method of a recorded config."""
    return str((config.get("method") or {}).get("kind", "pretrain"))


def method_of_study(runs_dir: Path, study: str) -> str:
    """Return the kind of method of the first run of a study whose record can be read."""
    for record in list_runs(runs_dir, study):
        with contextlib.suppress(UserError, OSError):
            return method_of(record.manifest.config)
    return "pretrain"


def next_command(named: str, study: str, method: str) -> str | None:
    """Return the command that takes up a verdict; None where a run with the pick's weights does.

    Args:
        named: ``study=…`` as it is typed, with ``runs_dir=…`` where it is not the default.
        study: Name of the study.
        method: Kind of its method.
    """
    if method == "pretrain":
        return f"ablate promote {named} full=…"
    if method in ("sft", "dpo"):
        return f"ablate promote study=… full=… +promotion.after.{method}.study={study}"
    return None


def require_text(study: str, config: Mapping[str, Any]) -> None:
    """Refuse the promotion of a study that did not train on text.

    Args:
        study: Name of the study.
        config: Recorded config of one of its runs.

    Raises:
        ConfigError: its method is sft, dpo or vlm.
    """
    method = method_of(config)
    if method == "pretrain":
        return
    command = next_command("", study, method)
    do = (
        f"promote the study of its pretraining: {command}"
        if command
        else "train the pick: ablate run experiment=… with its mixture.weights and a larger "
        "schedule.total_samples"
    )
    raise ConfigError(
        Problem(
            "study", "a full run of text does not take its mixture", found=f"method={method}", do=do
        )
    )
