"""Suppression of overlapping segments: greedy NMS and Gaussian soft-NMS, within groups.

A group is a class of a video. Greedy NMS drops what overlaps with something better; soft-NMS lowers its
score. Soft-NMS works on many groups at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

NMS_CHUNK = {"cpu": 2**16, "cuda": 2**21}
"""Places (groups times segments) that one call of the batched soft-NMS works on."""
LOOK_EVERY = {"cpu": 1, "cuda": 16}
"""Picks until the batched soft-NMS looks again whether any group goes on: a GPU is waited for then."""


def nms_per_class(
    labels: np.ndarray, segments: np.ndarray, scores: np.ndarray, tiou: float, plus_one: bool
) -> np.ndarray:
    """Greedy NMS within each class, labels (N,); indices kept, by class and falling score."""
    by_label = np.argsort(labels, kind="stable")
    firsts = np.unique(labels[by_label], return_index=True)[1]
    kept = [by_label[:0]]
    for rows in np.split(by_label, firsts[1:]):
        kept.append(rows[nms(segments[rows], scores[rows], tiou, legacy_plus_one=plus_one)])
    return np.concatenate(kept)


def nms(
    segments: np.ndarray, scores: np.ndarray, tiou: float, *, legacy_plus_one: bool = False
) -> np.ndarray:
    """Greedy non-maximum suppression: indices kept, by falling score.

    Args:
        segments: (N, 2) in seconds.
        scores: (N,).
        tiou: a segment goes when its tIoU with a better kept one reaches this.
        legacy_plus_one: lengths as end - start + 1.
    """
    order = np.argsort(-scores, kind="stable")
    start, end = segments[order].T
    length = end - start + legacy_plus_one
    kept = []
    while order.size:
        kept.append(order[0])
        inter = np.minimum(end[0], end) - np.maximum(start[0], start) + legacy_plus_one
        np.maximum(inter, 0, out=inter)
        stays = inter < tiou * (length[0] + length - inter)
        stays[0] = False
        order, start, end, length = order[stays], start[stays], end[stays], length[stays]
    return np.array(kept, dtype=int)


def thin(proposals: pd.DataFrame, tiou: float, *, legacy_plus_one: bool = False) -> pd.DataFrame:
    """Greedy NMS within each video and class; rows kept by video and class, and by falling score.

    Args:
        proposals: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        tiou: a proposal goes when its tIoU with a better kept one reaches this.
        legacy_plus_one: lengths as end - start + 1.
    """
    group = proposals.groupby(["video", "label"], sort=False).ngroup().to_numpy()
    segments = proposals[["t_start", "t_end"]].to_numpy()
    scores = proposals["score"].to_numpy()
    kept = nms_per_class(group, segments, scores, tiou, legacy_plus_one)
    return proposals.iloc[kept].reset_index(drop=True)


def suppress_softly(
    proposals: pd.DataFrame, sigma: float, *, legacy_plus_one: bool = False
) -> pd.DataFrame:
    """Gaussian soft-NMS within each video and class; no proposal is dropped.

    Args:
        proposals: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        sigma: width of the Gaussian.
        legacy_plus_one: lengths as end - start + 1.

    Returns:
        The same columns with decayed scores, by video and class in the order of their first rows, and
        as they were picked: by falling score, as far as scores are >= 0 (decay raises negative ones).
    """
    by_group = proposals.groupby(["video", "label"], sort=False)
    group = by_group.ngroup().to_numpy()
    side_by_side = proposals.iloc[np.argsort(group, kind="stable")]
    table = torch.tensor(side_by_side[["t_start", "t_end", "score"]].to_numpy(float))
    picked_of, segments, scores = soft_nms_of_groups(
        table[:, :2],
        table[:, 2],
        torch.from_numpy(np.bincount(group)),
        sigma,
        min_score=-torch.inf,
        max_picks=len(table),
        legacy_plus_one=legacy_plus_one,
    )
    order = torch.argsort(picked_of, stable=True)
    start, end = segments[order].numpy().T
    keys = by_group[["video", "label"]].head(1).iloc[picked_of[order].numpy()]
    softened = keys.assign(t_start=start, t_end=end, score=scores[order].numpy())
    return softened[list(proposals.columns)].reset_index(drop=True)


def soft_nms_of_groups(
    segments: Tensor,
    scores: Tensor,
    sizes: Tensor,
    sigma: float,
    *,
    min_score: float,
    max_picks: int,
    legacy_plus_one: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian soft-NMS of G groups of any sizes, those of about the same size at once.

    Args:
        segments: (N, 2), the members of a group side by side.
        scores: (N,).
        sizes: (G,) of the groups, each at least 1; N in all.
        sigma: width of the Gaussian.
        min_score: a group ends when its best remaining score is below this.
        max_picks: at most this many picks a group.
        legacy_plus_one: lengths as end - start + 1.

    Returns:
        What was picked, M in all: its group (M,), segment (M, 2) and decayed score (M,); large groups
        first, the picks of a group side by side in their order.
    """
    first = sizes.cumsum(0) - sizes
    parts = [(sizes[:0], segments[:0], scores[:0])]
    for groups in _chunks(sizes, NMS_CHUNK.get(sizes.device.type, NMS_CHUNK["cuda"])):
        place = torch.arange(int(sizes[groups[0]]), device=sizes.device)
        rows = (first[groups, None] + place).clamp(max=len(scores) - 1)  # (chunk, width)
        empty = place >= sizes[groups, None]
        picked, decayed = batched_soft_nms(
            segments[rows],
            scores[rows].masked_fill(empty, -torch.inf),
            sigma,
            min_score=min_score,
            max_picks=max_picks,
            legacy_plus_one=legacy_plus_one,
        )
        there = torch.isfinite(decayed)
        parts.append((groups[there.nonzero()[:, 0]], picked[there], decayed[there]))
    group, kept, decayed = (torch.cat(part) for part in zip(*parts, strict=True))
    return group, kept, decayed


