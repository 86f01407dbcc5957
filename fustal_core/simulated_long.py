"""Annotations of simulated videos with few and long actions, as ActivityNet 1.3 and HACS have them.

A video shows one class. Its actions take any share of it, ``action_share`` on average, where those of
THUMOS'14 (:mod:`fustal_core.simulated_annotations`) are many and short.
"""

from __future__ import annotations

import numpy as np

from fustal_core.simulated_annotations import SHORTEST_VIDEO_S, Event, VideoPlan
from fustal_core.simulator_settings import SimulatorSettings

VIDEO_LOG_SD = 0.5
"""Of the log-normal of video durations: most are within a factor of two and a half of the mean."""
SHARE_CONCENTRATION = 2.0
"""Of the beta distribution of the share that actions take: at a mean of a half, all are as likely."""
EVEN_LENGTHS = 5.0
"""Dirichlet concentration of the actions' lengths: the longest is often twice the shortest."""
SHARES = (0.05, 0.95)
"""Smallest and largest share of a video that its actions take."""


def long_class_names(count: int) -> list[str]:
    """Names of so many classes, sorted: no real data set's, whose statistics these are not."""
    return [f"action {index:03d}" for index in range(count)]


def plan_long_videos(num_classes: int, subset: str, total: int) -> list[VideoPlan]:
    """One class for each of ``total`` videos of a subset, all equally often, up to one video."""
    names = long_class_names(num_classes)
    return [VideoPlan(subset, (names[place % num_classes],), 0.5) for place in range(total)]


def draw_long_video(
    plan: VideoPlan, settings: SimulatorSettings, rng: np.random.Generator
) -> tuple[float, list[Event]]:
    """Duration in seconds and the actions of one video, in order of time, in tenths of a second.

    The duration is log-normal, the number of actions 1 + Poisson, their share of the video beta
    distributed; what time is left goes to the places before, between and after them at random.
    """
    middle = np.log(settings.video_s) - VIDEO_LOG_SD**2 / 2  # so that the mean is video_s
    video_s = np.exp(rng.normal(middle, VIDEO_LOG_SD))
    video_s = float(np.clip(video_s, SHORTEST_VIDEO_S, settings.max_video_s))
    count = 1 + rng.poisson(settings.actions_per_video - 1)
    mean = settings.action_share
    share = rng.beta(SHARE_CONCENTRATION * mean, SHARE_CONCENTRATION * (1 - mean))
    busy_s = np.clip(share, *SHARES) * video_s
    durations_s = busy_s * rng.dirichlet(np.full(count, EVEN_LENGTHS))
    gaps_s = (video_s - busy_s) * rng.dirichlet(np.ones(count + 1))
    ends_s = np.cumsum(gaps_s[:-1] + durations_s)
    starts_s = np.round(ends_s - durations_s, 1)
    ends_s = np.floor(ends_s * 10) / 10
    times = zip(starts_s.tolist(), ends_s.tolist(), strict=True)
    events = [(plan.classes[0], start_s, end_s) for start_s, end_s in times if end_s > start_s]
    return round(video_s, 2), events
