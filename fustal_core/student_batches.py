"""What the student trains on: pseudo labels on the feature grid, random crops, padded batches.

FuSTAL, stage 3, "Training". The only labels used are the ones given (pseudo labels, EMA labels)
and the set of classes of each video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.features import FeatureStore, to_device

if TYPE_CHECKING:
    from fustal_core.stage_settings import StudentSettings

CROP_TRIES = 200
KEPT_SHARE = 0.5
"""A segment stays in a crop when at least this share of it remains."""


@dataclass(frozen=True)
class GridLabels:
    """Labelled segments of one video or crop.

    Attributes:
        segments: (N, 2) float32 start and end, grid units (0 is the centre of the first snippet).
        labels: (N,) int64 class indices.
    """

    segments: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """B crops, padded to one length.

    Attributes:
        videos: names.
        first: the snippet each crop starts at.
        features: (B, T, D) with noise, 0 in the padding.
        mask: (B, T) bool.
        given: labels of each crop, in its own grid units.
        video_labels: (B, C) multi-hot.
    """

    videos: list[str]
    first: list[int]
    features: Tensor
    mask: Tensor
    given: list[GridLabels]
    video_labels: Tensor


@dataclass(frozen=True)
class TrainingSet:
    """Videos to train on: names, features, known classes (N, C) and segments to learn."""

    names: list[str]
    store: FeatureStore
    video_labels: Tensor
    labels: dict[str, GridLabels]


def grid_labels(
    labels: pd.DataFrame, store: FeatureStore, names: list[str], classes: tuple[str, ...]
) -> dict[str, GridLabels]:
    """Labels in seconds to grid units; a video without any gets an empty set (all background).

    Args:
        labels: columns ``video``, ``label`` (class name), ``t_start``, ``t_end`` (s).
        store: the student's features, which know the clock.
        names: the videos wanted.
        classes: sorted class names.

    Raises:
        ValueError: a label that is none of the classes.
    """
    unknown = sorted(set(labels["label"]) - set(classes))
    if unknown:
        raise ValueError(f"expected labels among {', '.join(classes)}, got {', '.join(unknown)}")
    index = pd.Index(classes).get_indexer(labels["label"])
    rows = labels.groupby("video").indices
    times_s = labels[["t_start", "t_end"]].to_numpy(dtype=float)
    none = np.zeros(0, dtype=int)
    return {
        video: GridLabels(
            torch.as_tensor(store.to_grid(video, times_s[rows.get(video, none)])).float(),
            torch.as_tensor(index[rows.get(video, none)], dtype=torch.long),
        )
        for video in names
    }


def training_batches(
    data: TrainingSet,
    settings: StudentSettings,
    crop_rng: np.random.Generator,
    noise_rng: torch.Generator,
    device: torch.device,
) -> Iterator[Batch]:
    """One epoch: every video once in a new order, randomly cropped, with noise, in batches."""
    order = crop_rng.permutation(len(data.names))
    for start in range(0, len(order), settings.batch_size):
        chosen = order[start : start + settings.batch_size]
        yield make_batch(data, chosen, settings, crop_rng, noise_rng, device)


def make_batch(
    data: TrainingSet,
    chosen: np.ndarray,
    settings: StudentSettings,
    crop_rng: np.random.Generator,
    noise_rng: torch.Generator,
    device: torch.device,
) -> Batch:
    """Crop, pad and disturb the videos of the given indices."""
    names = [data.names[i] for i in chosen]
    crops, firsts, given = [], [], []
    for name in names:
        length = data.store.num_snippets(name)
        first, size, labels = random_crop(
            data.labels[name], length, half_window(data.store), settings, crop_rng
        )
        crops.append(data.store[name][first : first + size])
        firsts.append(first)
        given.append(labels)
    features, mask = pad_features(crops, settings, device)
    noise = torch.randn(features.shape, generator=noise_rng, device=device)
    # No noise in the padding: a convolution at a video's end reads it.
    features = features + settings.input_noise * noise * mask[..., None]
    video_labels = to_device(data.video_labels[chosen], device)
    return Batch(names, firsts, features, mask, given, video_labels)


def half_window(store: FeatureStore) -> float:
    """Half of a snippet's window in grid units: a video begins this long before position 0."""
    return store.window_frames / (2 * store.stride_frames)


def random_crop(
    given: GridLabels,
    length: int,
    half: float,
    settings: StudentSettings,
    rng: np.random.Generator,
) -> tuple[int, int, GridLabels]:
    """A random part of a video of ``length`` positions.

    Its size is drawn from crop_min to 1 times the length; a video longer than max_length gives
    max_length positions. Segments of which at least half remains are kept, cut at the ends; of 200
    places the first that keeps one is taken, the last if none does.

    Args:
        given: labels of the whole video.
        length: number of snippets.
        half: half a snippet's window, grid units; what the crop's snippets see counts as inside.
        settings: of the student.
        rng: source of size and place.

    Returns:
        First position, size, and the labels in the crop's own grid units.
    """
    size = settings.max_length
    if length <= size:
        size = int(rng.integers(max(round(settings.crop_min * length), 1), length + 1))
    if size == length:
        return 0, length, given
    firsts = torch.as_tensor(rng.integers(0, length - size + 1, size=CROP_TRIES))
    begin = firsts[:, None] - half  # (tries, 1) against segments (N,)
    finish = firsts[:, None] + size - 1 + half
    start, end = given.segments.unbind(1)
    inside = torch.minimum(end, finish) - torch.maximum(start, begin)
    kept = inside >= KEPT_SHARE * (end - start)
    usable = kept.any(1).nonzero()
    place = int(usable[0]) if len(usable) else CROP_TRIES - 1
    first, chosen = int(firsts[place]), kept[place]
    cut = given.segments[chosen].clamp(float(begin[place]), float(finish[place])) - first
    return first, size, GridLabels(cut, given.labels[chosen])


def pad_features(
    crops: list[Tensor], settings: StudentSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Stack (T_i, D) features with zeros behind them: (B, T, D), and the mask (B, T).

    T is at least max_length when the network's mean runs over the padded length, as in the release,
    and a multiple of the pyramid's largest stride.
    """
    lengths = torch.tensor([len(crop) for crop in crops])
    longest = int(lengths.max())
    if settings.global_mean == "padded":
        longest = max(longest, settings.max_length)
    multiple = 2 ** (settings.levels - 1)
    padded = -(-longest // multiple) * multiple
    features = torch.zeros(len(crops), padded, crops[0].shape[1], device=device)
    for row, crop in zip(features, crops, strict=True):
        row[: len(crop)] = to_device(crop, device)
    return features, to_device(torch.arange(padded) < lengths[:, None], device)


def stack_labels(given: list[GridLabels]) -> tuple[Tensor, Tensor]:
    """Labels of B crops as segments (B, N, 2) and classes (B, N), -1 in empty places; on the CPU."""
    longest = max(len(labels.labels) for labels in given)
    segments = torch.zeros(len(given), longest, 2)
    classes = torch.full((len(given), longest), -1)
    for i, labels in enumerate(given):
        segments[i, : len(labels.labels)] = labels.segments
        classes[i, : len(labels.labels)] = labels.labels
    return segments, classes
