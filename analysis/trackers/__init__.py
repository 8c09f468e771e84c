"""Records logged to a tracker that the user has installed: trackio, TensorBoard or W&B; off by default.

    ablate watch study=demo_ratio tracker=tensorboard            as it runs
    ablate watch study=demo_ratio tracker=trackio once=true      what there is, once

The records stay the only truth: a tracker gets copies, training never waits for one, and a copy may be
made again from nothing.
"""

from __future__ import annotations

from analysis.trackers.backends import TRACKERS, Tracker, TrackerName
from analysis.trackers.mirror import Mirror, open_mirror

__all__ = ["TRACKERS", "Mirror", "Tracker", "TrackerName", "open_mirror"]
