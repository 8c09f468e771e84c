"""Values of every frame, of the figures' frames and of the summaries, on a made-up study."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from analysis.frames import COLUMNS, Frames, finals, task_values, weights
from analysis.synthetic import SyntheticStudy, write_study
from tests.pinned import require_pinned


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    folder = tmp_path_factory.mktemp("pinned")
    study = SyntheticStudy(
        name="pinned",
        sources=("wiki", "chat", "math"),
        trials=4,
        tasks=3,
        checkpoints=2,
        steps=6,
        confirmed=1,
        seeds=2,
        items=2,
        stages=("stable", "anneal"),
        running=1,
        failed=1,
    )
    write_study(folder, study)
    return Frames.read(folder, "pinned")


def _rows(frame: pd.DataFrame) -> Any:
    """Return the rows without what depends on the day and the folder."""
    times = [name for name in frame.columns if str(frame[name].dtype).startswith("datetime")]
    kept = frame.drop(columns=[*times, *({"folder", "path", "host"} & set(frame.columns))])
    return json.loads(kept.reset_index(drop=True).to_json(orient="split", double_precision=9))


@pytest.mark.parametrize("name", COLUMNS)
def test_the_values_of_a_frame_are_those_before(frames: Frames, name: str) -> None:
    require_pinned(f"frame_{name}", _rows(frames.frame(name)))


def test_the_views_of_frames_are_those_before(frames: Frames) -> None:
    last = finals(frames.scores)
    found = {
        "finals": last,
        "tasks": task_values(frames.scores),
        "weights": weights(frames.sources),
    }
    require_pinned("frame_views", {name: _rows(view) for name, view in found.items()})
