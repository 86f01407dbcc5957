"""THUMOS'14-like data made on the spot: annotations and features with known truth.

Annotations follow the class statistics of THUMOS'14 (:mod:`fustal_core.simulated_annotations`),
features a generative model with the difficulties of the real task
(:mod:`fustal_core.simulated_features`), each with a strength in :class:`SimulatorSettings`. The
default strengths are calibrated on the baseline alone: CoLA's generator has about the mAP on this
data that it has on THUMOS'14.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pandas as pd
import torch

from fustal_core.annotations import segments_frame
from fustal_core.data import Dataset, FeatureStore
from fustal_core.progress import Progress
from fustal_core.simulated_annotations import (
    NESTED,
    Event,
    VideoPlan,
    class_statistics,
    draw_video,
    plan_videos,
)
from fustal_core.simulated_features import FINE_FRAMES, WINDOW_FRAMES, draw_features, draw_world
from fustal_core.simulator_settings import SimulatorSettings

__all__ = ["SimulatorSettings", "simulate"]

GENERATOR_STRIDE_FRAMES = 16
STUDENT_STRIDE_FRAMES = FINE_FRAMES


def simulate(settings: SimulatorSettings, seed: int, progress: Progress | None = None) -> Dataset:
    """Simulated data, the same to the bit for the same settings and seed on one machine.

    Each video has random numbers of its own: its place in its subset and the seed decide them, not
    the videos before it. ``progress`` is called as progress(done, total, note).
    """
    world = draw_world(settings, np.random.default_rng([seed, 0]))
    statistics = class_statistics()
    plans = [
        (f"sim_{subset}_{place:04d}", np.random.default_rng([seed, code, place]), plan)
        for code, subset in enumerate(("train", "test"), start=1)
        for place, plan in enumerate(_plans(settings, subset))
    ]
    videos, segments, features = {}, [], {}
    for done, (video, rng, plan) in enumerate(plans, start=1):
        duration_s, events = draw_video(plan, statistics, settings.max_video_s, rng)
        videos[video] = (plan.subset, duration_s)
        segments += [(video, *event) for event in _with_nested(events, plan)]
        features[video] = draw_features(duration_s, plan.classes, events, world, settings, rng)
        if progress is not None:
            progress(done, len(plans), video)
    frame = pd.DataFrame.from_dict(videos, orient="index", columns=["subset", "duration_s"])
    return _dataset(settings, frame.rename_axis("video"), segments_frame(segments), features)


def _plans(settings: SimulatorSettings, subset: str) -> list[VideoPlan]:
    total = settings.train_videos if subset == "train" else settings.test_videos
    return plan_videos(settings.num_classes, subset, total)


def _with_nested(events: list[Event], plan: VideoPlan) -> list[Event]:
    """The events, and again under the wider name where one is nested in it."""
    nested = [(NESTED[e[0]], *e[1:]) for e in events if NESTED.get(e[0]) in plan.classes]
    return sorted(events + nested, key=lambda event: event[1:])


def _dataset(
    settings: SimulatorSettings,
    videos: pd.DataFrame,
    segments: pd.DataFrame,
    features: dict[str, np.ndarray],
) -> Dataset:
    """Put the videos' student features below one another, and take every fourth for the generator."""
    every = GENERATOR_STRIDE_FRAMES // STUDENT_STRIDE_FRAMES
    fps = dict.fromkeys(features, settings.fps)
    stores = []
    for stride, skip in ((GENERATOR_STRIDE_FRAMES, every), (STUDENT_STRIDE_FRAMES, 1)):
        lengths = [len(array[::skip]) for array in features.values()]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).tolist()
        offsets = dict(zip(features, zip(starts, lengths, strict=True), strict=True))
        array = np.concatenate([array[::skip] for array in features.values()])
        stores.append(FeatureStore(torch.from_numpy(array), offsets, stride, WINDOW_FRAMES, fps))
    digest = sha256(videos.to_json().encode())
    digest.update(segments.to_json().encode())
    digest.update(stores[1].array.numpy().data)
    return Dataset(
        name="THUMOS'14-like",
        origin="simulated",
        classes=tuple(sorted(segments["label"].unique())),
        videos=videos,
        segments=segments,
        generator_features=stores[0],
        student_features=stores[1],
        fingerprint=digest.hexdigest(),
    )
