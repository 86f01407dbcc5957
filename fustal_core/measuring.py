"""One measurement of detections and labels, on all videos and on resamples of them.

What is measured on the same number of videos has the same resamples, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fustal_core.metrics import THUMOS_TIOU
from fustal_core.resampling import draw_videos, resampled_label_quality, resampled_map

_DRAWS = 7  # what the random numbers of resamples are drawn from


def resampled_average(
    detections: pd.DataFrame, truth: pd.DataFrame, videos: Sequence[str], count: int
) -> np.ndarray:
    """Average mAP (0.1:0.7) in percent in resamples of test videos.

    Args:
        detections, truth: of the videos, as for ``metrics.detection_map``.
        videos: all that are measured, also those without any detection or segment.
        count: of resamples, R.

    Returns:
        (R,).
    """
    draws = draw_videos(videos, count, np.random.default_rng(_DRAWS))
    return 100 * resampled_map(detections, truth, THUMOS_TIOU, videos, draws).mean(axis=1)


def resampled_labels(
    labels: pd.DataFrame, truth: pd.DataFrame, videos: Sequence[str], count: int
) -> dict[str, np.ndarray]:
    """Precision and F1 of labels at tIoU 0.5 in resamples of training videos, fractions.

    Args: as for :func:`resampled_average`; labels as for ``quality.pseudo_label_quality``.

    Returns:
        ``"precision@0.5"`` and ``"f1@0.5"``, (R,) each.
    """
    draws = draw_videos(videos, count, np.random.default_rng(_DRAWS))
    precision, f1 = resampled_label_quality(labels, truth, 0.5, videos, draws)
    return {"precision@0.5": precision, "f1@0.5": f1}
