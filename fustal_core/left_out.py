"""Test videos and detections that a data set's usual measure leaves out, as THUMOS'14's does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from fustal_core.annotations import DataError, some_quoted
from fustal_core.matching import overlaps


def leave_out(
    detections: pd.DataFrame,
    truth: pd.DataFrame,
    exclude: Iterable[str] = (),
    intervals: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is left to measure: detections and truth, each in its order with a new index.

    Args:
        detections: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``; others stay.
        truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s).
        exclude: videos left out of both; names that neither has change nothing.
        intervals: columns ``video``, ``t_start``, ``t_end`` (s), as ``results.read_ambiguous`` reads
            them: a detection of any class that shares time with one of its video is left out, one
            that only touches it is not. None: no intervals.
    """
    names = list(exclude)
    kept = ~detections["video"].isin(names)
    if intervals is not None:
        kept &= ~touching(detections, intervals)
    found, true = detections[kept], truth[~truth["video"].isin(names)]
    return found.reset_index(drop=True), true.reset_index(drop=True)


def touching(detections: pd.DataFrame, intervals: pd.DataFrame) -> np.ndarray:
    """Which detections share time with an interval listed for their video; (N,) bool."""
    videos = pd.Index(intervals["video"].unique())
    pairs = overlaps(
        detections[["t_start", "t_end"]].to_numpy(float),
        videos.get_indexer(detections["video"]),
        intervals[["t_start", "t_end"]].to_numpy(float),
        videos.get_indexer(intervals["video"]),
    )
    touching = np.zeros(len(detections), dtype=bool)
    touching[pairs.detection] = True
    return touching


def check_excluded(exclude: Iterable[str], truth: pd.DataFrame) -> None:
    """Refuse a list of videos to leave out that leaves out nothing, or all there is.

    Some lists in use name more videos than a data set has, so one known name is enough.

    Args:
        exclude: names; none is sound.
        truth: column ``video``, of the test videos' segments.

    Raises:
        DataError: no test video with a segment has one of the names, or all have.
    """
    names = set(exclude)
    if not names:
        return
    listed = some_quoted(sorted(names))
    excluded = truth["video"].isin(names)
    if not excluded.any():
        raise DataError([f"left out of the test: {listed}: expected a test video with a segment"])
    if excluded.all():
        raise DataError([f"left out of the test: {listed}: nothing is left to measure against"])
