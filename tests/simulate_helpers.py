"""Annotations and settings for tests of simulated data."""

from __future__ import annotations

import math

import pandas as pd

from fustal_core.annotations import Annotations, segments_frame

NO_DIFFICULTIES = dict.fromkeys(
    (
        "incompleteness",
        "end_strength",
        "scene_strength",
        "context_strength",
        "motion_strength",
        "distractor_rate",
        "video_shift",
        "instance_spread",
        "noise",
    ),
    0.0,
)
"""Strengths of the simulator that make an action plain to see."""

Video = tuple[str, str, float, float, list[tuple[str, float, float]]]
"""Name, subset, duration in seconds, frames a second, and segments (label, start, end)."""


def annotations_of(videos: list[Video]) -> Annotations:
    rows = {name: (subset, duration, fps, math.nan) for name, subset, duration, fps, _ in videos}
    columns = ["subset", "duration_s", "fps", "frames"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("video")
    segments = [(name, *segment) for name, *_, own in videos for segment in own]
    return Annotations(frame, segments_frame(segments))
