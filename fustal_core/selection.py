"""FuSTAL stage 2, Selection: prior-based filtering of proposals by their IoU score.

A classification-based generator proposes densely around true actions, since many thresholds cut the
same bump, and sparsely elsewhere. So how much a proposal overlaps the others says whether to trust it:
s_i = sum over j != i of tIoU(i, j). A proposal is kept if s_i >= gamma and its confidence > eta.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fustal_core.metrics import temporal_iou
from fustal_core.stage_settings import SelectionSettings


def iou_score(segments: np.ndarray) -> np.ndarray:
    """Sum of the tIoUs of each proposal with the others of its video.

    Args:
        segments: (N, 2), start and end in seconds.

    Returns:
        (N,), >= 0; it can exceed 1.
    """
    return _overlaps(np.asarray(segments, dtype=float)).sum(1)


def mean_of_largest_ious(segments: np.ndarray) -> np.ndarray:
    """Variant of the IoU score in [0, 1]: mean of the 3 largest tIoUs with others; (N,2) -> (N,)."""
    overlaps = -np.sort(-_overlaps(np.asarray(segments, dtype=float)), axis=1)
    return overlaps[:, :3].sum(1) / 3


def _overlaps(segments: np.ndarray) -> np.ndarray:
    table = temporal_iou(segments, segments)
    np.fill_diagonal(table, 0.0)
    return table


def score_proposals(proposals: pd.DataFrame, settings: SelectionSettings) -> pd.DataFrame:
    """Add the column ``iou_score``, computed among each video's proposals.

    Args:
        proposals: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        settings: ``overlap`` and ``reduce`` choose the variant.
    """
    score = iou_score if settings.reduce == "sum" else mean_of_largest_ious
    keys = ["video"] if settings.overlap == "all" else ["video", "label"]
    values = np.zeros(len(proposals))
    segments = proposals[["t_start", "t_end"]].to_numpy(float)
    for rows in proposals.groupby(keys, sort=False).indices.values():
        values[rows] = score(segments[rows])
    return proposals.assign(iou_score=values)


def select(
    scored: pd.DataFrame, settings: SelectionSettings, video_classes: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The proposals that become pseudo labels.

    Args:
        scored: proposals with their ``iou_score``.
        settings: gamma (``iou_threshold``), eta (``confidence_threshold``) and what happens to a
            video in which nothing survives (``fallback``): its best-scored proposal of each of its
            classes is kept, or none.
        video_classes: ``video``, ``label``: the weak labels of the training videos; None: a video's
            classes are those proposed.

    Returns:
        The kept rows, in their order, with a boolean column ``fallback``.
    """
    passed = (scored["iou_score"] >= settings.iou_threshold) & (
        scored["score"] > settings.confidence_threshold
    )
    chosen = passed.to_numpy().copy()
    if settings.fallback == "best":
        empty = ~scored["video"].isin(scored.loc[passed, "video"].unique()).to_numpy()
        if video_classes is not None:
            known = pd.MultiIndex.from_frame(video_classes[["video", "label"]])
            empty &= pd.MultiIndex.from_frame(scored[["video", "label"]]).isin(known)
        rest = scored[empty].reset_index(drop=True)
        best = rest.groupby(["video", "label"], sort=False)["score"].idxmax()
        chosen[np.flatnonzero(empty)[best]] = True
    kept = scored[chosen]
    return kept.assign(fallback=~passed[chosen])
