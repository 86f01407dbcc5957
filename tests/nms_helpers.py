"""Soft-NMS of a single group, as the tests of what suppresses many groups compare with."""

from __future__ import annotations

import torch
from torch import Tensor

from fustal_core.suppression import batched_soft_nms


def soft_nms(
    segments: Tensor,
    scores: Tensor,
    sigma: float,
    min_score: float = 0.0,
    *,
    legacy_plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    """Segments (N, 2) and scores (N,) -> those picked, (M, 2) and (M,), in falling order."""
    picked, decayed = batched_soft_nms(
        segments[None],
        scores[None],
        sigma,
        min_score=min_score,
        max_picks=len(scores),
        legacy_plus_one=legacy_plus_one,
    )
    alive = torch.isfinite(decayed[0])
    return picked[0][alive], decayed[0][alive]
