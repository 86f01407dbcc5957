"""What point supervision gives a method to learn from: features and one moment of each action.

The moments are those given with the data (:mod:`fustal_core.points`), or are drawn here from the true
segments of the training videos, as if somebody had pointed at each of them once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.annotations import DataError
from fustal_core.points import points_frame, snippets_of

if TYPE_CHECKING:
    from fustal_core.data import Dataset, FeatureStore
    from fustal_core.stage_settings import PointSource

GAUSSIAN_SD = 1 / 6
"""Of drawn points around the middle of their segments, as a share of the segments' length."""
_POINTS = 4  # what the random numbers of points are drawn from, beside the seed


def points_in_segments(
    segments: pd.DataFrame, durations_s: pd.Series, how: PointSource, seed: int
) -> pd.DataFrame:
    """Draw a point in each segment; in the part of it that its video shows, if it shows any.

    Args:
        segments: columns ``video``, ``label``, ``t_start``, ``t_end`` (s).
        durations_s: of their videos (s), index ``video``.
        how: "gaussian": normally distributed around the middle, with a sixth of the length as standard
            deviation, and what falls beside the segment at its end; "uniform"; "centre"; "start".
            HR-Pro's published "gaussian" points lie at the middle give or take a frame: "centre" is
            what comes closest to them.
        seed: of the drawing; the same one draws the same points.

    Returns:
        Columns ``video``, ``label``, ``t`` (s), in the order of the segments; a segment that lies
        beside its video has none.

    Raises:
        ValueError: another ``how``.
    """
    start_s = segments["t_start"].clip(lower=0).to_numpy()
    end_s = np.minimum(segments["t_end"], durations_s.loc[segments["video"]].to_numpy()).to_numpy()
    places = _places(len(segments), how, np.random.default_rng([seed, _POINTS]))
    t_s = np.clip(start_s + places * (end_s - start_s), start_s, np.maximum(start_s, end_s))
    shown = start_s < end_s
    columns = (segments["video"], segments["label"], t_s)
    rows = list(zip(*(column[shown] for column in columns), strict=True))
    return points_frame(rows)


def _places(count: int, how: PointSource, rng: np.random.Generator) -> np.ndarray:
    """Places in segments, (count,): 0 is the start, 1 the end; those beside it are yet to be clipped."""
    if how == "gaussian":
        return rng.normal(0.5, GAUSSIAN_SD, count)
    if how == "uniform":
        return rng.random(count)
    if how in ("centre", "start"):
        return np.full(count, 0.5 if how == "centre" else 0.0)
    raise ValueError(f"points {how!r}, expected 'gaussian', 'uniform', 'centre' or 'start'")


@dataclass(frozen=True)
class PointSupervision:
    """All that a method trained with points may see: no segment, and no test video.

    Attributes:
        videos: names of the training videos.
        classes: names; a class's index is its place here.
        features: of these videos.
        points: columns ``video``, ``label``, ``t`` (s), at least one.

    Raises:
        ValueError: no points, or a point of another video or class.
    """

    videos: tuple[str, ...]
    classes: tuple[str, ...]
    features: FeatureStore
    points: pd.DataFrame

    def __post_init__(self) -> None:
        for column, known in (("video", self.videos), ("label", self.classes)):
            other = set(self.points[column]) - set(known)
            if other:
                raise ValueError(f"points of {column} {min(other)!r}, expected one of the data's")
        if self.points.empty:
            raise ValueError("no points, expected at least one")

    @cached_property
    def _rows(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Video -> snippets and classes of its points; videos without one are missing."""
        points = self.points.sort_values(["video", "t"], kind="stable")
        names = points["video"].tolist()
        steps_s = np.array([self.features.seconds_per_snippet(video) for video in names])
        last = np.array([self.features.num_snippets(video) - 1 for video in names])
        snippets = np.clip(snippets_of(points["t"].to_numpy(), steps_s).astype(np.int64), 0, last)
        labels = pd.Index(self.classes).get_indexer(points["label"]).astype(np.int64)
        groups = points.groupby("video").indices
        return {video: (snippets[rows], labels[rows]) for video, rows in groups.items()}

    def rows_of(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """Snippet index (P,), 0 <= index < T, and class index (P,) of a video's points, by time.

        A point belongs to snippet ``floor(t / seconds_per_snippet)``; one after the last snippet, to
        the last. int64; P is 0 for a video without points.

        Raises:
            KeyError: no training video.
        """
        if video not in self.features:
            raise KeyError(video)
        nothing = np.empty(0, dtype=np.int64)
        return self._rows.get(video, (nothing, nothing))

    def multi_hot(self, video: str) -> Tensor:
        """(T, C) float, 1 where a snippet holds a point of a class; raises as :meth:`rows_of`."""
        snippets, classes = self.rows_of(video)
        labels = torch.zeros(self.features.num_snippets(video), len(self.classes))
        labels[torch.as_tensor(snippets), torch.as_tensor(classes)] = 1.0
        return labels

    def labels(self) -> Tensor:
        """(N, C) float multi-hot: of which classes each of ``videos`` has a point."""
        labels = torch.zeros(len(self.videos), len(self.classes))
        for row, video in enumerate(self.videos):
            labels[row, torch.as_tensor(self.rows_of(video)[1])] = 1.0
        return labels


def supervision_of(dataset: Dataset, how: PointSource, seed: int) -> PointSupervision:
    """The training videos of a data set with points; the generator's features.

    Args:
        dataset: whose true segments are looked at only to draw points in those of training videos.
        how: "given": the points of the data; "auto": these if there are any, else "gaussian"; else a
            way of :func:`points_in_segments`.
        seed: of the drawing.

    Raises:
        DataError: "given", and the data has no points; drawn, and no segment lies in its video.
    """
    videos = dataset.video_names("train")
    given = dataset.points[dataset.points["video"].isin(videos)]
    if how == "auto":
        how = "gaussian" if given.empty else "given"
    if how == "given":
        points = given.reset_index(drop=True)
        missing = "has no point labels, expected a file of them ('points' in dataset.yaml), or "
        missing += "'--set hr_pro.points=gaussian' to draw them from the true segments"
    else:
        durations_s = dataset.videos["duration_s"]
        points = points_in_segments(dataset.truth("train"), durations_s, how, seed)
        missing = "has no training segment inside its video, expected some to draw points from"
    if points.empty:
        raise DataError([f"data set {dataset.name!r}: {missing}"])
    store = dataset.generator_features
    store = replace(store, offsets={video: store.offsets[video] for video in videos})
    return PointSupervision(tuple(videos), dataset.classes, store, points)
