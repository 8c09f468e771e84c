"""Copies of the records in an installed tracker: trackio, TensorBoard or W&B; off by default.

    ablate watch study=demo_ratio tracker=tensorboard            while the study runs
    ablate watch study=demo_ratio tracker=trackio once=true      all rows, once

The records remain the source of truth: a tracker gets copies, training never waits for it, and the
copies can be made again from the records.
"""

from __future__ import annotations

from analysis.trackers.backends import TRACKERS, Tracker, TrackerName
from analysis.trackers.mirror import Mirror, open_mirror

__all__ = ["TRACKERS", "Mirror", "Tracker", "TrackerName", "open_mirror"]
