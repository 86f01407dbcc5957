"""Which videos a simulation has and what happens in them, before any features are drawn.

They are drawn from the statistics of THUMOS'14 (:mod:`fustal_core.simulated_annotations`), with few
long actions as in ActivityNet (:mod:`fustal_core.simulated_long`), or are those of an annotation file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fustal_core.annotations import Annotations, Report, segments_frame, subset_roles
from fustal_core.simulated_annotations import (
    NESTED,
    Event,
    VideoPlan,
    class_records,
    class_statistics,
    draw_video,
    plan_videos,
)
from fustal_core.simulated_long import draw_long_video, plan_long_videos
from fustal_core.simulator_settings import SimulatorSettings

POINT_SD_FRAMES = 1.0
"""Of point labels around the middle of their actions: as measured in HR-Pro's for THUMOS'14."""
_SUBSETS = {"train": 1, "test": 2}
_POINTS = 3
# With 0 for the world these open the streams of random numbers: [seed, 1, place] and so on.


@dataclass(frozen=True)
class SimulatedVideo:
    """One video and what happens in it.

    subset: "train" or "test".
    fps, frames: rate and length of the source video.
    classes: shown in it.
    segments: truth, (label, start, end) in seconds.
    events: the same without the wider name of a nested instance: what adds up in the features.
    rng: in the state in which the features are to be drawn.
    """

    name: str
    subset: str
    duration_s: float
    fps: float
    frames: int
    classes: tuple[str, ...]
    segments: tuple[Event, ...]
    events: tuple[Event, ...]
    rng: np.random.Generator


def drawn_videos(settings: SimulatorSettings, seed: int) -> list[SimulatedVideo]:
    """Videos drawn from the class statistics, or with few long actions, training videos first.

    Each video has random numbers of its own: its place in its subset and the seed decide them, not
    the videos before it.
    """
    statistics, videos = class_records(class_statistics()), []
    sizes = {"train": settings.train_videos, "test": settings.test_videos}
    for subset, code in _SUBSETS.items():
        size = (settings.num_classes, subset, sizes[subset])
        if settings.action_share:
            plans = plan_long_videos(*size)
        else:
            plans = plan_videos(*size, settings.several_classes)
        for place, plan in enumerate(plans):
            rng = np.random.default_rng([seed, code, place])
            if settings.action_share:
                duration_s, events = draw_long_video(plan, settings, rng)
            else:
                duration_s, events = draw_video(plan, statistics, settings.max_video_s, rng)
            video = SimulatedVideo(
                name=f"sim_{subset}_{place:04d}",
                subset=subset,
                duration_s=duration_s,
                fps=settings.fps,
                frames=round(duration_s * settings.fps),
                classes=plan.classes,
                segments=tuple(_with_nested(events, plan)),
                events=tuple(events),
                rng=rng,
            )
            videos.append(video)
    return videos


def _with_nested(events: list[Event], plan: VideoPlan) -> list[Event]:
    """The events, and again under the wider name where one is nested in it."""
    nested = [(NESTED[e[0]], *e[1:]) for e in events if NESTED.get(e[0]) in plan.classes]
    return sorted(events + nested, key=lambda event: event[1:])


def check_annotations(annotations: Annotations, where: str, report: Report) -> None:
    """Report why no data set can be made of annotations; ``where`` names them in the problems."""
    videos = annotations.videos
    roles = videos["subset"].map(subset_roles(videos["subset"].unique()))
    found = ", ".join(map(repr, sorted(videos["subset"].unique())))
    for role in _SUBSETS:
        if not (roles == role).any():
            report.problem("split", f"{where}: no subset of {role} videos, found {found}")
    for video in videos.index[roles.notna() & videos["duration_s"].isna()]:
        report.problem("annotation", f"{where}: video {video}: no duration, expected seconds")
    role = annotations.segments["video"].map(roles)
    shown = {subset: set(annotations.segments["label"][role == subset]) for subset in _SUBSETS}
    for name in sorted(shown["test"] - shown["train"]):
        report.problem("class", f"{where}: class {name!r} is in no training video, only in test")
    if not shown["train"]:
        report.problem("class", f"{where}: no training video has a segment, expected at least one")


def annotated_videos(
    annotations: Annotations, settings: SimulatorSettings, seed: int
) -> list[SimulatedVideo]:
    """The annotated videos of the two subsets in the annotations' order, without unlabelled training
    videos.

    Where the annotations state no rate or length in frames, the setting's rate is taken.
    Raises :class:`DataError` with every problem.
    """
    report = Report()
    check_annotations(annotations, "annotations", report)
    report.raise_problems()
    roles = subset_roles(annotations.videos["subset"].unique())
    segments: dict[str, list[Event]] = {name: [] for name in annotations.videos.index}
    for name, *event in annotations.segments.itertuples(index=False, name=None):
        segments[name].append(tuple(event))
    places, videos = dict.fromkeys(_SUBSETS, 0), []
    for row in annotations.videos.itertuples():
        subset, own = roles.get(row.subset), segments[row.Index]
        if subset is None or (subset == "train" and not own):
            continue
        fps = settings.fps if math.isnan(row.fps) else row.fps
        frames = row.duration_s * fps if math.isnan(row.frames) else row.frames
        video = SimulatedVideo(
            name=row.Index,
            subset=subset,
            duration_s=row.duration_s,
            fps=fps,
            frames=round(frames),
            classes=tuple(sorted({event[0] for event in own})),
            segments=tuple(own),
            events=tuple(_without_nested(own)),
            rng=np.random.default_rng([seed, _SUBSETS[subset], places[subset]]),
        )
        places[subset] += 1
        videos.append(video)
    return videos


def _without_nested(segments: list[Event]) -> list[Event]:
    """The segments but those that repeat a nested one under the wider name."""
    nested = {(NESTED[label], *times) for label, *times in segments if label in NESTED}
    return [segment for segment in segments if segment not in nested]


def videos_frame(videos: Iterable[SimulatedVideo]) -> pd.DataFrame:
    """Index ``video``; columns ``subset`` and ``duration_s``."""
    rows = {video.name: (video.subset, video.duration_s) for video in videos}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["subset", "duration_s"])
    return frame.rename_axis("video")


def truth_frame(videos: Iterable[SimulatedVideo]) -> pd.DataFrame:
    """Segments of all videos: columns ``video``, ``label``, ``t_start``, ``t_end`` (s)."""
    return segments_frame([(video.name, *event) for video in videos for event in video.segments])


def draw_points(videos: Iterable[SimulatedVideo], seed: int) -> pd.DataFrame:
    """A point label for each segment of the training videos.

    Columns ``video``, ``label``, ``t_start``, ``t_end`` (of the segment) and ``t``, in seconds.

    Normally distributed around the segment's middle, whole frames of the source video, in the
    segment and in the video; a segment outside its video has none. Drawn with random numbers of
    their own.
    """
    rng, rows = np.random.default_rng([seed, _POINTS]), []
    for video in videos:
        if video.subset != "train":
            continue
        for label, start_s, end_s in video.segments:
            # Rounded, because times in tenths of a second are not quite whole frames.
            first = math.ceil(round(max(start_s, 0) * video.fps, 6))
            last = math.floor(round(min(end_s, video.duration_s) * video.fps, 6))
            drawn = rng.normal((start_s + end_s) / 2 * video.fps, POINT_SD_FRAMES)
            if start_s < video.duration_s and end_s > 0:
                frame = min(max(round(drawn), first), last)
                rows.append((video.name, label, start_s, end_s, frame / video.fps))
    frame = segments_frame([row[:4] for row in rows])
    return frame.assign(t=np.array([row[4] for row in rows], dtype=float))
