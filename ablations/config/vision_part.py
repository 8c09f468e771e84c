"""The vision part of a run with method=vlm: as the config states it, or that of the model it begins from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ablations.training.vision import VisionSpec
from ablations.training.vlm.text_part import vlm_config

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig

__all__ = ["vision_of"]


def vision_of(config: RunConfig) -> VisionSpec | None:
    """Return the vision part of a run; None for other methods, and if nothing on the disk states one.

    Raises:
        ConfigError: the model that the run begins from has a vision part that the platform does not train.
    """
    if config.method.kind != "vlm" or config.method.vision is not None:
        return config.method.vision
    start = config.warm_start.checkpoint
    found = vlm_config(Path(start)) if start else None
    return VisionSpec.of_config(found) if found else None