def _chunks(sizes: Tensor, places: int) -> Iterator[Tensor]:
    """Indices of groups of similar size together, largest first.

    Sizes in a chunk differ by less than a factor of two: more empty places would take longer than
    one more chunk does. Only a small chunk takes whatever comes next.
    """
    order = torch.argsort(sizes, descending=True)
    start = 0
    while start < len(order):
        largest = int(sizes[order[start]])
        alike = int((2 * sizes[order[start:]] > largest).sum())
        count = max(1, min(alike, places // largest), places // 16 // largest)
        yield order[start : start + count]
        start += count


def batched_soft_nms(
    segments: Tensor,
    scores: Tensor,
    sigma: float,
    *,
    min_score: float,
    max_picks: int,
    legacy_plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gaussian soft-NMS of G groups at once; one step picks the best segment of every group.

    Args:
        segments: (G, N, 2).
        scores: (G, N); -inf marks an empty place.
        sigma: width of the Gaussian.
        min_score: a group ends when its best remaining score is below this.
        max_picks: at most this many picks a group.
        legacy_plus_one: lengths as end - start + 1.

    Returns:
        Segments (G, M, 2) and scores (G, M) in falling order, M <= max_picks; -inf in empty places.
    """
    num_groups, num_segments, _ = segments.shape
    start, end = segments[..., 0].contiguous(), segments[..., 1].contiguous()
    extra = float(legacy_plus_one)
    lengths = end - start + extra
    left = scores.clone()
    groups = torch.arange(num_groups, device=scores.device)
    most = min(max_picks, num_segments)
    # Everything a step writes is allocated once: small tensors kept among large ones that come and go
    # would leave the heap in pieces, gigabytes of them after some thousand steps.
    picks = torch.zeros(num_groups, most, dtype=torch.long, device=scores.device)
    values = torch.full_like(scores[:, :most], -torch.inf)
    look_every = LOOK_EVERY.get(scores.device.type, LOOK_EVERY["cuda"])
    overlap, union = torch.empty_like(scores), torch.empty_like(scores)
    for step in range(most):
        value, pick = left.max(1)
        value = value.masked_fill(value < min_score, -torch.inf)
        if step % look_every == 0 and not torch.isfinite(value).any():
            picks, values = picks[:, :step], values[:, :step]
            break
        picks[:, step], values[:, step] = pick, value
        torch.minimum(end, end[groups, pick, None], out=overlap)
        torch.maximum(start, start[groups, pick, None], out=union)
        overlap.sub_(union).add_(extra).clamp_(min=0)
        torch.add(lengths, lengths[groups, pick, None], out=union)
        union.sub_(overlap).clamp_(min=1e-12)
        # The floor keeps -inf (a taken place) times a vanishing decay from becoming NaN.
        left *= overlap.div_(union).square_().div_(-sigma).exp_().clamp_(min=1e-30)
        left[groups, pick] = -torch.inf
    return segments[groups[:, None], picks], values
