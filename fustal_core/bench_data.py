"""Random data of given sizes, for the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter1d

from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.simulator import SimulatorSettings

FPS, WINDOW_FRAMES = 25, 16


@dataclass(frozen=True)
class Sizes:
    """How much each part is given; the defaults are the study's own sizes, trainings as published.

    Attributes:
        classes: of everything.
        batch, length, channels, hidden: (B, T, D, H) of the generator's training step.
        student_videos, student_length, student_channels: (B, T, D) of the student's.
        student_width, student_mlp: of its network, embedding and hidden channels.
        steps, student_steps: of a generator's and of the student's training that are timed, after a
            first one that is not.
        nms_groups, nms_segments: of soft-NMS, a group being the detections of a class in a video.
        snippets, shown: of the video whose proposals are made, and how many classes it shows.
        dataset_videos, dataset_snippets: of the data set whose proposals are made; the longest has
            twice as many snippets.
        detections, videos: of the evaluation.
        scored_videos, proposals: videos of the IoU score and proposals of each.
        pairs: of videos that are aligned.
        lcs_length, lcs_channels: candidates of each video and their channels, for LCS.
        fsd_length, fsd_channels: the same for FSD, which halves the channels.
        whole_snippets, points: of the long video whose points spread.
        rois, roi_channels: proposals of that video, and channels of the features they pool.
        feature_videos, feature_channels: of the feature files that are read, 320 snippets each.
        simulation: settings of the simulated data.
    """

    classes: int = 20
    batch: int = 16
    length: int = 750
    channels: int = 2048
    hidden: int = 2048
    student_videos: int = 8
    student_length: int = 2304
    student_channels: int = 2048
    student_width: int = 512
    student_mlp: int = 768
    steps: int = 2
    student_steps: int = 1
    nms_groups: int = 40
    nms_segments: int = 200
    snippets: int = 400
    shown: int = 2
    dataset_videos: int = 210
    dataset_snippets: int = 330
    detections: int = 47_124
    videos: int = 212
    scored_videos: int = 200
    proposals: int = 105
    pairs: int = 16
    lcs_length: int = 30
    lcs_channels: int = 2048
    fsd_length: int = 5
    fsd_channels: int = 1024
    whole_snippets: int = 2600
    points: int = 40
    rois: int = 1000
    roi_channels: int = 128
    feature_videos: int = 100
    feature_channels: int = 2048
    simulation: SimulatorSettings = field(default_factory=SimulatorSettings)


@dataclass(frozen=True)
class Inputs:
    """What a case is made of: sizes, a source of random data, a device, an empty folder for files."""

    sizes: Sizes
    rng: np.random.Generator
    device: str
    folder: Path


def smooth_curves(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Non-negative curves with bumps of about ten snippets, (length, count)."""
    return np.maximum(gaussian_filter1d(rng.normal(size=(length, count)), 2.5, axis=0), 0)


