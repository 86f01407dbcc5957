"""The pooling of HR-Pro's second stage as its text reads: roi by roi, bin by bin, sample by sample.

Slow and plain, to test :mod:`fustal_core.hrpro_instance` and to time it against; shares no code with
it.
"""

from __future__ import annotations

import math

import numpy as np


def roi_pool_by_loops(features: np.ndarray, rois: np.ndarray, bins: int = 12) -> np.ndarray:
    """:func:`fustal_core.hrpro_instance.roi_pool` for one video; (T, D), (M, 2) -> (M, bins, D)."""
    pooled = np.zeros((len(rois), bins, features.shape[1]), dtype=features.dtype)
    for i, (roi_start, roi_end) in enumerate(rois):
        start, end = roi_start - 0.5, roi_end - 0.5
        length = max(end - start, 1.0)
        width = length / bins
        samples = math.ceil(length / bins)
        for k in range(bins):
            for s in range(samples):
                position = start + k * width + (s + 0.5) * width / samples
                pooled[i, k] += value_at(features, position) / samples
    return pooled


def value_at(features: np.ndarray, position: float) -> np.ndarray:
    """The features (T, D) at a position, (D,): interpolated, held for a snippet, then zero."""
    length = len(features)
    if position < -1 or position > length:
        return np.zeros_like(features[0])
    if position <= 0:
        return features[0]
    if position >= length - 1:
        return features[-1]
    before = math.floor(position)
    share = position - before
    return (1 - share) * features[before] + share * features[before + 1]
