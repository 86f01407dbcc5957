"""Proposal generation of FuSTAL and of ACM-Net as their texts read: threshold by threshold, run by run.

Slow and plain, to test :mod:`fustal_core.proposals` and :mod:`fustal_core.suppression` and to time them
against; shares no code with them.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.interpolate import interp1d

from fustal_core.reference import iou_of_two


class Way(NamedTuple):
    """Constants of a method.

    scaled: curves are scaled to [0, 1], and a video score equal to the threshold proposes its class.
    """

    cas_cuts: list[float]
    action_cuts: list[float]
    factor: int
    margin: float
    class_share: float
    class_threshold: float
    tiou: float
    scaled: bool


FUSTAL_WAY = Way(
    [0.025 * step for step in range(10)],
    [0.1 + 0.025 * step for step in range(33)],
    factor=24,
    margin=0.25,
    class_share=0.2,
    class_threshold=0.2,
    tiou=0.5,
    scaled=True,
)


def proposals_by_loops(
    cas: np.ndarray,
    actionness: np.ndarray,
    video_scores: np.ndarray,
    num_snippets: int,
    seconds_per_snippet: float,
    *,
    nms: bool = True,
    way: Way = FUSTAL_WAY,
) -> pd.DataFrame:
    """:func:`fustal_core.proposals.generate_proposals` with its defaults, or in ACM-Net's way.

    Args:
        cas: (T', C) T-CAS, T' >= 2.
        actionness: (T',).
        video_scores: (C,).
        num_snippets: L, the video's own number of snippets.
        seconds_per_snippet: stride of the features in seconds.
        nms: False gives the candidates before NMS.
        way: of the method.

    Returns:
        Columns ``label`` (class index), ``score``, ``t_start``, ``t_end`` (s), by class.
    """
    is_shown = operator.ge if way.scaled else operator.gt
    classes = [c for c, score in enumerate(video_scores) if is_shown(score, way.class_threshold)]
    if not classes:
        classes = [int(np.argmax(video_scores))]
    scaled = normalised if way.scaled else np.copy
    action_curve = upsampled(scaled(actionness), way.factor)
    position_s = seconds_per_snippet * num_snippets / (way.factor * len(cas))
    rows = []
    for label in classes:
        class_curve = upsampled(scaled(cas[:, label]), way.factor)
        bonus = way.class_share * video_scores[label]
        found = []
        for threshold in way.cas_cuts:
            cut = np.where(class_curve < threshold, 0.0, class_curve)
            found += scored_runs(cut, cut, way.margin)
        for threshold in way.action_cuts:
            cut = np.where(action_curve < threshold, 0.0, action_curve)
            found += scored_runs(cut, class_curve, way.margin)
        timed = [
            (contrast + bonus, first * position_s, (last + 1) * position_s)
            for contrast, first, last in found
        ]
        rows += [
            (label, *row) for row in (suppressed(timed, way.tiou, extra=1.0) if nms else timed)
        ]
    return pd.DataFrame(rows, columns=["label", "score", "t_start", "t_end"])


def normalised(curve: np.ndarray) -> np.ndarray:
    """Min-max to [0, 1]: ReLU on minimum and maximum, a range of 0 counts as 1; (T,) -> (T,)."""
    low, high = max(curve.min(), 0.0), max(curve.max(), 0.0)
    width = high - low if high > low else 1.0
    return np.array([min(max((value - low) / width, 0.0), 1.0) for value in curve])


def upsampled(curve: np.ndarray, factor: int) -> np.ndarray:
    """Linear interpolation at 0, 1/factor, ... < T, extrapolating the last step; (T,) -> (factor T,)."""
    line = interp1d(np.arange(len(curve)), curve, fill_value="extrapolate")
    return line(np.arange(factor * len(curve)) / factor)


def scored_runs(cut: np.ndarray, curve: np.ndarray, margin: float) -> list[tuple[float, int, int]]:
    """Runs of at least two positions above 0: (inside minus outside, first, last position).

    Args:
        cut: (N,) curve that is 0 below its threshold: where the runs are.
        curve: (N,) curve that they are scored on.
        margin: what counts as outside on each side, as a share of the run's length.
    """
    found = []
    for run in consecutive(np.flatnonzero(cut > 0)):
        if len(run) < 2:
            continue
        first, last, length = run[0], run[-1], len(run)
        outer_first = max(0, int(first - margin * length))
        outer_last = min(len(curve) - 1, int(last + margin * length))
        outside = [*range(outer_first, first), *range(last + 1, outer_last + 1)]
        contrast = np.mean(curve[run]) - (np.mean(curve[outside]) if outside else 0.0)
        found.append((contrast, first, last))
    return found


def consecutive(positions: np.ndarray) -> list[list[int]]:
    """Groups of positions that follow one another without a gap."""
    groups: list[list[int]] = []
    for position in positions.tolist():
        if groups and groups[-1][-1] == position - 1:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def suppressed(
    rows: list[tuple[float, float, float]], tiou: float, extra: float = 0.0
) -> list[tuple[float, float, float]]:
    """NMS of (score, start, end): a row is kept if its tIoU with every better kept one is < tiou.

    Lengths are end - start + extra, in areas and overlap.
    """
    kept: list[tuple[float, float, float]] = []
    for row in sorted(rows, key=lambda row: -row[0]):
        if all(iou_of_two(row[1:], other[1:], extra) < tiou for other in kept):
            kept.append(row)
    return kept


def soft_nms_by_loops(
    segments: np.ndarray,
    scores: np.ndarray,
    sigma: float,
    min_score: float = 0.0,
    extra: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian soft-NMS, one pick and one pair at a time; (N, 2), (N,) -> (M, 2), (M,)."""
    rows = [(score, *segment) for score, segment in zip(scores, segments, strict=True)]
    picked = []
    while rows:
        best = max(rows, key=lambda row: row[0])
        rows.remove(best)
        if best[0] < min_score:
            break
        picked.append(best)
        rows = [
            (row[0] * np.exp(-(iou_of_two(row[1:], best[1:], extra) ** 2) / sigma), *row[1:])
            for row in rows
        ]
    table = np.array(picked).reshape(-1, 3)
    return table[:, 1:], table[:, 0]