def alike_snippets(
    pairs: int, length: int, channels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative snippets of two videos of each pair, twice (pairs, length, channels), float32.

    Snippets of a pair are alike up to noise of different strength; at 2048 channels, one in three
    couples has a cosine above 0.92.
    """
    shared = rng.random((pairs, 1, channels))
    noise = rng.normal(size=(2, pairs, length, channels))
    strength = 0.4 * rng.random((2, pairs, length, 1))
    first, second = np.maximum(shared + strength * noise, 0).astype(np.float32)
    return first, second


def random_dataset(
    distinct: int,
    copies: int,
    snippets: int,
    channels: int,
    classes: int,
    stride_frames: int,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Dataset:
    """Training videos of equal length with a class each, and actions of it in every third of them.

    Args:
        distinct: videos with features of their own.
        copies: how often each of those occurs, under other names.
        snippets, channels: (T, D) of each video, uniform in [0, 1).
        classes: of the data set.
        stride_frames: of the features; 25 frames a second.
        rng: source of features and classes.
        device: where the features lie.
    """
    shape = distinct * snippets, channels
    features = torch.from_numpy(rng.random(shape, dtype=np.float32)).to(device)
    names = [f"v{i:04d}" for i in range(distinct * copies)]
    spans = {name: (i % distinct * snippets, snippets) for i, name in enumerate(names)}
    store = FeatureStore(features, spans, stride_frames, WINDOW_FRAMES, dict.fromkeys(names, FPS))
    duration_s = snippets * stride_frames / FPS
    labels = [f"class {label:02d}" for label in rng.integers(classes, size=len(names))]
    video, label = np.repeat(names, 3), np.repeat(labels, 3)
    start = rng.uniform(0, 0.2, size=(len(names), 3)) + np.arange(3) / 3
    end = start + rng.uniform(0.02, 0.1, size=start.shape)
    segments = _segments(video, label, duration_s * start.ravel(), duration_s * end.ravel())
    index = pd.Index(names, name="video")
    videos = pd.DataFrame({"subset": "train", "duration_s": duration_s}, index=index)
    known = tuple(f"class {label:02d}" for label in range(classes))
    return Dataset("random", "simulated", known, videos, segments, store, store, "")


def curves_dataset(videos: int, snippets: int, classes: int, rng: np.random.Generator) -> Dataset:
    """Test videos of up to twice so many snippets whose features are the T-CAS of two classes each."""
    counts = rng.integers(2, 2 * snippets + 1, size=videos).tolist()
    names = [f"v{i:04d}" for i in range(videos)]
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    curves = smooth_curves(sum(counts), classes, rng).astype(np.float32)
    for start, count in zip(starts, counts, strict=True):
        curves[start : start + count, rng.integers(classes, size=2)] *= 5
    spans = dict(zip(names, zip(starts, counts, strict=True), strict=True))
    store = FeatureStore(
        torch.from_numpy(curves), spans, WINDOW_FRAMES, WINDOW_FRAMES, dict.fromkeys(names, FPS)
    )
    durations_s = [count * store.seconds_per_snippet(names[0]) for count in counts]
    index = pd.Index(names, name="video")
    table = pd.DataFrame({"subset": "test", "duration_s": durations_s}, index=index)
    known = tuple(f"class {label:02d}" for label in range(classes))
    none = _segments([], [], np.zeros(0), np.zeros(0))
    return Dataset("curves", "simulated", known, table, none, store, store, "")


def random_detections(sizes: Sizes, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ground truth of one or two classes a video, and detections scattered around it.

    Every fifth detection has a random class, which the ground truth may not show in its video.
    """
    names = np.array([f"class {label:02d}" for label in range(sizes.classes)])
    # The first class goes round, so that every class is shown.
    shown = [{video % sizes.classes} for video in range(sizes.videos)]
    for classes in shown:
        classes |= {int(rng.integers(sizes.classes))} if rng.random() < 0.12 else set()
    count = rng.integers(5, 30, size=sizes.videos)
    video = np.repeat(np.arange(sizes.videos), count)
    label = np.concatenate([rng.choice(sorted(c), n) for c, n in zip(shown, count, strict=True)])
    start = rng.uniform(0, 150, size=len(video))
    truth = _segments(video, names[label], start, start + rng.lognormal(1, 0.6, len(video)))
    source = truth.iloc[rng.integers(len(truth), size=sizes.detections)]
    start = source["t_start"].to_numpy() + rng.normal(size=sizes.detections)
    length = (source["t_end"] - source["t_start"]).to_numpy()
    other = rng.random(sizes.detections) < 0.2
    random_names = rng.choice(truth["label"].unique(), sizes.detections)
    detections = _segments(
        source["video"],
        np.where(other, random_names, source["label"]),
        start,
        start + length * rng.lognormal(0, 0.3, sizes.detections),
    )
    return truth, detections.assign(score=rng.random(sizes.detections))


def _segments(video: Sequence, label: Sequence, start: np.ndarray, end: np.ndarray) -> pd.DataFrame:
    columns = {"video": np.asarray(video), "label": label, "t_start": start, "t_end": end}
    return pd.DataFrame(columns).astype({"video": str})
