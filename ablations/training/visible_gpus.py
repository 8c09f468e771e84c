"""GPUs of this process, found without torch."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["visible_gpus"]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, found without starting CUDA."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    nodes = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted((name for name in nodes if name.isdigit()), key=int)
