"""What a student finds in its videos: the released network, then one position and one pair at a time.

Slow and plain, to test :mod:`fustal_core.student_inference` and EMA labels, and to time them against.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fustal_core.reference_proposals import soft_nms_by_loops
from fustal_core.reference_student import distances_at, network_by_levels

if TYPE_CHECKING:
    from fustal_core.stage_settings import StudentSettings
    from fustal_core.student import TriDet

Detection = tuple[float, int, float, float]
"""Score, class index, start and end in grid units."""


@torch.no_grad()
def detections_by_loops(
    model: TriDet, features: Tensor, mask: Tensor, settings: StudentSettings
) -> list[list[Detection]]:
    """Detections of each video by falling score, at most ``max_detections``.

    Args:
        model: whose weights these are, made with ``global_mean="padded"``.
        features: (B, T, D). mask: (B, T) bool.
        settings: of the student.
    """
    heads = [x.cpu().double() for x in network_by_levels(model, features, mask)]
    masks = mask.cpu().numpy()
    videos = [_of_video([x[b] for x in heads], masks[b], settings) for b in range(len(masks))]
    return [sorted(found, reverse=True)[: settings.max_detections] for found in videos]


def ema_labels_by_loops(
    model: TriDet, features: Tensor, mask: Tensor, settings: StudentSettings
) -> list[list[Detection]]:
    """Of each video's detections those above ``ema_label_threshold``, or the best if none is."""
    every = detections_by_loops(model, features, mask, settings)
    passed = [[one for one in found if one[0] > settings.ema_label_threshold] for found in every]
    return [own or found[:1] for own, found in zip(passed, every, strict=True)]


def _of_video(heads: list[Tensor], valid: np.ndarray, settings: StudentSettings) -> list[Detection]:
    """Soft-NMS per class of one video's candidates; heads (L, channels), valid (T,)."""
    by_class: dict[int, list[Detection]] = {}
    first = 0
    for level in range(settings.levels):
        kept = valid[:: 2**level]
        own = slice(first, first + len(kept))
        for one in _candidates([x[own] for x in heads], kept, 2**level, settings):
            by_class.setdefault(one[1], []).append(one)
        first += len(kept)
    found = []
    for label, candidates in by_class.items():
        table = np.array(candidates)
        segments, scores = soft_nms_by_loops(
            table[:, 2:], table[:, 0], settings.nms_sigma, settings.score_threshold
        )
        found += [(score, label, *segment) for score, segment in zip(scores, segments, strict=True)]
    return found


def _candidates(
    heads: list[Tensor], kept: np.ndarray, stride: int, settings: StudentSettings
) -> list[Detection]:
    """The best (position, class) pairs of one level."""
    logits, starts, ends, offsets = heads
    scores = logits.sigmoid().numpy() * kept[:, None]
    places = sorted(product(*map(range, scores.shape)), key=lambda place: -scores[place])
    found = []
    for t, c in places[: settings.pre_nms_top_k]:
        if scores[t, c] <= settings.score_threshold:
            break
        left, right = map(float, distances_at(starts[:, c], ends[:, c], offsets[t], t))
        if (left + right) * stride > settings.min_length_grid:
            found.append((float(scores[t, c]), c, (t - left) * stride, (t + right) * stride))
    return found
