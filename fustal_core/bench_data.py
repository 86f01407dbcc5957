"""Random data of given sizes, for the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

if TYPE_CHECKING:
    from fustal_core.bench import Sizes


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
